package ingress

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// startDrawings replies to requests for drawn images as a worker.
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

// respondProblem replies with a problem, like a NATS service.
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

// checkNotDrawn checks the response when a job is done but its image was not drawn.
func checkNotDrawn(t *testing.T, a response, code v1.Code, id string) {
	t.Helper()
	checkProblem(t, a.problem, code, id)
	checkLocation(t, a.header, "/v1/images/"+id)
	if got, want := a.header.Get("Content-Location"), "/v1/images/"+id; got != want {
		t.Errorf("Content-Location is %q, want %q", got, want)
	}
	if !strings.Contains(a.problem.Detail, "is done") {
		t.Errorf("the detail is %q, want that the job is done", a.problem.Detail)
	}
}

func TestDrawn_Response(t *testing.T) {
	t.Parallel()
	d := startServed(t, 2, 10)
	requests := make(chan []byte, 1)
	d.startDrawings(t, func(m *nats.Msg) {
		requests <- bytes.Clone(m.Data)
		first := nats.NewMsg(m.Reply)
		first.Header.Set(v1.HeaderPiece, "0/2")
		first.Data = []byte("drawn by ")
		if _, err := d.nc.RequestMsg(first, testTimeout); err != nil {
			t.Errorf("the second piece is not requested: %v", err)
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
	if got.StatusCode != http.StatusOK {
		t.Errorf("the status is %d, want 200", got.StatusCode)
	}
	if want := "drawn by a worker"; got.body != want {
		t.Errorf("got %q, want %q", got.body, want)
	}
	if kind := got.Header.Get("Content-Type"); kind != "image/jpeg" {
		t.Errorf("the type is %q, want image/jpeg", kind)
	}
	if at := got.Header.Get("Content-Location"); at != "/v1/images/"+id {
		t.Errorf("Content-Location is %q, want the address of job %s", at, id)
	}
	if len(requests) == 0 {
		t.Fatal("no worker got a request")
	}
	request, file, err := v1.DecodeDrawRequest(<-requests)
	if err != nil {
		t.Fatal(err)
	}
	if request.MediaType != "image/jpeg" {
		t.Errorf("the requested type is %q, want image/jpeg", request.MediaType)
	}
	if !bytes.Equal(file, smallImage()) {
		t.Errorf("the worker gets %d bytes, want the image of the request", len(file))
	}
}

// TestDrawn_ProblemHasTheAddressOfTheResult covers problems of the drawing, after which the job is still
// done.
func TestDrawn_ProblemHasTheAddressOfTheResult(t *testing.T) {
	t.Parallel()
	for code, retryAfter := range map[v1.Code]string{v1.Damaged: "", v1.Overloaded: "1", v1.TooSlow: "", v1.LaneDied: ""} {
		t.Run(string(code), func(t *testing.T) {
			t.Parallel()
			d := startServed(t, 2, 10)
			d.startDrawings(t, func(m *nats.Msg) { respondProblem(t, m, v1.NewProblem(code, "a test"), retryAfter) })
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
	d := startServed(t, 2, 10)
	waiting := d.postLater("", "Accept", "image/png")
	id := d.storeResult(t, d.nextImage(t), true)
	a := <-waiting
	if a.status != http.StatusServiceUnavailable {
		t.Errorf("got %d, want 503", a.status)
	}
	checkNotDrawn(t, a, v1.NoWorker, id)
	checkHasHeader(t, a.header, "Retry-After")
}
