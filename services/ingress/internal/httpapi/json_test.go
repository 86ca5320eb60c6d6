package httpapi

import (
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
