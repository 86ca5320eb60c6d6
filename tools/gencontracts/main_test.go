package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/sightmesh/sightmesh/contracts/streams"
)

const dir = "../../contracts"

// TestWhatIsGeneratedIsUpToDate fails when a type was changed and `make gen`
// not run.
func TestWhatIsGeneratedIsUpToDate(t *testing.T) {
	files, err := generate(dir)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("contracts/%s is not what make gen makes (%v)", name, err)
		}
	}
}

// TestGoldenMessagesFollowTheirSchemas holds what is written against what is
// said of it.
func TestGoldenMessagesFollowTheirSchemas(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(dir, "testdata/v1/*.json"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".json")
		if _, ok := messages()[name]; !ok {
			name = name[:strings.LastIndex(name, "-")]
		}
		schema, err := jsonschema.NewCompiler().Compile(filepath.Join(dir, "schema/v1", name+".json"))
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(v); err != nil {
			t.Errorf("%s: %v", f, err)
		}
		if m, ok := v.(map[string]any); ok { // and the schema is no blank cheque
			for k := range m {
				m[k] = []any{struct{}{}}
				break
			}
			if schema.Validate(m) == nil {
				t.Errorf("%s: its schema allows anything", f)
			}
		}
	}
}

func TestOpenAPIIsValid(t *testing.T) {
	doc, err := openapi3.NewLoader().LoadFromFile(filepath.Join(dir, "openapi.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestAsyncAPI checks that every reference leads somewhere and that the
// addresses are those of the streams.
func TestAsyncAPI(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(dir, "asyncapi.json"))
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := json.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	for _, ref := range regexp.MustCompile(`"\$ref": "#/([^"]+)"`).FindAllStringSubmatch(string(data), -1) {
		at := any(doc)
		for key := range strings.SplitSeq(ref[1], "/") {
			m, _ := at.(map[string]any)
			if at = m[key]; at == nil {
				t.Errorf("#/%s leads nowhere", ref[1])
				break
			}
		}
	}
	channels, _ := doc["channels"].(map[string]any)
	for _, s := range streams.Streams(streams.Config{}) {
		family := strings.TrimSuffix(s.Subjects[0], ">")
		c, _ := channels[strings.ToLower(s.Name)].(map[string]any)
		address, _ := c["address"].(string)
		if !strings.HasPrefix(address, family) {
			t.Errorf("stream %s has %s, its channel %q", s.Name, s.Subjects[0], address)
		}
	}
}
