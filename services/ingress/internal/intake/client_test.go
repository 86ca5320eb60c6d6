package intake

import (
	"encoding/json"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// startResults replies to look-ups as the results service, with one state after the other and
// then always with the last.
func (b bench) startResults(t *testing.T, states ...v1.Status) (requests *atomic.Int64) {
	t.Helper()
	requests = new(atomic.Int64)
	sub, err := b.nc.Subscribe(subject.AllLookup(), func(m *nats.Msg) {
		i := min(int(requests.Add(1)), len(states)) - 1
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
	return requests
}
