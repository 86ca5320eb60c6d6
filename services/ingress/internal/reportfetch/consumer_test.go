package reportfetch

import (
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/sightmesh/sightmesh/contracts/retry"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/internal/bustest"
	"github.com/sightmesh/sightmesh/services/internal/consume"
)

// TestConsumer_RetryOrFail checks that the delay grows with the number of attempts, and that
// the last attempt returns a permanent error.
func TestConsumer_RetryOrFail(t *testing.T) {
	js, err := jetstream.New(bustest.Start(t, "text").Connect(t))
	if err != nil {
		t.Fatal(err)
	}
	f := &Consumer{cfg: Config{JetStream: js}}
	problem := v1.NewProblem(v1.FetchFailed, "the host answered 503")
	busy := retry.After(problem, 0)
	d := &consume.Delivery{Job: subject.Job{Pipeline: "text", ID: "R1-0"}}
	for i, want := range []time.Duration{time.Second, 4 * time.Second, 16 * time.Second, 64 * time.Second} {
		d.Deliveries = 10 * (i + 1) // with snoozed ones
		if i == 0 {
			d.Deliveries = 1
		}
		after, transient := retry.Delay(f.retryOrFail(t.Context(), d, busy))
		if !transient {
			t.Errorf("attempt %d is the last", i+1)
		}
		if after < want || after > want+want/4 {
			t.Errorf("after attempt %d: %v, want %v and up to a quarter more", i+1, after, want)
		}
	}
	last := f.retryOrFail(t.Context(), d, busy)
	if _, transient := retry.Delay(last); transient {
		t.Errorf("attempt %d is not the last", maxAttempts)
	}
	if !errors.Is(last, problem) {
		t.Errorf("the last attempt ends with %v, want %v", last, problem)
	}
	for _, tt := range []struct {
		id              string
		requested, want time.Duration
	}{{"R2-0", time.Minute, time.Minute}, {"R2-1", time.Hour, 10 * time.Minute}} {
		d := &consume.Delivery{Job: subject.Job{Pipeline: "text", ID: tt.id}, Deliveries: 1}
		err := retry.After(problem, tt.requested)
		if after, _ := retry.Delay(f.retryOrFail(t.Context(), d, err)); after != tt.want {
			t.Errorf("the host requests %v: the delay is %v, want %v", tt.requested, after, tt.want)
		}
	}
}
