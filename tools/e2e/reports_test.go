package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"
	"time"

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

// finished waits until a report is done and returns it.
func (m *mesh) finished(t testing.TB, location string) v1.Report {
	t.Helper()
	var r v1.Report
	eventually(t, 2*time.Minute, func() error {
		a := m.get(t, location)
		if r = decodeReport(t, a); r.Status != v1.Done {
			return errNotYet{a}
		}
		return nil
	})
	return r
}

func testReports(t *testing.T, m *mesh) {
	t.Run("of addresses", func(t *testing.T) { testReportOfURLs(t, m) })
	t.Run("of uploads", func(t *testing.T) { testReportOfUploads(t, m) })
	t.Run("that cannot be taken", func(t *testing.T) { testBadReports(t, m) })
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
	a := m.send(t, http.MethodPost, "/v1/reports?pipeline=faces&callback="+web+"/callback", "application/json", body, key...)
	switch r := decodeReport(t, a); {
	case a.status != http.StatusAccepted:
		t.Fatalf("got %v: status %v, want 202", a, a.status)
	case r.Status != v1.Running:
		t.Fatalf("got %v: status %v, want running", a, r.Status)
	case r.Counts.Total != 5:
		t.Fatalf("got %v: Counts.Total %v, want 5", a, r.Counts.Total)
	case a.header.Get("Location") != "/v1/reports/"+r.ID:
		t.Fatalf("got %v: location %v, want %v", a, a.header.Get("Location"), "/v1/reports/"+r.ID)
	}
	location := a.header.Get("Location")
	if again := m.send(t, http.MethodPost, "/v1/reports?pipeline=faces&callback="+web+"/callback", "application/json", body, key...); again.header.Get("Location") != location {
		t.Errorf("the same report again: %v", again)
	}
	names, last := events(t, m.get(t, location+"/events"))
	var told v1.Report
	if err := json.Unmarshal(last, &told); err != nil {
		t.Fatal(err)
	}
	want := v1.Counts{Total: 5, Done: 2, Failed: 3}
	switch {
	case names[0] != "accepted":
		t.Errorf(`events %v, the last %s: names[0] %q, want "accepted"`, names, last, names[0])
	case names[len(names)-1] != "done":
		t.Errorf(`events %v, the last %s: names[len(names)-1] %q, want "done"`, names, last, names[len(names)-1])
	case told.Counts != want:
		t.Errorf("events %v, the last %s: told.Counts %v, want %v", names, last, told.Counts, want)
	}
	r := decodeReport(t, m.get(t, location))
	switch {
	case r.Status != v1.Done:
		t.Fatalf("the report: %+v: status %v, want done", r, r.Status)
	case r.Counts != want:
		t.Fatalf("the report: %+v: counts %v, want %v", r, r.Counts, want)
	case r.Metadata["train"] != "7":
		t.Fatalf(`the report: %+v: Metadata["train"] %q, want "7"`, r, r.Metadata["train"])
	case len(r.Images) != 5:
		t.Fatalf("the report: %+v: %d images, want 5", r, len(r.Images))
	}
	for i, code := range []v1.Code{"", v1.FetchFailed, v1.URLRefused, v1.UnsupportedType, ""} {
		image := r.Images[i]
		switch {
		case image.ID != fmt.Sprint(r.ID, "-", i):
			t.Errorf("image %d: %+v: image.ID %v, want %v", i, image, image.ID, fmt.Sprint(r.ID, "-", i))
			continue
		case image.Location != "wagon 3":
			t.Errorf(`image %d: %+v: image.Location %q, want "wagon 3"`, i, image, image.Location)
			continue
		case image.Result == nil:
			t.Errorf("image %d: %+v: no image.Result", i, image)
			continue
		case image.Result.Metadata["camera"] != "left":
			t.Errorf(`image %d: %+v: image.Result.Metadata["camera"] %q, want "left"`,
				i, image, image.Result.Metadata["camera"])
			continue
		}
		switch {
		case code == "" && (image.Status != v1.Done || len(image.Result.Regions) != 1):
			t.Errorf(`image %d: %+v, want %q: want not code == "" && (image.Status != v1.Done || len(image.Result.Regions) != 1)`,
				i, image.Result, code)
		case code != "" && (image.Result.Problem == nil || image.Result.Problem.Code != code):
			t.Errorf(`image %d: %+v, want %q: want not code != "" && (image.Result.Problem == nil || image.Result.Problem.Code != code)`,
				i, image.Result, code)
		}
	}
	if one := m.get(t, "/v1/images/"+r.Images[0].ID); one.result.Status != v1.Done {
		t.Errorf("an image is a job like others: %v", one)
	}
	if n := insideSeen("/x"); n != 0 {
		t.Errorf("the server inside saw %d requests", n)
	}
	if n := seen("/flaky.jpg"); n != 2 {
		t.Errorf("%d fetches of what failed once", n)
	}
	eventually(t, timeoutAnswer, func() error {
		switch c := decodeReport(t, m.get(t, location)).Callback; {
		case c == nil:
			return fmt.Errorf("the callback is %+v: no c", c)
		case c.State != v1.CallbackDelivered:
			return fmt.Errorf("the callback is %+v: state %v, want delivered", c, c.State)
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
		r := m.finished(t, a.header.Get("Location"))
		switch {
		case r.Counts != (v1.Counts{Total: 3, Done: 2, Failed: 1}):
			t.Errorf("%s: %+v: counts %v, want %v", path, r, r.Counts, (v1.Counts{Total: 3, Done: 2, Failed: 1}))
		case r.Images[1].Result.Problem.Code != v1.UnsupportedType:
			t.Errorf("%s: %+v: Images[1].Result.Problem.Code %v, want unsupported-type",
				path, r, r.Images[1].Result.Problem.Code)
		case r.Images[2].Result.Image.Bytes != len(face):
			t.Errorf("%s: %+v: Images[2].Result.Image.Bytes %v, want %v",
				path, r, r.Images[2].Result.Image.Bytes, len(face))
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
		`{"pictures":[]}`:           {v1.UnknownField, "pictures"},
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
// report and starts them again on the same files.
func TestReports_SurviveRestartOfAllServices(t *testing.T) {
	testReportSurvivesRestart(t, start(t, webClients()))
}

func testReportSurvivesRestart(t *testing.T, m *mesh) {
	face := sampleFace(t)
	web, _ := serveOn(t, webHost, func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(20 * time.Millisecond)
		w.Write(face)
	})
	const n = 60
	var images []string
	for i := range n {
		images = append(images, fmt.Sprintf(`{"url":"%s/%d.jpg"}`, web, i))
	}
	a := m.send(t, http.MethodPost, "/v1/reports?pipeline=faces", "application/json", `{"images":[`+strings.Join(images, ",")+`]}`)
	location := a.header.Get("Location")
	eventually(t, timeoutAnswer, func() error {
		if r := decodeReport(t, m.get(t, location)); r.Counts.Done < 3 {
			return errNotYet{a}
		}
		return nil
	})
	m.kill(t)
	before := time.Now()
	m.restart(t)
	r := m.finished(t, location)
	if r.Counts != (v1.Counts{Total: n, Done: n}) {
		t.Errorf("after everything was killed: %+v", r.Counts)
	}
	for i, image := range r.Images {
		switch {
		case !strings.HasSuffix(image.URL, fmt.Sprintf("/%d.jpg", i)):
			t.Errorf(`image %d: %+v: want strings.HasSuffix(image.URL, fmt.Sprintf("/%%d.jpg", i))`, i, image)
		case image.Result == nil:
			t.Errorf("image %d: %+v: no image.Result", i, image)
		case len(image.Result.Regions) != 1:
			t.Errorf("image %d: %+v: %d image.Result.Regions, want 1", i, image, len(image.Result.Regions))
		}
	}
	t.Logf("done %v after the new start", time.Since(before).Round(time.Millisecond))
}
