package e2e

import (
	"bytes"
	"errors"
	"mime/multipart"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/sightmesh/sightmesh/contracts"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// badInput is a request with bad input, or a part of one.
type badInput struct {
	name        string
	id          string // of the job or report; empty: nosuch
	query       string
	contentType string
	header      []string
	body        string
}

// badValues are values that are not valid, by the name of a parameter. A few headers can have every value.
var badValues = map[string]string{
	"pipeline": "nosuch", "priority": "urgent", "callback": "ftp://client.example/", "key": strings.Repeat("k", 256),
	"min_score": "2", "labels": ",", "top": "0", "wait": "soon", "window": "0", "drop": "some", "from": "-1",
	"Prefer": "wait=soon", "Idempotency-Key": strings.Repeat("k", 256), "X-Sight-Meta-*": strings.Repeat("x", 5000),
	"Last-Event-ID": "x", "If-None-Match": "x", "traceparent": "x", "X-Request-Id": strings.Repeat("x", 129),
}

// inputCodes are the codes that testBadInput gets from every operation that lists them.
var inputCodes = []v1.Code{
	v1.InvalidParameter, v1.InvalidHeader, v1.InvalidBody, v1.EmptyBody, v1.UnknownField, v1.UnknownPipeline,
	v1.UnknownJob, v1.UnknownReport, v1.UnsupportedType, v1.TooLarge, v1.Damaged, v1.TooManyImages, v1.URLRefused,
	v1.CrossOrigin, v1.UpgradeRequired,
}

// testBadInput sends every kind of bad input to every operation of contracts/openapi.json. Each operation must list the
// problems that it responds with, and must respond with the inputCodes that it lists.
func testBadInput(t *testing.T, m *mesh) {
	document, err := openapi3.NewLoader().LoadFromData(contracts.OpenAPI)
	if err != nil {
		t.Fatal(err)
	}
	bodies := badBodies(t)
	for path, item := range document.Paths.Map() {
		for method, operation := range item.Operations() {
			t.Run(operation.OperationID, func(t *testing.T) {
				inputs := slices.Concat(badHeads(), badParameters(t, slices.Concat(item.Parameters, operation.Parameters)))
				if operation.RequestBody != nil {
					inputs = append(inputs, bodies...)
				}
				seen := map[v1.Code]bool{}
				for _, in := range inputs {
					a, err := in.send(m.base(), method, path)
					if err != nil { // for example, the operation does not list the problem
						t.Errorf("%s: %v", in.name, err)
						continue
					}
					seen[a.problem.Code] = true
				}
				listed, _ := operation.Extensions["x-problem-codes"].([]any)
				for _, code := range inputCodes {
					if slices.Contains(listed, any(string(code))) && !seen[code] {
						t.Errorf("the operation lists %s, but no bad input has this problem", code)
					}
				}
			})
		}
	}
}

// send sends the input to an operation.
func (in badInput) send(base, method, path string) (response, error) {
	id := in.id
	if id == "" {
		id = "nosuch"
	}
	address := base + strings.ReplaceAll(path, "{id}", id) + "?" + in.query
	req, err := http.NewRequest(method, address, strings.NewReader(in.body))
	if err != nil {
		return response{}, err
	}
	if in.contentType != "" {
		req.Header.Set("Content-Type", in.contentType)
	}
	return doRequest(req, in.header...)
}

// badHeads are inputs that no parameter of an operation describes.
func badHeads() []badInput {
	const page = "https://elsewhere.example"
	return []badInput{
		{name: "unknown job or report"},
		{name: "ID that no job or report can have", id: "a.b"},
		{name: "unknown parameter", query: "note=1"},
		{name: "malformed query", query: "note=%zz"},
		{name: "page of another origin", header: []string{"Origin", page}},
		{name: "WebSocket of a page of another origin", header: []string{
			"Origin", page, "Connection", "Upgrade", "Upgrade", "websocket",
		}},
		{name: "incomplete handshake", header: []string{"Connection", "Upgrade", "Upgrade", "websocket"}},
		{name: "other protocol", header: []string{"Connection", "Upgrade", "Upgrade", "h2c"}},
	}
}

// badParameters are inputs with each parameter of an operation.
func badParameters(t *testing.T, parameters openapi3.Parameters) []badInput {
	t.Helper()
	var out []badInput
	for _, p := range parameters {
		name, in := p.Value.Name, p.Value.In
		value, known := badValues[name]
		if !known && in != openapi3.ParameterInPath {
			t.Errorf("this test knows no bad value of the parameter %s", name)
		}
		pair := url.QueryEscape(name) + "=" + url.QueryEscape(value)
		switch in {
		case openapi3.ParameterInQuery:
			out = append(out,
				badInput{name: "bad " + name, query: pair},
				badInput{name: "empty " + name, query: name + "="},
				badInput{name: "repeated " + name, query: pair + "&" + pair},
			)
		case openapi3.ParameterInHeader:
			out = append(out, badInput{
				name: "bad " + name, header: []string{strings.ReplaceAll(name, "*", "Site"), value},
			})
		}
	}
	return out
}

// badBodies are inputs with a body. Each is bad for at least one operation.
func badBodies(t *testing.T) []badInput {
	t.Helper()
	const binary, web, json = "application/octet-stream", "application/x-www-form-urlencoded", "application/json"
	page := string(samplePage(t))
	tooMany := 1001 // one more than the default of --max-images
	urls := strings.Repeat(`{"url":"https://client.example/"},`, tooMany)
	out := []badInput{
		{name: "no body", contentType: binary},
		{name: "unsupported type", contentType: "text/html", body: page},
		{name: "malformed type", contentType: "image/", body: page},
		{name: "compressed body", contentType: binary, header: []string{"Content-Encoding", "gzip"}, body: page},
		{name: "text", contentType: binary, body: "hello, is this an image?"},
		{name: "damaged image", contentType: binary, body: page[:len(page)/2]},
		{name: "large image", contentType: binary, body: strings.Repeat("x", 9<<20)},
		{name: "form without a boundary", contentType: "multipart/form-data", body: page},
		{name: "malformed form", contentType: "multipart/form-data; boundary=x", body: page},
		{name: "web form without an image", contentType: web, body: "note=1"},
		{name: "web form with bad base64", contentType: web, body: "imgbase64=*"},
		{name: "web form with an unknown field", contentType: web, body: "imgbase64=aGVsbG8=&note=1"},
		{name: "JSON in a web form", contentType: web, body: "{}"},
		{name: "no JSON", contentType: json},
		{name: "malformed JSON", contentType: json, body: "{"},
		{name: "JSON without an image", contentType: json, body: "{}"},
		{name: "JSON with an unknown name", contentType: json, body: `{"note":1}`},
		{name: "JSON with two images", contentType: json, body: `{"image":"aGVsbG8=","url":"https://client.example/"}`},
		{name: "JSON with an unknown pipeline", contentType: json, body: `{"image":"aGVsbG8=","pipeline":"nosuch"}`},
		{name: "JSON with a private URL", contentType: json, body: `{"url":"http://10.0.0.1/"}`},
		{name: "JSON with a bad URL", contentType: json, body: `{"images":[{"url":"ftp://client.example/"}]}`},
		{name: "JSON with too many images", contentType: json, body: `{"images":[` + strings.TrimSuffix(urls, ",") + `]}`},
		{name: "large JSON", contentType: json, body: strings.Repeat(" ", 17<<20)},
	}
	for _, f := range []struct {
		name  string
		write func(w *multipart.Writer) error
	}{
		{"form without an image", func(w *multipart.Writer) error { return w.WriteField("pipeline", "text") }},
		{"form with an unknown field", func(w *multipart.Writer) error {
			return errors.Join(w.WriteField("image", "x"), w.WriteField("note", "1"))
		}},
		{"form with a file in another field", func(w *multipart.Writer) error {
			_, err := w.CreateFormFile("note", "page.png")
			return err
		}},
		{"form with too many images", func(w *multipart.Writer) error {
			for range tooMany {
				if err := w.WriteField("image", "x"); err != nil {
					return err
				}
			}
			return nil
		}},
	} {
		var b bytes.Buffer
		w := multipart.NewWriter(&b)
		if err := f.write(w); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		out = append(out, badInput{name: f.name, contentType: w.FormDataContentType(), body: b.String()})
	}
	return out
}
