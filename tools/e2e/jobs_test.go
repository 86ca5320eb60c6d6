package e2e

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"image"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

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
		"raw":                {"image/jpeg", string(face)},
		"form":               {formType, string(form)},
		"base64 in a form":   {form64Type, string(form64)},
		"base64 in JSON":     {"application/json", `{"image":"` + b64 + `"}`},
		"data URL in JSON":   {"application/json", `{"image":"data:image/jpeg;base64,` + b64 + `"}`},
		"base64, urlencoded": {"application/x-www-form-urlencoded", "imgbase64=" + strings.NewReplacer("+", "%2B", "/", "%2F", "=", "%3D").Replace(b64)},
	} {
		a := m.send(t, http.MethodPost, "/v1/images?pipeline=faces", tt.contentType, tt.body)
		switch {
		case a.status != http.StatusOK:
			t.Errorf("%s: %v: status %v, want 200", name, a, a.status)
		case a.result.Image == nil:
			t.Errorf("%s: %v: no image", name, a)
		case a.result.Image.Bytes != len(face):
			t.Errorf("%s: %v: Image.Bytes %v, want %v", name, a, a.result.Image.Bytes, len(face))
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
			t.Errorf("%s: %v, want %d %s: status %v, want %v", tt.url, a, tt.status, tt.code, a.status, tt.status)
		case a.problem.Code != tt.code:
			t.Errorf("%s: %v, want %d %s: problem code %v, want %v",
				tt.url, a, tt.status, tt.code, a.problem.Code, tt.code)
		}
	}
	if n := insideSeen("/"); n != 0 {
		t.Errorf("the server inside saw %d requests", n)
	}
}

func testMetadata(t *testing.T, m *mesh) {
	r := m.postDone(t, "?pipeline=faces", sampleFace(t), "X-Sight-Meta-Camera", "3", "X-Sight-Meta-Side", "süd")
	switch {
	case r.Metadata["camera"] != "3":
		t.Errorf(`metadata %v: Metadata["camera"] %q, want "3"`, r.Metadata, r.Metadata["camera"])
	case r.Metadata["side"] != "süd":
		t.Errorf(`metadata %v: Metadata["side"] %q, want "süd"`, r.Metadata, r.Metadata["side"])
	}
	a := m.get(t, "/v1/images/"+r.ID)
	tag := a.header.Get("Etag")
	switch {
	case a.result.Metadata["camera"] != "3":
		t.Errorf(`asked again: %v, etag %q: Metadata["camera"] %q, want "3"`, a, tag, a.result.Metadata["camera"])
	case tag == "":
		t.Errorf("asked again: %v, etag %q: no tag", a, tag)
	}
	switch again := m.send(t, http.MethodGet, "/v1/images/"+r.ID, "", "", "If-None-Match", tag); {
	case again.status != http.StatusNotModified:
		t.Errorf("asked for what is known: %v: status %v, want 304", again, again.status)
	case len(again.body) != 0:
		t.Errorf("asked for what is known: %v: %d again.body, want 0", again, len(again.body))
	}
}

func testKeys(t *testing.T, m *mesh) {
	face, page := sampleFace(t), samplePage(t)
	key := t.Name()
	first := m.postDone(t, "?pipeline=faces", face, "Idempotency-Key", key)
	if again := m.postDone(t, "?pipeline=faces", face, "Idempotency-Key", key); again.ID != first.ID {
		t.Errorf("the same key made job %s and then %s", first.ID, again.ID)
	}
	for name, a := range map[string]response{
		"another image":    m.post(t, "?pipeline=faces", page, "Idempotency-Key", key),
		"another pipeline": m.post(t, "?pipeline=text", face, "Idempotency-Key", key),
		"another priority": m.post(t, "?pipeline=faces&priority=bulk", face, "Idempotency-Key", key),
	} {
		switch {
		case a.status != http.StatusConflict:
			t.Errorf("%s under the same key: %v: status %v, want 409", name, a, a.status)
		case a.problem.Code != v1.KeyConflict:
			t.Errorf("%s under the same key: %v: problem code %v, want idempotency-conflict", name, a, a.problem.Code)
		}
	}
	// Side by side, on all ingresses: one job.
	ids := make(chan string, 8)
	for range cap(ids) {
		go func() {
			a, err := m.tryPost("?pipeline=faces", face, "Idempotency-Key", key+" at once")
			switch {
			case err != nil:
				t.Errorf("%v %v", a, err)
			case a.status != http.StatusOK:
				t.Errorf("%v %v: status %v, want 200", a, err, a.status)
			}
			ids <- a.result.ID
		}()
	}
	one := <-ids
	for range cap(ids) - 1 {
		if id := <-ids; id != one {
			t.Errorf("jobs %s and %s of one key", one, id)
		}
	}
}

