package httpapi

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

var queries = []struct {
	raw   string
	want  fields
	code  v1.Code // of the problem, when there is one
	field string
}{
	{"", fields{}, "", ""},
	{"pipeline=text", fields{"pipeline": "text"}, "", ""},
	{"pipeline=text&priority=bulk", fields{"pipeline": "text", "priority": "bulk"}, "", ""},
	{"pipeline=a%20b", fields{"pipeline": "a b"}, "", ""},
	{"meta-camera=3&meta-empty=", fields{"meta-camera": "3", "meta-empty": ""}, "", ""},
	{"meta-Camera=3", fields{"meta-camera": "3"}, "", ""},
	{"meta-Camera=3&meta-camera=4", nil, v1.InvalidParameter, "meta-camera"},
	{"utm_source=x", nil, v1.UnknownField, "utm_source"},
	{"Pipeline=text", nil, v1.UnknownField, "Pipeline"},
	{"pipeline=", nil, v1.InvalidParameter, "pipeline"},
	{"pipeline", nil, v1.InvalidParameter, "pipeline"},
	{"priority=bulk&priority=bulk", nil, v1.InvalidParameter, "priority"},
	{"pipeline=%zz", nil, v1.InvalidParameter, "query"},
	{"pipeline=text;priority=bulk", nil, v1.InvalidParameter, "query"},
}

// newRequest returns a request with a path and a query.
func newRequest(path, query string) *http.Request {
	return &http.Request{URL: &url.URL{Path: path, RawQuery: query}}
}

func TestParseQuery(t *testing.T) {
	t.Parallel()
	for _, tt := range queries {
		got, err := parseQuery(newRequest("/v1/images", tt.raw), "pipeline", "priority", "meta-*")
		checkProblem(t, tt.raw, err, tt.code, tt.field)
		if !maps.Equal(got, tt.want) {
			t.Errorf("%q: %v, want %v", tt.raw, got, tt.want)
		}
	}
	got, err := parseQuery(newRequest("/upload", "utm_source=x&utm_source=y&empty=&pipeline=text"), "pipeline")
	if err != nil {
		t.Errorf("an old route with unknown fields: %v", err)
	}
	if want := (fields{"pipeline": "text"}); !maps.Equal(got, want) {
		t.Errorf("an old route: %v, want %v", got, want)
	}
}

func FuzzParseQuery(f *testing.F) {
	for _, tt := range queries {
		f.Add(tt.raw)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		got, err := parseQuery(newRequest("/v1/images", raw), "pipeline", "priority")
		code, field := problemCodeAndField(err)
		if err != nil && code != v1.InvalidParameter && code != v1.UnknownField {
			t.Errorf("%q: got %v, want %s or %s", raw, err, v1.InvalidParameter, v1.UnknownField)
		}
		if code == v1.InvalidParameter && field == "" {
			t.Errorf("%q: the problem %v has no field", raw, err)
		}
		for name, value := range got {
			if name != "pipeline" && name != "priority" {
				t.Errorf("%q: got the unknown field %q", raw, name)
			}
			if value == "" {
				t.Errorf("%q: the field %q is empty", raw, name)
			}
		}
	})
}

