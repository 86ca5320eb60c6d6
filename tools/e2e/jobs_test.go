package e2e

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"image"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/sightmesh/sightmesh/contracts/eventually"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

func testJobs(t *testing.T, m *mesh) {
	t.Run("every form of an image", func(t *testing.T) { testForms(t, m) })
	t.Run("images from elsewhere", func(t *testing.T) { testURLs(t, m) })
	t.Run("metadata and etag", func(t *testing.T) { testMetadata(t, m) })
	t.Run("keys", func(t *testing.T) { testKeys(t, m) })
	t.Run("long poll", func(t *testing.T) { testLongPoll(t, m) })
	t.Run("events", func(t *testing.T) { testEvents(t, m) })
	t.Run("cancel", func(t *testing.T) { testCancel(t, m) })
	t.Run("drawn", func(t *testing.T) { testDrawn(t, m) })
}

func testForms(t *testing.T, m *mesh) {
	face := sampleFace(t)
	b64 := base64.StdEncoding.EncodeToString(face)
	form, formType := newForm(t, "image", face)
	form64, form64Type := newForm(t, "imgbase64", []byte(b64))
	for name, tt := range map[string]struct{ contentType, body string }{
		"raw":              {"image/jpeg", string(face)},
		"form":             {formType, string(form)},
		"base64 in a form": {form64Type, string(form64)},
		"base64 in JSON":   {"application/json", `{"image":"` + b64 + `"}`},
		"data URL in JSON": {"application/json", `{"image":"data:image/jpeg;base64,` + b64 + `"}`},
		"base64, urlencoded": {"application/x-www-form-urlencoded",
			"imgbase64=" + strings.NewReplacer("+", "%2B", "/", "%2F", "=", "%3D").Replace(b64)},
	} {
		a := m.send(t, http.MethodPost, "/v1/images?pipeline=faces", tt.contentType, tt.body)
		switch {
		case a.status != http.StatusOK:
			t.Errorf("%s: %v: status %v, want 200", name, a, a.status)
		case a.result.Image == nil:
			t.Errorf("%s: %v: no image", name, a)
		case a.result.Image.Bytes != len(face):
			t.Errorf("%s: the image has %d bytes, want %d", name, a.result.Image.Bytes, len(face))
		case len(a.result.Regions) != 1:
			t.Errorf("%s: %v: %d regions, want 1", name, a, len(a.result.Regions))
		}
	}
}

func testURLs(t *testing.T, m *mesh) {
	face := sampleFace(t)
	inside, insideSeen := serveOn(t, "127.0.0.1", func(w http.ResponseWriter, _ *http.Request) { w.Write(face) })
	web, _ := serveOn(t, webHost, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/face.jpg":
			w.Write(face)
		case "/in":
			http.Redirect(w, r, inside, http.StatusFound)
		case "/endless":
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 1<<20)); err != nil {
					return
				}
			}
		case "/huge":
			w.Header().Set("Content-Length", "10000000000")
		case "/text":
			w.Write([]byte("no image"))
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	})
	for _, tt := range []struct {
		url    string
		status int
		code   v1.Code
	}{
		{web + "/face.jpg", http.StatusOK, ""},
		{web + "/in", http.StatusUnprocessableEntity, v1.URLRefused},
		{inside, http.StatusUnprocessableEntity, v1.URLRefused},
		{"http://localhost:1/", http.StatusUnprocessableEntity, v1.URLRefused},
		{"http://169.254.169.254/latest/meta-data", http.StatusUnprocessableEntity, v1.URLRefused},
		{"file:///etc/passwd", http.StatusUnprocessableEntity, v1.URLRefused},
		{web + "/nothing", http.StatusUnprocessableEntity, v1.FetchFailed},
		{web + "/endless", http.StatusRequestEntityTooLarge, v1.TooLarge},
		{web + "/huge", http.StatusRequestEntityTooLarge, v1.TooLarge},
		{web + "/text", http.StatusUnsupportedMediaType, v1.UnsupportedType},
	} {
		a := m.send(t, http.MethodPost, "/v1/images?pipeline=faces", "application/json", `{"url":"`+tt.url+`"}`)
		switch {
		case a.status != tt.status:
			t.Errorf("%s: %v: status %d, want %d", tt.url, a, a.status, tt.status)
		case a.problem.Code != tt.code:
			t.Errorf("%s: %v, want %d %s: problem code %v, want %v",
				tt.url, a, tt.status, tt.code, a.problem.Code, tt.code)
		}
	}
	if n := insideSeen("/"); n != 0 {
		t.Errorf("the forbidden server got %d requests, want 0", n)
	}
}

