package send

import (
	"encoding/json"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/sightmesh/sightmesh/contracts/connection"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// startNATS runs a server until the test ends, and returns its URL and a
// connection.
func startNATS(t *testing.T) (string, *nats.Conn) {
	t.Helper()
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
	return s.ClientURL(), nc
}

// TestOverNATS_RetriesWithSameKey: ingress does not know whether the first
// request was accepted.
func TestOverNATS_RetriesWithSameKey(t *testing.T) {
	t.Parallel()
	url, nc := startNATS(t)
	keys := make(chan string, 8)
	_, err := nc.Subscribe(subject.Analyze("text"), func(m *nats.Msg) {
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
	out, _, code := command(t, t.Context(), Config{NATS: connection.Config{URL: url}, Pipeline: "text", Paths: []string{folder(t, "a.jpg")}})
	switch {
	case code != 0:
		t.Fatalf("code %d: %+v, want 2 attempts: code %v, want 0", code, out["a.jpg"], code)
	case out["a.jpg"].Attempts != 2:
		t.Fatalf(`code %d: %+v, want 2 attempts: out["a.jpg"].Attempts %v, want 2`,
			code, out["a.jpg"], out["a.jpg"].Attempts)
	}
	switch first, second := <-keys, <-keys; {
	case first == "":
		t.Errorf("the keys are %q and %q, want the same: no first", first, second)
	case first != second:
		t.Errorf("the keys are %q and %q, want the same: first %v, want %v", first, second, first, second)
	}
}

func TestOverNATS_Draw(t *testing.T) {
	t.Parallel()
	url, nc := startNATS(t)
	result := v1.Result{ID: "j1", Status: v1.Done, Regions: []v1.Region{{Label: "face", Score: 0.5}}}
	body, err := json.Marshal(result)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := nc.Subscribe(subject.Analyze("faces"), func(m *nats.Msg) { m.Respond(body) }); err != nil {
		t.Fatal(err)
	}
	if _, err := nc.Subscribe(subject.Draw(), func(m *nats.Msg) {
		request, file, err := v1.DecodeDrawRequest(m.Data)
		if err != nil {
			t.Error(err)
			return
		}
		out := nats.NewMsg(m.Reply)
		out.Header.Set(v1.HeaderPiece, "0/1")
		out.Data = []byte(request.MediaType + " of " + string(file) + " with " + request.Regions[0].Title)
		nc.PublishMsg(out)
	}); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	drawn := t.TempDir()
	out, _, code := command(t, t.Context(), Config{NATS: connection.Config{URL: url}, Pipeline: "faces", Paths: []string{folder(t, "a.jpg")}, Draw: drawn})
	switch {
	case code != 0:
		t.Errorf("code %d: %+v, want done: code %v, want 0", code, out["a.jpg"], code)
	case out["a.jpg"].Status != v1.Done:
		t.Errorf(`code %d: %+v, want done: out["a.jpg"].Status %v, want done`,
			code, out["a.jpg"], out["a.jpg"].Status)
	case out["a.jpg"].Error != "":
		t.Errorf(`code %d: %+v, want done: out["a.jpg"].Error %q, want ""`, code, out["a.jpg"], out["a.jpg"].Error)
	}
	if got, want := drawnFile(t, drawn, "a.jpg"), "image/jpeg of a.jpg with face 0.50"; got != want {
		t.Errorf("drawn is %q, want %q", got, want)
	}
}