func TestReadJSON_Fields(t *testing.T) {
	t.Parallel()
	read := func(body string) (fields, error) {
		in, err := readJSON(strings.NewReader(body))
		return in.fields, err
	}
	got, err := read(`{"url":"https://a.example/","pipeline":"text","metadata":{"Camera":"3"}}`)
	if err != nil {
		t.Fatal(err)
	}
	if want := (fields{"pipeline": "text", "meta-camera": "3"}); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for body, want := range map[string]string{
		`{"url":"https://a.example/","metadata":{"Camera":"3","camera":"4"}}`: "meta-camera",
		`{"url":"https://a.example/","metadata":{"Camera":"3","Camera":"4"}}`: "meta-camera",
		`{"url":"https://a.example/","pipeline":""}`:                          "pipeline",
		`{"url":"https://a.example/","pipeline":"text","pipeline":"text"}`:    "pipeline",
		`{"url":"https://a.example/","key":""}`:                               "key",
		`{"url":"https://a.example/","labels":[]}`:                            "labels",
		`{"url":"https://a.example/","labels":["a,b"]}`:                       "labels",
		`{"url":"https://a.example/","top":1,"top":1}`:                        "top",
		`{"url":"https://a.example/","min_score":"0.5"}`:                      "min_score",
		`{"url":"https://a.example/","min_score":""}`:                         "min_score",
		`{"url":"https://a.example/","top":[3]}`:                              "top",
		`{"url":"https://a.example/","labels":"a"}`:                           "labels",
		`{"url":"https://a.example/","labels":[1]}`:                           "labels",
		`{"url":"https://a.example/","pipeline":1}`:                           "pipeline",
		`{"url":"https://a.example/","metadata":{"A":1}}`:                     "meta-a",
	} {
		_, err := read(body)
		checkProblem(t, body, err, v1.InvalidParameter, want)
	}
	for body, want := range map[string]string{
		`{"url":1}`: "url",
		`{"url":"https://a.example/","metadata":[]}`: "metadata",
	} {
		_, err := read(body)
		checkProblem(t, body, err, v1.InvalidBody, want)
	}
	got, err = read(`{"url":"https://a.example/","image":null,"pipeline":null,"key":null,"metadata":{"a":null,"b":""}}`)
	if err != nil {
		t.Fatalf("with null: %v", err)
	}
	if want := (fields{"meta-b": ""}); !maps.Equal(got, want) {
		t.Errorf("with null: got %v, want %v", got, want)
	}
}

// TestReadJSON_Filters checks that numbers keep their text, for the same rules as in the query.
func TestReadJSON_Filters(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]fields{
		`"min_score":0.5,"labels":["a","b c"],"top":3`:  {"min_score": "0.5", "labels": "a,b c", "top": "3"},
		`"min_score":1e400,"labels":["a",""],"top":3.0`: {"min_score": "1e400", "labels": "a,", "top": "3.0"},
		`"min_score":null,"labels":null,"top":null`:     {},
	} {
		in, err := readJSON(strings.NewReader(`{"url":"https://a.example/",` + body + `}`))
		if err != nil {
			t.Errorf("%s: %v", body, err)
			continue
		}
		if !maps.Equal(in.fields, want) {
			t.Errorf("%s: the fields are %v, want %v", body, in.fields, want)
		}
	}
}

// TestBodyFields_MatchTheContract checks the names and their order, after those of the image.
func TestBodyFields_MatchTheContract(t *testing.T) {
	t.Parallel()
	names := func(of reflect.Type) (all []string) {
		for _, field := range reflect.VisibleFields(of) {
			if !field.Anonymous {
				name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
				all = append(all, name)
			}
		}
		return all
	}
	got := append([]string{"image", "url"}, names(reflect.TypeFor[bodyFields]())...)
	if want := names(reflect.TypeFor[v1.ImageRequest]()); !slices.Equal(got, want) {
		t.Errorf("the fields are %q, want %q", got, want)
	}
}

// TestReadSources_Metadata checks that the names of the metadata of an image are in lower case, and unique.
func TestReadSources_Metadata(t *testing.T) {
	t.Parallel()
	h := &reportHandler{bodies: newTestBodies(largeMemory)}
	read := func(metadata string) ([]v1.ReportSource, error) {
		body := `{"images":[{"url":"https://a.example/","metadata":` + metadata + `}]}`
		sources, _, err := h.readSources(httptest.NewRecorder(),
			httptest.NewRequest(http.MethodPost, "/v1/reports", strings.NewReader(body)))
		return sources, err
	}
	sources, err := read(`{"Camera":"left","wagon":"1"}`)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"camera": "left", "wagon": "1"}
	if got := sources[0].Metadata; !maps.Equal(got, want) {
		t.Errorf("the metadata is %v, want %v", got, want)
	}
	_, err = read(`{"A":"1","a":"2"}`)
	checkProblem(t, "a name given twice", err, v1.InvalidBody, "images.0.metadata.a")
}