func testMetadata(t *testing.T, m *mesh) {
	r := m.postDone(t, "?pipeline=faces", sampleFace(t), "X-Sight-Meta-Camera", "3", "X-Sight-Meta-Side", "süd")
	switch {
	case r.Metadata["camera"] != "3":
		t.Errorf("metadata %v, want camera 3", r.Metadata)
	case r.Metadata["side"] != "süd":
		t.Errorf("metadata %v, want side süd", r.Metadata)
	}
	a := m.get(t, "/v1/images/"+r.ID)
	tag := a.header.Get("Etag")
	switch {
	case a.result.Metadata["camera"] != "3":
		t.Errorf("GET: %v, want the metadata camera 3", a)
	case tag == "":
		t.Errorf("GET: %v: no ETag", a)
	}
	switch again := m.send(t, http.MethodGet, "/v1/images/"+r.ID, "", "", "If-None-Match", tag); {
	case again.status != http.StatusNotModified:
		t.Errorf("GET with If-None-Match: %v: status %d, want 304", again, again.status)
	case len(again.body) != 0:
		t.Errorf("GET with If-None-Match: %v, want no body", again)
	}
}

func testKeys(t *testing.T, m *mesh) {
	face, page := sampleFace(t), samplePage(t)
	key := t.Name()
	first := m.postDone(t, "?pipeline=faces", face, "Idempotency-Key", key)
	if again := m.postDone(t, "?pipeline=faces", face, "Idempotency-Key", key); again.ID != first.ID {
		t.Errorf("the same key created job %s and then %s, want the same", first.ID, again.ID)
	}
	for name, a := range map[string]response{
		"another image":    m.post(t, "?pipeline=faces", page, "Idempotency-Key", key),
		"another pipeline": m.post(t, "?pipeline=text", face, "Idempotency-Key", key),
		"another priority": m.post(t, "?pipeline=faces&priority=bulk", face, "Idempotency-Key", key),
	} {
		switch {
		case a.status != http.StatusConflict:
			t.Errorf("%s with the same key: %v: status %v, want 409", name, a, a.status)
		case a.problem.Code != v1.KeyConflict:
			t.Errorf("%s with the same key: %v: problem code %v, want idempotency-conflict", name, a, a.problem.Code)
		case a.problem.Field != "Idempotency-Key":
			t.Errorf("%s with the same key: the field is %q, want Idempotency-Key", name, a.problem.Field)
		}
	}
	if a := m.post(t, "?pipeline=text&key="+url.QueryEscape(key), face); a.problem.Field != "key" {
		t.Errorf("another pipeline with the same key in the query: %v: the field is %q, want key", a, a.problem.Field)
	}
	// Concurrent requests to all ingresses create one job.
	ids := make(chan string, 8)
	for range cap(ids) {
		go func() {
			a, err := m.tryPost("?pipeline=faces", face, "Idempotency-Key", key+" at once")
			switch {
			case err != nil:
				t.Errorf("post an image: %v", err)
			case a.status != http.StatusOK:
				t.Errorf("got %v: status %d, want 200", a, a.status)
			}
			ids <- a.result.ID
		}()
	}
	one := <-ids
	for range cap(ids) - 1 {
		if id := <-ids; id != one {
			t.Errorf("the same key created the jobs %s and %s, want the same", one, id)
		}
	}
}

func testLongPoll(t *testing.T, m *mesh) {
	a := m.post(t, "?pipeline=text", samplePage(t), "Prefer", "respond-async")
	switch {
	case a.status != http.StatusAccepted:
		t.Fatalf("got %v: status %v, want 202", a, a.status)
	case a.header.Get("Preference-Applied") != "respond-async":
		t.Fatalf("Preference-Applied is %q, want respond-async", a.header.Get("Preference-Applied"))
	}
	switch done := m.get(t, a.header.Get("Location")+"?wait=60"); {
	case done.result.Status != v1.Done:
		t.Errorf("GET with wait: %v: status %s, want done", done, done.result.Status)
	case done.result.ID != a.result.ID:
		t.Errorf("GET with wait: %v: ID %s, want %s", done, done.result.ID, a.result.ID)
	}
	checkProblem(t, m.get(t, "/v1/images/01ARZ3NDEKTSV4RRFFQ69G5FAV?wait=60"), v1.UnknownJob)
	checkProblem(t, m.get(t, "/v1/images/01ARZ3NDEKTSV4RRFFQ69G5FAV?wait=long"), v1.InvalidParameter)
}

// events parses server-sent events. It returns their names and the data of the last one.
func events(t *testing.T, a response) (names []string, last []byte) {
	t.Helper()
	switch {
	case a.status != http.StatusOK:
		t.Fatalf("GET events: %v: status %d, want 200", a, a.status)
	case a.header.Get("Content-Type") != "text/event-stream; charset=utf-8":
		t.Fatalf("GET events: Content-Type %q, want text/event-stream in UTF-8", a.header.Get("Content-Type"))
	}
	for line := range strings.Lines(string(a.body)) {
		if name, ok := strings.CutPrefix(line, "event: "); ok {
			names = append(names, strings.TrimSpace(name))
		}
		if data, ok := strings.CutPrefix(line, "data: "); ok {
			last = []byte(data)
		}
	}
	return names, last
}