func testLongPoll(t *testing.T, m *mesh) {
	a := m.post(t, "?pipeline=text", samplePage(t), "Prefer", "respond-async")
	switch {
	case a.status != http.StatusAccepted:
		t.Fatalf("got %v: status %v, want 202", a, a.status)
	case a.header.Get("Preference-Applied") != "respond-async":
		t.Fatalf(`got %v: Preference-Applied %q, want "respond-async"`, a, a.header.Get("Preference-Applied"))
	}
	switch done := m.get(t, a.header.Get("Location")+"?wait=60"); {
	case done.result.Status != v1.Done:
		t.Errorf("waited for %s: %v: done.result.Status %v, want done", a.result.ID, done, done.result.Status)
	case done.result.ID != a.result.ID:
		t.Errorf("waited for %s: %v: done.result.ID %v, want %v", a.result.ID, done, done.result.ID, a.result.ID)
	}
	checkProblem(t, m.get(t, "/v1/images/01ARZ3NDEKTSV4RRFFQ69G5FAV?wait=60"), v1.UnknownJob)
	checkProblem(t, m.get(t, "/v1/images/01ARZ3NDEKTSV4RRFFQ69G5FAV?wait=long"), v1.InvalidParameter)
}

// events reads server-sent events: their names, and the data of the last.
func events(t *testing.T, a response) (names []string, last []byte) {
	t.Helper()
	switch {
	case a.status != http.StatusOK:
		t.Fatalf("no events: %v: status %v, want 200", a, a.status)
	case a.header.Get("Content-Type") != "text/event-stream":
		t.Fatalf(`no events: %v: Content-Type %q, want "text/event-stream"`, a, a.header.Get("Content-Type"))
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
		t.Errorf(`events %v, the last %s: names[0] %q, want "accepted"`, names, last, names[0])
	case names[len(names)-1] != "done":
		t.Errorf(`events %v, the last %s: names[len(names)-1] %q, want "done"`, names, last, names[len(names)-1])
	case r.Status != v1.Done:
		t.Errorf("events %v, the last %s: status %v, want done", names, last, r.Status)
	case r.ID != a.result.ID:
		t.Errorf("events %v, the last %s: ID %v, want %v", names, last, r.ID, a.result.ID)
	case r.Text == nil:
		t.Errorf("events %v, the last %s: no text", names, last)
	}
	if names, _ := events(t, m.get(t, a.header.Get("Location")+"/events")); strings.Join(names, " ") != "accepted done" {
		t.Errorf("afterwards: %v", names)
	}
	again := m.send(t, http.MethodGet, a.header.Get("Location")+"/events", "", "", "Last-Event-ID", "1")
	if names, _ := events(t, again); strings.Join(names, " ") != "done" {
		t.Errorf("after the event 1: %v, want done alone", names)
	}
	if !strings.Contains(string(again.body), "id: end\nevent: done\n") {
		t.Errorf("the last event has another ID than end:\n%.100s", again.body)
	}
	over := m.send(t, http.MethodGet, a.header.Get("Location")+"/events", "", "", "Last-Event-ID", "end")
	if over.status != http.StatusNoContent {
		t.Errorf("after the last event: %v, want 204", over)
	}
	checkProblem(t, m.get(t, "/v1/images/01ARZ3NDEKTSV4RRFFQ69G5FAV/events"), v1.UnknownJob)
	checkProblem(t, m.get(t, "/v1/images/*/events"), v1.UnknownJob)
}

// subscribe returns a subscription that the server knows of.
func (m *mesh) subscribe(t *testing.T, subj string) *nats.Subscription {
	t.Helper()
	nc := m.connect(t)
	sub, err := nc.SubscribeSync(subj)
	if err == nil {
		err = nc.Flush()
	}
	if err != nil {
		t.Fatalf("subscribe to %s: %v", subj, err)
	}
	return sub
}

