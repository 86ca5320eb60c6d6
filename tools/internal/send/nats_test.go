package send

import (
	"encoding/json"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// TestOverNATS_RepeatsUnderTheSameKey: ingress does not know whether the first
// request was accepted.
func TestOverNATS_RepeatsUnderTheSameKey(t *testing.T) {
	t.Parallel()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server is not ready")
	}
	nc, err := nats.Connect(s.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		closed := make(chan struct{})
		nc.SetClosedHandler(func(*nats.Conn) { close(closed) })
		nc.Close()
		<-closed
	})
	keys := make(chan string, 8)
	_, err = nc.Subscribe(subject.Analyze("text"), func(m *nats.Msg) {
		keys <- m.Header.Get(v1.HeaderKey)
		if len(keys) > 1 {
			m.Respond([]byte(`{"id":"j1","status":"done"}`))
			return
		}
		p := v1.NewProblem(v1.Unavailable, "j1 may have been accepted")
		p.Job = "j1"
		body, err := json.Marshal(p)
		if err != nil {
			t.Error(err)
		}
		m.RespondMsg(&nats.Msg{Header: nats.Header{"Nats-Service-Error-Code": {strconv.Itoa(p.Status)}}, Data: body})
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	out, _, code := command(t, t.Context(), Config{NATS: s.ClientURL(), Pipeline: "text", Paths: []string{folder(t, "a.jpg")}})
	if code != 0 || out["a.jpg"].Attempts != 2 {
		t.Fatalf("code %d: %+v, want 2 attempts", code, out["a.jpg"])
	}
	if first, second := <-keys, <-keys; first == "" || first != second {
		t.Errorf("the keys are %q and %q, want the same", first, second)
	}
}