func testEvents(t *testing.T, m *mesh) {
	a := m.post(t, "?pipeline=text&priority=bulk", samplePage(t), "Prefer", "respond-async")
	names, last := events(t, m.get(t, a.header.Get("Location")+"/events"))
	var r v1.Result
	if err := json.Unmarshal(last, &r); err != nil {
		t.Fatal(err)
	}
	switch {
	case names[0] != "accepted":
		t.Errorf("events %q, want accepted first", names)
	case names[len(names)-1] != "done":
		t.Errorf("events %q, want done last", names)
	case r.Status != v1.Done:
		t.Errorf("the last event is %s: status %s, want done", last, r.Status)
	case r.ID != a.result.ID:
		t.Errorf("the last event is %s: ID %s, want %s", last, r.ID, a.result.ID)
	case r.Text == nil:
		t.Errorf("the last event is %s: no text", last)
	}
	if names, _ := events(t, m.get(t, a.header.Get("Location")+"/events")); strings.Join(names, " ") != "accepted done" {
		t.Errorf("the events of a finished job are %q, want accepted and done", names)
	}
	again := m.send(t, http.MethodGet, a.header.Get("Location")+"/events", "", "", "Last-Event-ID", "1")
	if names, _ := events(t, again); strings.Join(names, " ") != "done" {
		t.Errorf("the events after event 1 are %q, want only done", names)
	}
	if !strings.Contains(string(again.body), "id: end\nevent: done\n") {
		t.Errorf("the ID of the last event is not end:\n%.100s", again.body)
	}
	over := m.send(t, http.MethodGet, a.header.Get("Location")+"/events", "", "", "Last-Event-ID", "end")
	if over.status != http.StatusNoContent {
		t.Errorf("GET events after the last event: %v, want 204", over)
	}
	checkProblem(t, m.get(t, "/v1/images/01ARZ3NDEKTSV4RRFFQ69G5FAV/events"), v1.UnknownJob)
	checkProblem(t, m.get(t, "/v1/images/*/events"), v1.UnknownJob)
}

// subscribe subscribes, and returns when every NATS server of the mesh knows of it. A server sends what its
// clients do to another server in order. So a reply of a client of that server to a later request shows that
// the other server knows of the subscription.
func (m *mesh) subscribe(t *testing.T, subj string) *nats.Subscription {
	t.Helper()
	nc := m.connect(t)
	sub, err := nc.SubscribeSync(subj)
	if err != nil {
		t.Fatalf("subscribe to %s: %v", subj, err)
	}
	for url := range strings.SplitSeq(m.nats, ",") {
		responder, err := nats.Connect(url)
		if err != nil {
			t.Fatal(err)
		}
		defer responder.Close()
		inbox := responder.NewInbox()
		if _, err := responder.Subscribe(inbox, func(msg *nats.Msg) { msg.Respond(nil) }); err != nil {
			t.Fatal(err)
		}
		eventually.Succeeds(t, responseTimeout, func() error { // the server of nc learns of the responder
			_, err := nc.Request(inbox, nil, responseTimeout)
			return err
		})
	}
	return sub
}