func testCancel(t *testing.T, m *mesh) {
	// Jobs of bulk priority behind others, so that the last still waits.
	page := samplePage(t)
	var last string
	for range 12 {
		a := m.post(t, "?pipeline=text&priority=bulk", page, "Prefer", "respond-async")
		last = a.header.Get("Location")
	}
	heard := m.subscribe(t, subject.Events(strings.TrimPrefix(last, "/v1/images/")))
	a := m.send(t, http.MethodDelete, last, "", "")
	var c v1.Cancellation
	switch err := json.Unmarshal(a.body, &c); {
	case err != nil:
		t.Fatalf("cancelled: %v: %v", a, err)
	case a.status != http.StatusOK:
		t.Fatalf("cancelled: %v: status %v, want 200", a, a.status)
	case c.Was != v1.Queued && c.Was != v1.Running:
		t.Fatalf("cancelled: %v: want not c.Was != v1.Queued && c.Was != v1.Running", a)
	case c.Status != v1.Failed:
		t.Fatalf("cancelled: %v: status %v, want failed", a, c.Status)
	}
	switch got := m.get(t, last); {
	case got.result.Status != v1.Failed:
		t.Errorf("the job is %v: got.result.Status %v, want failed", got, got.result.Status)
	case got.result.Problem == nil:
		t.Errorf("the job is %v: no got.result.Problem", got)
	case got.result.Problem.Code != v1.Cancelled:
		t.Errorf("the job is %v: got.result.Problem.Code %v, want cancelled", got, got.result.Problem.Code)
	}
	if _, err := heard.NextMsg(timeoutAnswer); err != nil {
		t.Errorf("nobody tells that it ended: %v", err)
	}
	if again := m.send(t, http.MethodDelete, last, "", ""); again.status != http.StatusOK {
		t.Errorf("cancelled again: %v", again)
	}
	finished := m.postDone(t, "?pipeline=faces", sampleFace(t))
	checkProblem(t, m.send(t, http.MethodDelete, "/v1/images/"+finished.ID, "", ""), v1.JobFinished)
	checkProblem(t, m.send(t, http.MethodDelete, "/v1/images/01ARZ3NDEKTSV4RRFFQ69G5FAV", "", ""), v1.UnknownJob)

	// A client that hangs up has its job cancelled.
	events := m.subscribe(t, subject.AllCancelled())
	for range 16 {
		m.post(t, "?pipeline=text", page, "Prefer", "respond-async")
	}
	ctx, hangUp := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer hangUp()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, m.base()+"/v1/images?pipeline=text&priority=bulk", bytes.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "image/png")
	if res, err := webClient.Do(req); err == nil {
		res.Body.Close()
		t.Fatal("the answer came before the client could hang up")
	}
	if _, err := events.NextMsg(10 * time.Second); err != nil {
		t.Errorf("the job of a client that hung up goes on: %v", err)
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
			t.Errorf("Accept %s: %d %s, want %s: status %v, want 200",
				accept, a.status, a.header.Get("Content-Type"), want, a.status)
			continue
		case a.header.Get("Content-Type") != want:
			t.Errorf("Accept %s: %d %s, want %s: Content-Type %v, want %v",
				accept, a.status, a.header.Get("Content-Type"), want, a.header.Get("Content-Type"), want)
			continue
		}
		if !strings.HasPrefix(want, "image/") {
			continue
		}
		img, kind, err := image.Decode(bytes.NewReader(a.body))
		switch {
		case err != nil:
			t.Errorf("Accept %s: %s %v, %v", accept, kind, img.Bounds(), err)
		case "image/"+kind != want:
			t.Errorf(`Accept %s: %s %v, %v: "image/"+kind = %v, want %v`,
				accept, kind, img.Bounds(), err, "image/"+kind, want)
		case img.Bounds() != plain.Bounds():
			t.Errorf("Accept %s: %s %v, %v: img.Bounds() %v, want %v",
				accept, kind, img.Bounds(), err, img.Bounds(), plain.Bounds())
		}
		box := m.get(t, a.header.Get("Content-Location")).result.Regions[0].Box
		if r, g, b, _ := img.At(box.X, box.Y+box.Height/2).RGBA(); r>>8 > 240 && g>>8 > 240 && b>>8 > 240 {
			t.Errorf("Accept %s: no box at %+v", accept, box)
		}
	}
	checkProblem(t, m.post(t, "?pipeline=faces", []byte("no image"), "Accept", "image/png"), v1.UnsupportedType)
}
