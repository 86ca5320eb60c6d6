package httpapi

import (
	"bytes"
	"slices"
	"testing"

	"github.com/sightmesh/sightmesh/contracts"
)

// TestAPIDocument checks that the document of the API is split at the URL of its first server.
func TestAPIDocument(t *testing.T) {
	t.Parallel()
	d, err := newAPIDocument(contracts.OpenAPI)
	if err != nil {
		t.Fatal(err)
	}
	if got := slices.Concat(d.before, []byte(`"/"`), d.after); !bytes.Equal(got, contracts.OpenAPI) {
		t.Error("the parts and the URL / differ from contracts/openapi.json")
	}
	for _, document := range []string{`{}`, `{"servers":[]}`, `{"servers":[{"description":"/"}]}`, `{"servers":[{"url"`} {
		if _, err := newAPIDocument([]byte(document)); err == nil {
			t.Errorf("%s: no error, want one", document)
		}
	}
}
