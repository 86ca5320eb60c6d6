package ingress

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"mime/multipart"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// fieldValues are values of a field. The field note is unknown.
type fieldValues struct {
	name               string
	valid, wrong, long string
}

// longValue is the length of a value that is too long for every field.
const longValue = 9000

var formFields = []fieldValues{
	{"callback", "https://client.example/", "ftp://client.example/",
		"https://client.example/" + strings.Repeat("x", longValue)},
	{"key", "scan-17", strings.Repeat("k", 256), strings.Repeat("k", longValue)},
	{"labels", "car", ",", strings.Repeat("x", longValue)},
	{"meta-site", "north", strings.Repeat("x", 5000), strings.Repeat("ü", longValue/2)},
	{"min_score", "0.5", "2", "0." + strings.Repeat("0", longValue)},
	{"note", "x", "x", strings.Repeat("x", longValue)},
	{"pipeline", "text", "nosuch", strings.Repeat("x", longValue)},
	{"priority", "bulk", "urgent", strings.Repeat("x", longValue)},
	{"top", "3", "0", "1" + strings.Repeat("0", longValue)},
}

// formCases are the values that each form of a request has to reject in the same way.
var formCases = []struct {
	name   string
	values func(f fieldValues) []string
}{
	{"a wrong value", func(f fieldValues) []string { return []string{f.wrong} }},
	{"an empty value", func(fieldValues) []string { return []string{""} }},
	{"a field given twice", func(f fieldValues) []string { return []string{f.valid, f.valid} }},
	{"a value of 9,000 bytes", func(f fieldValues) []string { return []string{f.long} }},
}

// requestForms are the forms of a request with an image. Each creates a body with the values of one more field,
// none in a request with the field in its query.
var requestForms = []struct {
	name, path string
	body       func(t *testing.T, field string, values ...string) (contentType string, body []byte)
	inQuery    bool
}{
	{"query", "/v1/images", func(*testing.T, string, ...string) (string, []byte) {
		return "image/png", smallImage()
	}, true},
	{"field of multipart/form-data", "/v1/images", multipartForm, false},
	{"field of a web form", "/v1/images", webForm, false},
	{"name of JSON", "/v1/images", imageJSON, false},
	{"query of a report", "/v1/reports", reportJSON, true},
	{"field of a report", "/v1/reports", multipartForm, false},
	{"name of a report's JSON", "/v1/reports", reportJSON, false},
	{"field of `/upload`", "/upload", multipartForm, false},
}

