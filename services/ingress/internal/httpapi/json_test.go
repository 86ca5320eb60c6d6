package httpapi

import (
	"errors"
	"strings"
	"testing"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
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
		var p *v1.Problem
		switch {
		case field == "":
			if err != nil {
				t.Errorf("%s: %v", body, err)
			}
		case !errors.As(err, &p) || p.Code != v1.InvalidBody || p.Field != field:
			t.Errorf("%s: %v (field %q), want invalid-body of %s", body, err, problemField(err), field)
		}
	}
	var in v1.ReportRequest
	err := decodeJSON(strings.NewReader(`{"pictures":[]}`), &in)
	if code, field := problemCodeAndField(err); code != v1.UnknownField || field != "pictures" {
		t.Errorf("an unknown name: %v, want %s of pictures", err, v1.UnknownField)
	}
}

func problemField(err error) string {
	var p *v1.Problem
	if errors.As(err, &p) {
		return p.Field
	}
	return ""
}
