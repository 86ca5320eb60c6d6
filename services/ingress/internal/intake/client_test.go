package intake

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/internal/bus"
)

// states plays the results service: it answers with one state after the
// other, and with the last one for ever.
func (b bench) states(t *testing.T, states ...v1.Status) (asked *atomic.Int64) {
	t.Helper()
	asked = new(atomic.Int64)
	sub, err := b.nc.Subscribe(subject.AllLookup(), func(m *nats.Msg) {
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

func TestClient_Await(t *testing.T) {
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
			r, err := b.client.Await(ctx, "j1")
			if err != nil || r.Status != tt.want {
				t.Errorf("got %+v, %v, want %s", r, err, tt.want)
			}
			<-told
		})
	}
}

func TestClient_AwaitThatEndsSaysWhereTheJobIs(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.states(t, v1.Running)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if r, err := b.client.Await(ctx, "j1"); !errors.Is(err, context.Canceled) || r.Status != v1.Running {
		t.Errorf("got %+v, %v, want that it is running", r, err)
	}
	var p *v1.Problem
	if _, err := b.client.Await(t.Context(), "*"); !errors.As(err, &p) || p.Code != v1.UnknownJob {
		t.Errorf("a wildcard as job: %v", err)
	}
}

func TestClient_Lookup(t *testing.T) {
	t.Parallel()
	problem, err := json.Marshal(v1.NewProblem(v1.UnknownJob, "never heard of it"))
	if err != nil {
		t.Fatal(err)
	}
	failed := nats.Header{"Nats-Service-Error-Code": {"404"}}
	for name, tt := range map[string]struct {
		id    string
		reply *nats.Msg
		code  v1.Code // of the problem
		wrong string  // part of an error that is no problem
	}{
		"a result":         {"j1", &nats.Msg{Data: []byte(`{"id":"j1","status":"done"}`)}, "", ""},
		"no id":            {"", nil, v1.UnknownJob, ""},
		"wildcard":         {"*", nil, v1.UnknownJob, ""},
		"several tokens":   {"a.b", nil, v1.UnknownJob, ""},
		"no service":       {"j1", nil, v1.Unavailable, ""},
		"no such job":      {"j1", &nats.Msg{Header: failed, Data: problem}, v1.UnknownJob, ""},
		"a broken problem": {"j1", &nats.Msg{Header: failed, Data: []byte("oops")}, "", "decode problem"},
		"a broken result":  {"j1", &nats.Msg{Data: []byte("oops")}, "", "decode answer"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			if tt.reply != nil {
				b.respond(t, subject.AllLookup(), tt.reply)
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			r, err := b.client.Lookup(ctx, tt.id)
			var p *v1.Problem
			switch {
			case tt.code != "":
				if !errors.As(err, &p) || p.Code != tt.code {
					t.Errorf("got %v, want %s", err, tt.code)
				}
			case tt.wrong != "":
				if err == nil || errors.As(err, &p) || !strings.Contains(err.Error(), tt.wrong) {
					t.Errorf("got %v, want an error that says %q", err, tt.wrong)
				}
			case err != nil || r.ID != "j1" || r.Status != v1.Done:
				t.Errorf("got %+v, %v", r, err)
			}
		})
	}
}
