package send

import (
	"encoding/json"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/sightmesh/sightmesh/contracts/connection"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// startNATS runs a NATS server until the test ends, and returns its URL and a
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
	if !s.ReadyForConnections(time.Minute) {
		t.Fatal("the NATS server is not ready for connections")
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

// TestOverNATS_RetriesWithSameKey checks the retry after a reply that says that the first
// request may have been accepted.
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
	out, _, code := command(t, t.Context(),
		Config{NATS: connection.Config{URL: url}, Pipeline: "text", Paths: []string{folder(t, "a.jpg")}})
	switch {
	case code != 0:
		t.Fatalf("code %d, want 0: %+v", code, out["a.jpg"])
	case out["a.jpg"].Attempts != 2:
		t.Fatalf("%d attempts, want 2", out["a.jpg"].Attempts)
	}
	switch first, second := <-keys, <-keys; {
	case first == "":
		t.Error("the first request has no key")
	case first != second:
		t.Errorf("the keys are %q and %q, want the same", first, second)
	}
}

// TestOverNATS_SendsThePriority: without one, the job has that of its pipeline.
func TestOverNATS_SendsThePriority(t *testing.T) {
	t.Parallel()
	url, nc := startNATS(t)
	headers := make(chan nats.Header, 8)
	if _, err := nc.Subscribe(subject.Analyze("text"), func(m *nats.Msg) {
		headers <- m.Header
		m.Respond([]byte(`{"id":"j1","status":"done"}`))
	}); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	for priority, want := range map[string][]string{"": nil, "bulk": {"bulk"}} {
		cfg := Config{
			NATS: connection.Config{URL: url}, Pipeline: "text", Priority: priority, Paths: []string{folder(t, "a.jpg")},
		}
		if out, _, code := command(t, t.Context(), cfg); code != 0 {
			t.Fatalf("code %d, want 0: %+v", code, out["a.jpg"])
		}
		if got := (<-headers).Values(v1.HeaderPriority); !slices.Equal(got, want) {
			t.Errorf("--priority %q: the header is %q, want %q", priority, got, want)
		}
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
	out, _, code := command(t, t.Context(),
		Config{NATS: connection.Config{URL: url}, Pipeline: "faces", Paths: []string{folder(t, "a.jpg")}, Draw: drawn})
	switch {
	case code != 0:
		t.Errorf("code %d, want 0: %+v", code, out["a.jpg"])
	case out["a.jpg"].Status != v1.Done:
		t.Errorf("status %s, want done", out["a.jpg"].Status)
	case out["a.jpg"].Error != "":
		t.Errorf("error %q, want none", out["a.jpg"].Error)
	}
	if got, want := drawnFile(t, drawn, "a.jpg"), "image/jpeg of a.jpg with face 0.50"; got != want {
		t.Errorf("the drawn image is %q, want %q", got, want)
	}
}
