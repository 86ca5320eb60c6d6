package ingress

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"mime/multipart"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// badFields are fields with an invalid value: a form that reads the field has a problem.
var badFields = map[string]string{
	"pipeline": "nosuch", "priority": "urgent", "callback": "ftp://client.example/", "key": strings.Repeat("k", 256),
	"meta-site": strings.Repeat("x", 5000), "min_score": "2", "labels": ",", "top": "0", "note": "x",
}

// requestForms are the forms of a request with an image. Each creates a body with one more field.
var requestForms = []struct {
	name, path string
	body       func(t *testing.T, field, value string) (contentType string, body []byte)
	inQuery    bool
}{
	{"query", "/v1/images", func(*testing.T, string, string) (string, []byte) { return "image/png", smallImage() }, true},
	{"field of multipart/form-data", "/v1/images", multipartForm, false},
	{"field of a web form", "/v1/images", func(_ *testing.T, field, value string) (string, []byte) {
		form := url.Values{"imgbase64": {base64.StdEncoding.EncodeToString(smallImage())}, field: {value}}
		return "application/x-www-form-urlencoded", []byte(form.Encode())
	}, false},
	{"name of JSON", "/v1/images", func(t *testing.T, field, value string) (string, []byte) {
		return jsonForm(t, map[string]any{"image": base64.StdEncoding.EncodeToString(smallImage())}, field, value)
	}, false},
	{"query of a report", "/v1/reports", func(t *testing.T, _, _ string) (string, []byte) {
		return jsonForm(t, map[string]any{"images": []any{map[string]string{"url": "https://a.example/"}}}, "", "")
	}, true},
	{"field of a report", "/v1/reports", multipartForm, false},
	{"name of a report's JSON", "/v1/reports", func(t *testing.T, field, value string) (string, []byte) {
		return jsonForm(t, map[string]any{"images": []any{map[string]string{"url": "https://a.example/"}}}, field, value)
	}, false},
	{"field of `/upload`", "/upload", multipartForm, false},
}

func multipartForm(t *testing.T, field, value string) (contentType string, body []byte) {
	t.Helper()
	var b bytes.Buffer
	m := multipart.NewWriter(&b)
	if err := m.WriteField(field, value); err != nil {
		t.Fatal(err)
	}
	part, err := m.CreateFormFile("image", "a.png")
	if err != nil {
		t.Fatal(err)
	}
	part.Write(smallImage())
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	return m.FormDataContentType(), b.Bytes()
}

// jsonForm returns a JSON body with one more field.
func jsonForm(t *testing.T, in map[string]any, field, value string) (contentType string, body []byte) {
	t.Helper()
	if meta, ok := strings.CutPrefix(field, "meta-"); ok {
		in["metadata"] = map[string]string{meta: value}
	} else if field != "" {
		in[field] = value
	}
	body, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	return "application/json", body
}

// TestForms_AcceptTheSameFields checks that each documented field is read or rejected in every form of
// request, with the same problem. The table of docs/api.md has the result.
func TestForms_AcceptTheSameFields(t *testing.T) {
	d := start(t, "--old-routes", "--callback-secrets", "whsec_"+base64.StdEncoding.EncodeToString(make([]byte, 32)))
	d.startWorkers(t, 2, 1)
	names := slices.Sorted(maps.Keys(badFields))
	var table strings.Builder
	table.WriteString("| field in | " + strings.Join(names, " | ") + " |\n|---|" + strings.Repeat("---|", len(names)) + "\n")
	for _, form := range requestForms {
		cells := []string{form.name}
		for _, name := range names {
			contentType, body := form.body(t, name, badFields[name])
			path := form.path
			if form.inQuery {
				path += "?" + url.Values{name: {badFields[name]}}.Encode()
			}
			cells = append(cells, d.postForm(t, path, contentType, name, body))
		}
		table.WriteString("| " + strings.Join(cells, " | ") + " |\n")
	}
	const page, begin, end = "../../../../docs/api.md", "<!-- fields -->\n", "<!-- end of fields -->"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), begin)
	written, _, ended := strings.Cut(rest, end)
	if !found || !ended {
		t.Fatalf("%s has no table between %s and %s", page, begin, end)
	}
	if written != table.String() {
		t.Errorf("the table of %s differs from the result:\n%s", page, table.String())
	}
}

// postForm posts a body, and returns the problem that names the field, or "ignored".
func (d *instance) postForm(t *testing.T, path, contentType, field string, body []byte) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, d.url+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("Prefer", "respond-async")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode < http.StatusBadRequest {
		return "ignored"
	}
	var p v1.Problem
	if err := json.NewDecoder(res.Body).Decode(&p); err != nil {
		t.Fatalf("%s of %s: %s: %v", field, path, res.Status, err)
	}
	if p.Field != field && p.Field != strings.Replace(field, "meta-", "metadata.", 1) {
		t.Errorf("%s of %s: the problem %s names %q", field, path, p.Code, p.Field)
	}
	return fmt.Sprintf("%d `%s`", p.Status, p.Code)
}
