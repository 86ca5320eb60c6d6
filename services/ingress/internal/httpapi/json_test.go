package httpapi

import (
	"errors"
	"strings"
	"testing"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/ingress/internal/intake"
)

func TestDecodeJSON_NamesTheField(t *testing.T) {
	t.Parallel()
	for body, field := range map[string]string{
		`{"images":[]}`: "",
		`{"images":[{"url":"a","metadata":{"k":"v"}}]}`: "",
		`{"images":[{"url":"a"},{"url":1}]}`:            "images.1.url",
		`{"images":{"url":"a"}}`:                        "images",
		`{"images":[{"url":"a","url":"b"}]}`:            "images.0.url",
		`{"images":[],"images":[]}`:                     "images",
		`{"images":[{"metadata":{"a":1}}]}`:             "images.0.metadata.a",
		`{"images":[`:                                   "images",
		`{"images":[{"url":"a"}],"pipeline":"p"}`:       "",
		`[]`:               "the body",
		`no json`:          "the body",
		`{"images":[]} {}`: "the body",
		`{"images":[{"url":"` + strings.Repeat("\xff", 3) + `"}]}`: "images.0.url",
	} {
		var in v1.ReportRequest
		err := decodeJSON(strings.NewReader(body), &in)
		if field != "" {
			checkProblem(t, body, err, v1.InvalidBody, field)
		} else if err != nil {
			t.Errorf("%s: %v", body, err)
		}
	}
	var in v1.ReportRequest
	err := decodeJSON(strings.NewReader(`{"pictures":[]}`), &in)
	checkProblem(t, "an unknown name", err, v1.UnknownField, "pictures")
}

// TestDecodeJSON_CutsNames also covers the names of metadata.
func TestDecodeJSON_CutsNames(t *testing.T) {
	t.Parallel()
	name := strings.Repeat("n", 100_000)
	p := newTestParameters(t, false)
	for reason, body := range map[string]string{
		"is not a field":         `{"N":1}`,
		"is given twice":         `{"metadata":{"N":"1","N":"2"}}`,
		"is a JSON number":       `{"metadata":{"N":1}}`,
		"the body is not JSON":   `{"metadata":{"N":!}}`,
		"has a name of 100000":   `{"url":"https://a.example/","metadata":{"N":"1"}}`,
		"is given twice: in the": `{"url":"https://a.example/","metadata":{"N":"2"}}`,
	} {
		in, err := readJSON(strings.NewReader(strings.ReplaceAll(body, "N", name)))
		if err == nil {
			s := submission{Request: intake.Request{Metadata: map[string]string{}}, fields: fields{}, places: fields{}}
			if reason == "is given twice: in the" {
				s.places[metaPrefix+name] = "the query"
			}
			err = p.addFields(&s, in.fields, "the body")
		}
		var problem *v1.Problem
		if !errors.As(err, &problem) {
			t.Errorf("%s: got %.100v, want a problem", reason, err)
			continue
		}
		if n := len(problem.Field); n != 60 {
			t.Errorf("%s: the field has %d bytes, want 60", reason, n)
		}
		if !strings.Contains(problem.Detail, reason) {
			t.Errorf("the detail is %.200q, want %q in it", problem.Detail, reason)
		}
		if n := len(problem.Detail); n > 200 {
			t.Errorf("%s: the detail has %d bytes, want 200 at most", reason, n)
		}
	}
}
