package e2e

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// testOldRoutes sends the requests of clients of the older designs.
func testOldRoutes(t *testing.T, m *mesh) {
	t.Run("tyocr", func(t *testing.T) { testTyocr(t, m) })
	t.Run("full report", func(t *testing.T) { testFullReport(t, m) })
	t.Run("upload", func(t *testing.T) { testUpload(t, m) })
}

// testTyocr sends the request of this client:
// requests.post(url, data={'imgbase64': base64.b64encode(f.read())})
func testTyocr(t *testing.T, m *mesh) {
	form := func(b64 string) string { return url.Values{"imgbase64": {b64}}.Encode() }
	a := m.send(t, http.MethodPost, "/tyocr", "application/x-www-form-urlencoded",
		form(base64.StdEncoding.EncodeToString(samplePage(t))))
	var got map[string]any
	if err := json.Unmarshal(a.body, &got); err != nil {
		t.Fatalf("%v: %v", a, err)
	}
	switch text, _ := got["text"].(string); {
	case got["sign"] != 0.0:
		t.Errorf("got %v: sign %v, want 0", a, got["sign"])
	case len(got) != 2:
		t.Errorf("got %v: %d fields, want 2", a, len(got))
	case !strings.Contains(withoutSpaces(text), "sightmeshreadsthispage"):
		t.Errorf("got %v, want the text of the sample page", a)
	}
	for name, body := range map[string]string{"bad base64": form("*"), "no field": "x=y", "no image": form("aGVsbG8="),
		"nothing": form("")} {
		a := m.send(t, http.MethodPost, "/tyocr", "application/x-www-form-urlencoded", body)
		switch err := json.Unmarshal(a.body, &got); {
		case err != nil:
			t.Errorf("%s: %v: %v", name, a, err)
		case a.status != http.StatusOK:
			t.Errorf("%s: %v: status %v, want 200", name, a, a.status)
		case got["sign"] != -1.0:
			t.Errorf("%s: %v: sign %v, want -1", name, a, got["sign"])
		case got["text"] == "":
			t.Errorf("%s: %v: no text", name, a)
		}
	}
	switch page := m.get(t, "/tyocr"); {
	case page.status != http.StatusOK:
		t.Errorf("GET /tyocr: %v: status %d, want 200", page, page.status)
	case !strings.Contains(string(page.body), "<form"):
		t.Errorf("GET /tyocr: %v, want a form", page)
	}
}

// testFullReport sends the request of this client: requests.post(url, json=report)
func testFullReport(t *testing.T, m *mesh) {
	const path = "/internal/v1/subway-images/full-report"
	face := sampleFace(t)
	web, _ := serveOn(t, webHost, func(w http.ResponseWriter, _ *http.Request) { w.Write(face) })
	report := map[string]any{
		"requestId": "r-1", "systemId": "s-1", "inspectionStartTime": "2026-11-21 05:00:00",
		"inspectionEndTime": "2026-11-21 05:10:00",
		"trainId":           "0107", "lineCode": "1", "yardName": "north", "direction": "up",
		"imageUrls": []map[string]string{{"location": "1-2", "imageUrl": web + "/1.jpg"},
			{"location": "1-3", "imageUrl": web + "/2.jpg"}},
	}
	post := func(report map[string]any) (response, map[string]any) {
		body, err := json.Marshal(report)
		if err != nil {
			t.Fatal(err)
		}
		a := m.send(t, http.MethodPost, path+"?pipeline=faces", "application/json", string(body))
		var got map[string]any
		if err := json.Unmarshal(a.body, &got); err != nil {
			t.Fatalf("%v: %v", a, err)
		}
		return a, got
	}
	a, _ := post(report)
	const success = `{"code":200,"message":"success"}`
	switch {
	case a.status != http.StatusOK:
		t.Fatalf("got %v: status %d, want 200", a, a.status)
	case strings.TrimSpace(string(a.body)) != success:
		t.Fatalf("the body is %s, want %s", a.body, success)
	}
	done := m.awaitReport(t, a.header.Get("Location"))
	switch {
	case done.Counts != (v1.Counts{Total: 2, Done: 2}):
		t.Errorf("the counts are %+v, want 2 of 2 done", done.Counts)
	case done.Images[1].Location != "1-3":
		t.Errorf("image 1 has the location %q, want 1-3", done.Images[1].Location)
	case done.Metadata["trainId"] != "0107":
		t.Errorf("the metadata is %v, want trainId 0107", done.Metadata)
	}
	for field := range report {
		for name, value := range map[string]any{"missing": nil, "empty": "", "of another type": 7} {
			wrong := maps.Clone(report)
			if wrong[field] = value; value == nil {
				delete(wrong, field)
			}
			a, got := post(wrong)
			switch message, _ := got["message"].(string); {
			case a.status != http.StatusBadRequest:
				t.Errorf("%s %s: %v: status %v, want 400", field, name, a, a.status)
			case got["code"] != 400.0:
				t.Errorf("%s %s: %v: code %v, want 400", field, name, a, got["code"])
			case len(got) != 2:
				t.Errorf("%s %s: %v: %d fields, want 2", field, name, a, len(got))
			case !strings.Contains(message, field):
				t.Errorf("%s %s: %v, want the name of the field in the message", field, name, a)
			}
		}
	}
	for _, images := range []any{
		[]any{},
		[]any{map[string]string{"location": "x"}},
		[]any{map[string]string{"imageUrl": web}},
		[]any{map[string]string{"location": "x", "imageUrl": "c:\\x.jpg"}},
	} {
		wrong := maps.Clone(report)
		wrong["imageUrls"] = images
		if a, got := post(wrong); got["code"] != 400.0 {
			t.Errorf("images %v: %v, want code 400", images, a)
		}
	}
}

