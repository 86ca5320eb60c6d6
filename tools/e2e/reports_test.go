package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"mime/multipart"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sightmesh/sightmesh/contracts/eventually"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

func newForm(t testing.TB, field string, images ...[]byte) (body []byte, contentType string) {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	for i, p := range images {
		part, err := w.CreateFormFile(field, fmt.Sprint(i, ".jpg"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := part.Write(p); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), w.FormDataContentType()
}

func decodeReport(t testing.TB, a response) v1.Report {
	t.Helper()
	var r v1.Report
	if err := json.Unmarshal(a.body, &r); err != nil {
		t.Fatalf("%v: %v", a, err)
	}
	return r
}

// awaitReport waits until a report is done, and returns it.
func (m *mesh) awaitReport(t testing.TB, location string) v1.Report {
	t.Helper()
	var r v1.Report
	eventually.Succeeds(t, 2*time.Minute, func() error {
		a := m.get(t, location)
		if r = decodeReport(t, a); r.Status != v1.Done {
			return pendingError{a}
		}
		return nil
	})
	return r
}

func testReports(t *testing.T, m *mesh) {
	t.Run("of addresses", func(t *testing.T) { testReportOfURLs(t, m) })
	t.Run("of uploads", func(t *testing.T) { testReportOfUploads(t, m) })
	t.Run("rejected", func(t *testing.T) { testBadReports(t, m) })
}

func testReportOfURLs(t *testing.T, m *mesh) {
	face := sampleFace(t)
	flaky := make(chan struct{}, 1)
	flaky <- struct{}{}
	web, seen := serveOn(t, webHost, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/face.jpg":
			w.Write(face)
		case "/flaky.jpg":
			select {
			case <-flaky:
				w.WriteHeader(http.StatusServiceUnavailable)
			default:
				w.Write(face)
			}
		case "/text":
			w.Write([]byte("no image"))
		case "/callback":
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	})
	inside, insideSeen := serveOn(t, "127.0.0.1", func(w http.ResponseWriter, _ *http.Request) { w.Write(face) })
	var images []string
	for _, url := range []string{web + "/face.jpg", web + "/gone", inside + "/x", web + "/text", web + "/flaky.jpg"} {
		images = append(images, `{"url":"`+url+`","location":"wagon 3","metadata":{"camera":"left"}}`)
	}
	body := `{"images":[` + strings.Join(images, ",") + `]}`
	key := []string{"Idempotency-Key", t.Name(), "X-Sight-Meta-Train", "7"}
	a := m.send(t, http.MethodPost, "/v1/reports?pipeline=faces&callback="+web+"/callback", "application/json", body,
		key...)
	switch r := decodeReport(t, a); {
	case a.status != http.StatusAccepted:
		t.Fatalf("got %v: status %v, want 202", a, a.status)
	case r.Status != v1.Running:
		t.Fatalf("got %v: the report is %s, want running", a, r.Status)
	case r.Counts.Total != 5:
		t.Fatalf("got %v: %d images in total, want 5", a, r.Counts.Total)
	case a.header.Get("Location") != "/v1/reports/"+r.ID:
		t.Fatalf("got %v: Location %s, want /v1/reports/%s", a, a.header.Get("Location"), r.ID)
	}
	location := a.header.Get("Location")
	again := m.send(t, http.MethodPost, "/v1/reports?pipeline=faces&callback="+web+"/callback", "application/json", body,
		key...)
	if got := again.header.Get("Location"); got != location {
		t.Errorf("the same request again got %v with the Location %q, want %q", again, got, location)
	}
	names, last := events(t, m.get(t, location+"/events"))
	var lastReport v1.Report
	if err := json.Unmarshal(last, &lastReport); err != nil {
		t.Fatal(err)
	}
	want := v1.Counts{Total: 5, Done: 2, Failed: 3}
	switch {
	case names[0] != "accepted":
		t.Errorf("events %q, want accepted first", names)
	case names[len(names)-1] != "done":
		t.Errorf("events %q, want done last", names)
	case lastReport.Counts != want:
		t.Errorf("the last event has the counts %+v, want %+v", lastReport.Counts, want)
	}
	r := decodeReport(t, m.get(t, location))
	switch {
	case r.Status != v1.Done:
		t.Fatalf("report %+v: status %s, want done", r, r.Status)
	case r.Counts != want:
		t.Fatalf("the counts are %+v, want %+v", r.Counts, want)
	case r.Metadata["train"] != "7":
		t.Fatalf("the metadata is %v, want train 7", r.Metadata)
	case len(r.Images) != 5:
		t.Fatalf("report %+v: %d images, want 5", r, len(r.Images))
	}
	for i, code := range []v1.Code{"", v1.FetchFailed, v1.URLRefused, v1.UnsupportedType, ""} {
		image := r.Images[i]
		switch {
		case image.ID != fmt.Sprint(r.ID, "-", i):
			t.Errorf("image %d has the ID %s, want %s-%d", i, image.ID, r.ID, i)
			continue
		case image.Location != "wagon 3":
			t.Errorf("image %d has the location %q, want wagon 3", i, image.Location)
			continue
		case image.Result == nil:
			t.Errorf("image %d has no result: %+v", i, image)
			continue
		case image.Result.Metadata["camera"] != "left":
			t.Errorf("image %d has the metadata %v, want camera left", i, image.Result.Metadata)
			continue
		}
		problem := image.Result.Problem
		switch {
		case code != "" && (problem == nil || problem.Code != code):
			t.Errorf("image %d has the problem %v, want %s", i, problem, code)
		case code == "" && image.Status != v1.Done:
			t.Errorf("image %d is %s with the problem %v, want done", i, image.Status, problem)
		case code == "" && len(image.Result.Regions) != 1:
			t.Errorf("image %d has %d regions, want 1", i, len(image.Result.Regions))
		}
	}
	if a := m.get(t, "/v1/images/"+r.Images[0].ID); a.result.Status != v1.Done {
		t.Errorf("GET of the first image as a job: %v, want done", a)
	}
	if n := insideSeen("/x"); n != 0 {
		t.Errorf("the forbidden server got %d requests, want 0", n)
	}
	if n := seen("/flaky.jpg"); n != 2 {
		t.Errorf("%d fetches of an image whose first fetch fails, want 2", n)
	}
	eventually.Succeeds(t, responseTimeout, func() error {
		c := decodeReport(t, m.get(t, location)).Callback
		if c == nil {
			return errors.New("the report has no callback")
		}
		if c.State != v1.WebhookDelivered {
			return fmt.Errorf("the state of the webhook is %s, want %s", c.State, v1.WebhookDelivered)
		}
		return nil
	})
}

func testReportOfUploads(t *testing.T, m *mesh) {
	face := sampleFace(t)
	body, contentType := newForm(t, "image", face, []byte("no image"), face)
	for _, path := range []string{"/v1/reports?pipeline=faces", "/v1/images?pipeline=faces"} {
		a := m.send(t, http.MethodPost, path, contentType, string(body))
		if a.status != http.StatusAccepted {
			t.Fatalf("%s: %v", path, a)
		}
		r := m.awaitReport(t, a.header.Get("Location"))
		switch {
		case r.Counts != (v1.Counts{Total: 3, Done: 2, Failed: 1}):
			t.Errorf("%s: the counts are %+v, want 2 of 3 done and 1 failed", path, r.Counts)
		case r.Images[1].Result.Problem.Code != v1.UnsupportedType:
			t.Errorf("%s: image 1 has the problem %v, want %s", path, r.Images[1].Result.Problem, v1.UnsupportedType)
		case r.Images[2].Result.Image.Bytes != len(face):
			t.Errorf("%s: image 2 has %d bytes, want %d", path, r.Images[2].Result.Image.Bytes, len(face))
		}
	}
}

func testBadReports(t *testing.T, m *mesh) {
	many := strings.Repeat(`{"url":"http://a/"},`, 1000) + `{"url":"http://a/"}`
	for body, want := range map[string]struct {
		code  v1.Code
		field string
	}{
		`{"images":[]}`:                  {v1.InvalidBody, "images"},
		`{}`:                             {v1.InvalidBody, "images"},
		`{"images":[{"location":"a"}]}`:  {v1.InvalidBody, "images.0.url"},
		`{"images":[{"url":"ftp://a"}]}`: {v1.InvalidBody, "images.0.url"},
		`{"images":[{"url":"http://a/"},{"url":7}]}`: {v1.InvalidBody, "images.1.url"},
		`{"images":[{"url":"http://a/","url":"b"}]}`: {v1.InvalidBody, "images.0.url"},
		`{"photos":[]}`:             {v1.UnknownField, "photos"},
		`{"images":[` + many + `]}`: {v1.TooManyImages, "images"},
		`{"images":[`:               {v1.InvalidBody, "images"},
	} {
		a := m.send(t, http.MethodPost, "/v1/reports", "application/json", body)
		if checkProblem(t, a, want.code); a.problem.Field != want.field {
			t.Errorf("%.60s: field %q, want %q", body, a.problem.Field, want.field)
		}
	}
	checkProblem(t, m.send(t, http.MethodPost, "/v1/reports", "image/png", "x"), v1.UnsupportedType)
	checkProblem(t, m.get(t, "/v1/reports/01ARZ3NDEKTSV4RRFFQ69G5FAV"), v1.UnknownReport)
	checkProblem(t, m.get(t, "/v1/reports/01ARZ3NDEKTSV4RRFFQ69G5FAV/events"), v1.UnknownReport)
}

// TestReports_SurviveRestartOfAllServices kills all processes in the middle of a
// report and starts them again on the same folder.
func TestReports_SurviveRestartOfAllServices(t *testing.T) {
	testReportSurvivesRestart(t, start(t, webClients()))
}

func testReportSurvivesRestart(t *testing.T, m *mesh) {
	face := sampleFace(t)
	const n, beforeKill = 60, 10
	var served atomic.Int64
	killed := make(chan struct{})
	web, _ := serveOn(t, webHost, func(w http.ResponseWriter, r *http.Request) {
		if served.Add(1) > beforeKill { // the other images are fetched after the kill
			select {
			case <-killed:
			case <-r.Context().Done():
				return
			}
		}
		w.Write(face)
	})
	var images []string
	for i := range n {
		images = append(images, fmt.Sprintf(`{"url":"%s/%d.jpg"}`, web, i))
	}
	a := m.send(t, http.MethodPost, "/v1/reports?pipeline=faces", "application/json",
		`{"images":[`+strings.Join(images, ",")+`]}`)
	location := a.header.Get("Location")
	eventually.Succeeds(t, responseTimeout, func() error {
		if r := decodeReport(t, m.get(t, location)); r.Counts.Done < 3 {
			return pendingError{a}
		}
		return nil
	})
	m.kill(t)
	close(killed)
	before := time.Now()
	m.restart(t)
	r := m.awaitReport(t, location)
	if r.Counts != (v1.Counts{Total: n, Done: n}) {
		t.Errorf("the counts after the restart are %+v, want all %d done", r.Counts, n)
	}
	for i, image := range r.Images {
		switch {
		case !strings.HasSuffix(image.URL, fmt.Sprintf("/%d.jpg", i)):
			t.Errorf("image %d has the URL %s, want /%d.jpg", i, image.URL, i)
		case image.Result == nil:
			t.Errorf("image %d has no result: %+v", i, image)
		case len(image.Result.Regions) != 1:
			t.Errorf("image %d has %d regions, want 1", i, len(image.Result.Regions))
		}
	}
	t.Logf("the report was done %v after the restart", time.Since(before).Round(time.Millisecond))
}