func testCancel(t *testing.T, m *mesh) {
	// Enough jobs of bulk priority that the last one still waits.
	page := samplePage(t)
	var last string
	for range 12 {
		a := m.post(t, "?pipeline=text&priority=bulk", page, "Prefer", "respond-async")
		last = a.header.Get("Location")
	}
	endEvents := m.subscribe(t, subject.Events(strings.TrimPrefix(last, "/v1/images/")))
	was := []v1.Status{v1.Queued, v1.Running}
	var a response
	eventually.Succeeds(t, responseTimeout, func() error {
		a = m.send(t, http.MethodDelete, last, "", "")
		if a.problem.Code == v1.Unavailable { // the machine is busy; the job may be cancelled nevertheless
			was = append(was, v1.Failed)
			return pendingError{a}
		}
		return nil
	})
	var c v1.Cancellation
	switch err := json.Unmarshal(a.body, &c); {
	case err != nil:
		t.Fatalf("DELETE: %v: %v", a, err)
	case a.status != http.StatusOK:
		t.Fatalf("DELETE: %v: HTTP status %d, want 200", a, a.status)
	case !slices.Contains(was, c.Was):
		t.Fatalf("DELETE: %v: the job was %s, want one of %v", a, c.Was, was)
	case c.Status != v1.Failed:
		t.Fatalf("DELETE: %v: status %s, want failed", a, c.Status)
	}
	switch got := m.get(t, last); {
	case got.result.Status != v1.Failed:
		t.Errorf("the cancelled job is %v, want failed", got)
	case got.result.Problem == nil:
		t.Errorf("the cancelled job has no problem: %v", got)
	case got.result.Problem.Code != v1.Cancelled:
		t.Errorf("the cancelled job has the problem %s, want %s", got.result.Problem.Code, v1.Cancelled)
	}
	if _, err := endEvents.NextMsg(responseTimeout); err != nil {
		t.Errorf("no event of the end of the job: %v", err)
	}
	if again := m.send(t, http.MethodDelete, last, "", ""); again.status != http.StatusOK {
		t.Errorf("the second DELETE: %v, want 200", again)
	}
	finished := m.postDone(t, "?pipeline=faces", sampleFace(t))
	checkProblem(t, m.send(t, http.MethodDelete, "/v1/images/"+finished.ID, "", ""), v1.JobFinished)
	checkProblem(t, m.send(t, http.MethodDelete, "/v1/images/01ARZ3NDEKTSV4RRFFQ69G5FAV", "", ""), v1.UnknownJob)

	// When a client disconnects while waiting, its job is cancelled.
	cancelled := m.subscribe(t, subject.AllCancelled())
	for range 16 {
		m.post(t, "?pipeline=text", page, "Prefer", "respond-async")
	}
	images := m.subscribe(t, subject.ImagesOf("text", subject.Bulk))
	ctx, disconnect := context.WithCancel(t.Context())
	defer disconnect()
	url := m.base() + "/v1/images?pipeline=text&priority=bulk"
	send := func() (response, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(page))
		if err != nil {
			return response{}, err
		}
		return doRequest(req, "Content-Type", "image/png")
	}
	ended := make(chan error, 1)
	go func() {
		var sent error
		waited := eventually.Retry(responseTimeout, func() error { // again while a mesh on a busy machine rejects it
			var a response
			if a, sent = send(); sent == nil && a.problem.Code == v1.Overloaded {
				return pendingError{a}
			}
			return nil
		})
		ended <- errors.Join(sent, waited)
	}()
	published, err := images.NextMsg(responseTimeout)
	if err != nil {
		t.Fatalf("the image was not published: %v", err)
	}
	job, err := subject.ParseImages(published.Subject)
	if err != nil {
		t.Fatal(err)
	}
	disconnect()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Fatalf("the request of the client that disconnects ended with %v, want %v", err, context.Canceled)
	}
	got, err := cancelled.NextMsg(responseTimeout)
	if err != nil {
		t.Fatalf("the job of a client that disconnected was not cancelled: %v", err)
	}
	if want := subject.Cancelled(job.ID); got.Subject != want {
		t.Errorf("the cancelled job is that of %s, want %s", got.Subject, want)
	}
}

func testDrawn(t *testing.T, m *mesh) {
	face := sampleFace(t)
	plain, _, err := image.Decode(bytes.NewReader(face))
	if err != nil {
		t.Fatal(err)
	}
	for accept, want := range map[string]string{
		"image/png": "image/png", "image/jpeg": "image/jpeg", "image/png;q=0.5, image/jpeg": "image/jpeg",
		"application/json": "application/json", "*/*": "application/json", "text/plain": "application/json",
	} {
		a := m.post(t, "?pipeline=faces", face, "Accept", accept)
		switch {
		case a.status != http.StatusOK:
			t.Errorf("Accept %s: status %d, want 200", accept, a.status)
			continue
		case a.header.Get("Content-Type") != want:
			t.Errorf("Accept %s: Content-Type %s, want %s", accept, a.header.Get("Content-Type"), want)
			continue
		}
		if !strings.HasPrefix(want, "image/") {
			continue
		}
		img, format, err := image.Decode(bytes.NewReader(a.body))
		if err != nil {
			t.Errorf("Accept %s: decode the drawn image: %v", accept, err)
			continue
		}
		switch {
		case "image/"+format != want:
			t.Errorf("Accept %s: the drawn image is %s, want %s", accept, format, want)
		case img.Bounds() != plain.Bounds():
			t.Errorf("Accept %s: the drawn image has the bounds %v, want %v", accept, img.Bounds(), plain.Bounds())
		}
		box := m.get(t, a.header.Get("Content-Location")).result.Regions[0].Box
		if r, g, b, _ := img.At(box.X, box.Y+box.Height/2).RGBA(); r>>8 > 240 && g>>8 > 240 && b>>8 > 240 {
			t.Errorf("Accept %s: no box at %+v", accept, box)
		}
	}
	checkProblem(t, m.post(t, "?pipeline=faces", []byte("no image"), "Accept", "image/png"), v1.UnsupportedType)
}