func multipartForm(t *testing.T, field string, values ...string) (contentType string, body []byte) {
	t.Helper()
	var b bytes.Buffer
	m := multipart.NewWriter(&b)
	for _, value := range values {
		if err := m.WriteField(field, value); err != nil {
			t.Fatal(err)
		}
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

func webForm(_ *testing.T, field string, values ...string) (contentType string, body []byte) {
	form := url.Values{"imgbase64": {base64.StdEncoding.EncodeToString(smallImage())}}
	if len(values) > 0 {
		form[field] = values
	}
	return "application/x-www-form-urlencoded", []byte(form.Encode())
}

func imageJSON(t *testing.T, field string, values ...string) (contentType string, body []byte) {
	t.Helper()
	return jsonForm(t, fmt.Sprintf(`{"image":%q}`, base64.StdEncoding.EncodeToString(smallImage())), field, values)
}

func reportJSON(t *testing.T, field string, values ...string) (contentType string, body []byte) {
	t.Helper()
	return jsonForm(t, `{"images":[{"url":"https://a.example/"}]}`, field, values)
}

// jsonForm returns a JSON object with one more field, as often as it has values.
func jsonForm(t *testing.T, object, field string, values []string) (contentType string, body []byte) {
	t.Helper()
	name, isMeta := strings.CutPrefix(field, "meta-")
	var members []string
	for _, value := range values {
		var v any = value
		switch {
		case value == "": // a text, because JSON has no empty number
		case field == "min_score", field == "top":
			v = json.Number(value)
		case field == "labels":
			v = strings.Split(value, ",")
		}
		encoded, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		members = append(members, fmt.Sprintf("%q:%s", name, encoded))
	}
	text := strings.Join(members, ",")
	if isMeta {
		text = `"metadata":{` + text + "}"
	}
	if text != "" {
		text = "," + text
	}
	return "application/json", []byte(strings.TrimSuffix(object, "}") + text + "}")
}

// TestForms_RejectTheSameFields checks that each documented field is read or rejected in every form of request,
// with the same problem. The table of docs/api.md has the result.
func TestForms_RejectTheSameFields(t *testing.T) {
	secret := "whsec_" + base64.StdEncoding.EncodeToString(make([]byte, 32))
	d := startServed(t, 2, 1, "--old-routes", "--callback-secrets", secret)
	responses := make([][]string, len(formCases))
	for i, c := range formCases {
		for _, f := range formFields {
			responses[i] = append(responses[i], d.postToEachForm(t, c.name, f.name, c.values(f)))
		}
	}
	header := []string{"field in"}
	for _, f := range formFields {
		header = append(header, f.name)
	}
	table := tableRow(header...) + "|" + strings.Repeat("---|", len(header)) + "\n"
	for _, form := range requestForms {
		cells := responses[0]
		if form.path == "/upload" {
			cells = slices.Repeat([]string{"ignored"}, len(formFields))
		}
		table += tableRow(append([]string{form.name}, cells...)...)
	}
	for i, c := range formCases[1:] {
		table += tableRow(append([]string{c.name + ", in any of these but `/upload`"}, responses[i+1]...)...)
	}
	const page, begin, end = "../../../../docs/api.md", "<!-- fields -->\n", "<!-- end of fields -->"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), begin)
	if !found {
		t.Fatalf("%s has no line %s", page, begin)
	}
	written, _, found := strings.Cut(rest, end)
	if !found {
		t.Fatalf("%s has no line %s after %s", page, end, begin)
	}
	if written != table {
		t.Errorf("the table of %s differs from the result:\n%s", page, table)
	}
}

// tableRow returns a row of a table in Markdown.
func tableRow(cells ...string) string { return "| " + strings.Join(cells, " | ") + " |\n" }

// postToEachForm posts the values of a field in each form of a request, and returns the response to a query.
// Those to the other forms have to be the same, but an old route has to ignore the field.
func (d *instance) postToEachForm(t *testing.T, name, field string, values []string) string {
	t.Helper()
	want := ""
	for i, form := range requestForms {
		got := d.postField(t, form.path, form.body, form.inQuery, field, values)
		switch {
		case i == 0:
			want = got
		case form.path == "/upload" && got != "accepted":
			t.Errorf("%s of %s, %s: got %s, want it ignored", name, field, form.name, got)
		case form.path != "/upload" && got != want:
			t.Errorf("%s of %s, %s: got %s, but in the query %s", name, field, form.name, got, want)
		}
	}
	return want
}

// postField posts a request with the values of a field in its query or its body, and returns the problem, which
// has to name the field, or "accepted".
func (d *instance) postField(
	t *testing.T, path string, newBody func(*testing.T, string, ...string) (string, []byte), inQuery bool,
	field string, values []string,
) string {
	t.Helper()
	if inQuery {
		path += "?" + url.Values{field: values}.Encode()
		values = nil
	}
	contentType, body := newBody(t, field, values...)
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
		return "accepted"
	}
	var p v1.Problem
	if err := json.NewDecoder(res.Body).Decode(&p); err != nil {
		t.Fatalf("%s of %.60s: %s: %v", field, path, res.Status, err)
	}
	if p.Field != field {
		t.Errorf("%s of %.60s: the problem %s names %q", field, path, p.Code, p.Field)
	}
	if p.Limit != 0 {
		return fmt.Sprintf("%d `%s`, limit %d", p.Status, p.Code, p.Limit)
	}
	return fmt.Sprintf("%d `%s`", p.Status, p.Code)
}
