package intake

import (
	"context"
	"encoding/json"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/internal/bus"
)

// states plays the results service: it answers with one state after the
// other, and with the last one for ever.
func (b bench) states(t *testing.T, states ...v1.Status) (asked *atomic.Int64) {
	t.Helper()
	asked = new(atomic.Int64)
	sub, err := b.nc.Subscribe(subject.Lookup("*"), func(m *nats.Msg) {
		i := min(int(asked.Add(1)), len(states)) - 1
		body, err := json.Marshal(v1.Result{ID: "j1", Status: states[i]})
		if err == nil {
			err = m.Respond(body)
		}
		if err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sub.Unsubscribe() })
	if err := b.nc.Flush(); err != nil {
		t.Fatal(err)
	}
	return asked
}

func TestAwait(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		states []v1.Status
		tell   v1.EventName
		want   v1.Status
	}{
		"done before":               {[]v1.Status{v1.Done}, "", v1.Done},
		"told":                      {[]v1.Status{v1.Queued, v1.Done}, v1.EventDone, v1.Done},
		"told that it failed":       {[]v1.Status{v1.Running, v1.Failed}, v1.EventFailed, v1.Failed},
		"the event was missed":      {[]v1.Status{v1.Running, v1.Done}, "", v1.Done},
		"told something in between": {[]v1.Status{v1.Queued, v1.Done}, v1.EventDetecting, v1.Done},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			asked := b.states(t, tt.states...)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			told := make(chan struct{})
			go func() {
				defer close(told)
				for asked.Load() == 0 && ctx.Err() == nil {
					time.Sleep(time.Millisecond)
				}
				if tt.tell != "" {
					if err := bus.Tell(b.nc, v1.Event{ID: "j1", Event: tt.tell}); err != nil {
						t.Error(err)
					}
				}
			}()
			r, err := b.Await(ctx, "j1")
			if err != nil || r.Status != tt.want {
				t.Errorf("got %+v, %v, want %s", r, err, tt.want)
			}
			<-told
		})
	}
}

func TestAwaitThatEndsSaysWhereTheJobIs(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.states(t, v1.Running)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if r, err := b.Await(ctx, "j1"); !errors.Is(err, context.Canceled) || r.Status != v1.Running {
		t.Errorf("got %+v, %v, want that it is running", r, err)
	}
	var p *v1.Problem
	if _, err := b.Await(t.Context(), "*"); !errors.As(err, &p) || p.Code != v1.UnknownJob {
		t.Errorf("a wildcard as job: %v", err)
	}
}

func TestStoreCarriesWhatTheClientWants(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	deadline := time.Now().Add(time.Minute).UTC().Truncate(time.Second)
	err := b.Store(t.Context(), Request{
		ID: "r-1", Pipeline: text, Priority: subject.Bulk, Picture: []byte("picture"), Deadline: deadline,
		Metadata: map[string]string{"camera": "3 ü"}, Callback: "https://client.example/", Report: &v1.ReportItem{Report: "r", N: 1, Total: 2},
	})
	if err != nil {
		t.Fatal(err)
	}
	s, err := b.js.Stream(t.Context(), streams.Images)
	if err != nil {
		t.Fatal(err)
	}
	m, err := s.GetLastMsgForSubject(t.Context(), subject.Images(subject.Job{Pipeline: "text", Priority: subject.Bulk, ID: "r-1"}))
	if err != nil {
		t.Fatal(err)
	}
	for k, want := range map[string]string{
		v1.HeaderMetadata: `{"camera":"3 ü"}`, v1.HeaderCallback: "https://client.example/", v1.HeaderReport: "r/1/2",
		v1.HeaderReply: "", v1.HeaderDeadline: deadline.Format(time.RFC3339),
	} {
		if got := m.Header.Get(k); got != want {
			t.Errorf("%s is %q, want %q", k, got, want)
		}
	}
}