// testUpload sends the request of this client: requests.post(url, files={'image': f})
func testUpload(t *testing.T, m *mesh) {
	body, contentType := newForm(t, "image", sampleFace(t))
	a := m.send(t, http.MethodPost, "/upload?pipeline=faces", contentType, string(body))
	switch {
	case a.status != http.StatusOK:
		t.Errorf("got %v: status %v, want 200", a, a.status)
	case a.result.Status != v1.Done:
		t.Errorf("got %v: status %v, want done", a, a.result.Status)
	case len(a.result.Regions) != 1:
		t.Errorf("got %v: %d regions, want 1", a, len(a.result.Regions))
	}
}

// TestReports_QueueLimit checks that a report above SIGHTMESH_MAX_REPORT_QUEUE is
// rejected, on the old route and on the new one.
func TestReports_QueueLimit(t *testing.T) {
	m := start(t, append(webClients(), "SIGHTMESH_MAX_REPORT_QUEUE=1"))
	two := `{"images":[{"url":"http://a/"},{"url":"http://b/"}]}`
	a := m.send(t, http.MethodPost, "/v1/reports", "application/json", two)
	if checkProblem(t, a, v1.Overloaded); a.header.Get("Retry-After") == "" {
		t.Errorf("got %v, want Retry-After", a)
	}
	old := `{"requestId":"1","systemId":"1","inspectionStartTime":"1","inspectionEndTime":"1",
		"trainId":"1","lineCode":"1","yardName":"1","direction":"1",
		"imageUrls":[{"location":"1","imageUrl":"http://a/"},{"location":"1","imageUrl":"http://b/"}]}`
	a = m.send(t, http.MethodPost, "/internal/v1/subway-images/full-report", "application/json", old)
	const busy = `{"code":429,"message":"System busy, try later."}`
	switch {
	case a.status != http.StatusTooManyRequests:
		t.Errorf("got %v: status %d, want 429", a, a.status)
	case strings.TrimSpace(string(a.body)) != busy:
		t.Errorf("the body is %s, want %s", a.body, busy)
	}
}

// TestOldRoutes_Disabled checks that --old-routes=false removes the old routes.
func TestOldRoutes_Disabled(t *testing.T) {
	m := start(t, nil, "--old-routes=false")
	checkProblem(t, m.send(t, http.MethodPost, "/tyocr", "application/x-www-form-urlencoded", "imgbase64="), v1.NotFound)
	checkProblem(t, m.send(t, http.MethodPost, "/upload", "image/png", "x"), v1.NotFound)
}
