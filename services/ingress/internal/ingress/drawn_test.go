package ingress

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// startDrawings answers for a worker that draws.
func (d *instance) startDrawings(t *testing.T, reply func(m *nats.Msg)) {
	t.Helper()
	sub, err := d.nc.Subscribe(subject.Draw(), reply)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.nc.Flush(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sub.Unsubscribe() })
}

// respondProblem replies with a problem as a service does.
func respondProblem(t *testing.T, m *nats.Msg, p *v1.Problem, retryAfter string) {
	t.Helper()
	body, err := json.Marshal(p)
	if err != nil {
		t.Error(err)
	}
	h := nats.Header{"Nats-Service-Error-Code": {strconv.Itoa(p.Status)}}
	if retryAfter != "" {
		h.Set("Retry-After", retryAfter)
	}
	m.RespondMsg(&nats.Msg{Header: h, Data: body})
}

// checkNotDrawn checks the problem of a job that is done and whose image could
// not be drawn.
func checkNotDrawn(t *testing.T, a response, code v1.Code, id string) {
	t.Helper()
	checkProblem(t, a.problem, code, id)
	checkLocation(t, a.header, "/v1/images/"+id)
	if got, want := a.header.Get("Content-Location"), "/v1/images/"+id; got != want {
		t.Errorf("Content-Location is %q, want %q", got, want)
	}
	if !strings.Contains(a.problem.Detail, "is done") {
		t.Errorf("the detail %q does not say that the job is done", a.problem.Detail)
	}
}

func TestDrawn_Response(t *testing.T) {
	t.Parallel()
	d := start(t)
	d.startWorkers(t, 2, 10)
	asked := make(chan []byte, 1)
	d.startDrawings(t, func(m *nats.Msg) {
		asked <- bytes.Clone(m.Data)
		first := nats.NewMsg(m.Reply)
		first.Header.Set(v1.HeaderPiece, "0/2")
		first.Data = []byte("drawn by ")
		if _, err := d.nc.RequestMsg(first, 20*time.Second); err != nil {
			t.Errorf("nobody asks for the second piece: %v", err)
		}
		m.RespondMsg(&nats.Msg{Header: nats.Header{v1.HeaderPiece: {"1/2"}}, Data: []byte("a worker")})
	})
	type reply struct {
		*http.Response
		body string
	}
	waiting := make(chan reply, 1)
	go func() {
		req, err := http.NewRequest(http.MethodPost, d.url+"/v1/images", bytes.NewReader(smallImage()))
		if err != nil {
			t.Error(err)
		}
		req.Header.Set("Accept", "image/jpeg")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Error(err)
			close(waiting)
			return
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Error(err)
		}
		waiting <- reply{res, string(body)}
	}()
	id := d.storeResult(t, d.nextImage(t), true)
	got := <-waiting
	if got.Response == nil {
		t.FailNow()
	}
	if got.StatusCode != http.StatusOK || got.body != "drawn by a worker" {
		t.Errorf("got %d %q, want what the worker drew", got.StatusCode, got.body)
	}
	if kind := got.Header.Get("Content-Type"); kind != "image/jpeg" {
		t.Errorf("the type is %q, want image/jpeg", kind)
	}
	if at := got.Header.Get("Content-Location"); at != "/v1/images/"+id {
		t.Errorf("Content-Location is %q, want that of job %s", at, id)
	}
	if len(asked) == 0 {
		t.Fatal("no worker was asked to draw")
	}
	request, file, err := v1.DecodeDrawRequest(<-asked)
	if err != nil {
		t.Fatal(err)
	}
	if request.MediaType != "image/jpeg" {
		t.Errorf("the worker is asked for %q, want image/jpeg", request.MediaType)
	}
	if !bytes.Equal(file, smallImage()) {
		t.Errorf("the worker gets %d bytes, want the image of the request", len(file))
	}
}

// TestDrawn_ProblemHasTheAddressOfTheResult: the job is done, whatever becomes of the
// drawing.
func TestDrawn_ProblemHasTheAddressOfTheResult(t *testing.T) {
	t.Parallel()
	for code, retryAfter := range map[v1.Code]string{v1.Damaged: "", v1.Overloaded: "1", v1.TooSlow: "", v1.LaneDied: ""} {
		t.Run(string(code), func(t *testing.T) {
			t.Parallel()
			d := start(t)
			d.startWorkers(t, 2, 10)
			d.startDrawings(t, func(m *nats.Msg) { respondProblem(t, m, v1.NewProblem(code, "as ordered"), retryAfter) })
			waiting := d.postLater("", "Accept", "image/png")
			id := d.storeResult(t, d.nextImage(t), true)
			a := <-waiting
			if want := v1.NewProblem(code, "").Status; a.status != want {
				t.Errorf("got %d, want %d", a.status, want)
			}
			checkNotDrawn(t, a, code, id)
			if got := a.header.Get("Retry-After"); got != retryAfter {
				t.Errorf("Retry-After is %q, want %q", got, retryAfter)
			}
		})
	}
}

func TestDrawn_RejectsWithoutAWorker(t *testing.T) {
	t.Parallel()
	d := start(t)
	d.startWorkers(t, 2, 10)
	waiting := d.postLater("", "Accept", "image/png")
	id := d.storeResult(t, d.nextImage(t), true)
	a := <-waiting
	if a.status != http.StatusServiceUnavailable {
		t.Errorf("got %d, want 503", a.status)
	}
	checkNotDrawn(t, a, v1.NoWorker, id)
	if a.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
}
