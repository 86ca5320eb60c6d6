package run

import (
	"errors"
	"log/slog"
	"testing"

	"github.com/sightmesh/sightmesh/services/internal/telemetry"
)

// TestReadiness_StoppingIsTheLastState also against a check that returns late.
func TestReadiness_StoppingIsTheLastState(t *testing.T) {
	t.Parallel()
	r := &readiness{admin: &telemetry.Admin{}, log: slog.New(slog.DiscardHandler), err: errStarting}
	r.set(nil)
	if r.err != nil {
		t.Fatalf("not ready before it stops: %v", r.err)
	}
	r.stop()
	for _, late := range []error{nil, errors.New("broken")} {
		r.set(late)
		if !errors.Is(r.err, errStopping) {
			t.Errorf("after a late %v it is %v, want %v", late, r.err, errStopping)
		}
	}
}

func TestReadiness_SaysWhatItWaitsForWhileItStarts(t *testing.T) {
	t.Parallel()
	r := &readiness{admin: &telemetry.Admin{}, log: slog.New(slog.DiscardHandler), err: errStarting}
	r.starting("waiting for NATS")
	if got, want := r.err.Error(), "starting: waiting for NATS"; got != want {
		t.Errorf("the reason is %q, want %q", got, want)
	}
	r.starting("")
	if got, want := r.err.Error(), "starting"; got != want {
		t.Errorf("when it waits for nothing, the reason is %q, want %q", got, want)
	}
	r.set(nil)
	r.starting("waiting for NATS")
	if r.err != nil {
		t.Errorf("a process that is ready starts again: %v", r.err)
	}
}
