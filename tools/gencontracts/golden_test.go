package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// golden is a message that an earlier version of a module has written.
type golden struct {
	file string
	data []byte
	// schema is the name of the schema, and of the type in [messages].
	schema string
}

func goldenMessages(t *testing.T, module string) []golden {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, module, "testdata/v1/*.json"))
	if err != nil {
		t.Fatal(err)
	}
	types := messages()[module]
	if len(files) < len(types) {
		t.Fatalf("module %s has %d golden messages of %d types", module, len(files), len(types))
	}
	var all []golden
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		// The name is that of a type, or of a type and a variant, such as result-empty.
		name := strings.TrimSuffix(filepath.Base(f), ".json")
		if _, ok := types[name]; !ok {
			name = name[:max(strings.LastIndex(name, "-"), 0)]
		}
		if _, ok := types[name]; !ok {
			t.Fatalf("%s has no type", f)
		}
		all = append(all, golden{file: f, data: data, schema: name})
	}
	return all
}

// TestGolden_NothingIsLost decodes and encodes the messages of earlier versions: no field
// is lost, renamed or of another type.
func TestGolden_NothingIsLost(t *testing.T) {
	for module, types := range messages() {
		for _, g := range goldenMessages(t, module) {
			v := reflect.New(reflect.TypeOf(types[g.schema])).Interface()
			d := json.NewDecoder(bytes.NewReader(g.data))
			d.DisallowUnknownFields()
			if err := d.Decode(v); err != nil {
				t.Errorf("%s: %v", g.file, err)
				continue
			}
			again, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := decode(t, again), decode(t, g.data); !reflect.DeepEqual(got, want) {
				t.Errorf("%s: encoded again it is\n%s", g.file, again)
			}
		}
	}
}

func decode(t *testing.T, data []byte) (v any) {
	t.Helper()
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// TestGolden_FollowsItsSchema validates each message with its schema.
func TestGolden_FollowsItsSchema(t *testing.T) {
	for module := range messages() {
		for _, g := range goldenMessages(t, module) {
			schema, err := jsonschema.NewCompiler().Compile(filepath.Join(root, module, "schema/v1", g.schema+".json"))
			if err != nil {
				t.Fatal(err)
			}
			v, err := jsonschema.UnmarshalJSON(bytes.NewReader(g.data))
			if err != nil {
				t.Fatal(err)
			}
			if err := schema.Validate(v); err != nil {
				t.Errorf("%s: %v", g.file, err)
			}
			m, ok := v.(map[string]any)
			if !ok {
				t.Fatalf("%s is not an object", g.file)
			}
			for k := range m { // a field with a wrong type
				m[k] = []any{struct{}{}}
				break
			}
			if schema.Validate(m) == nil {
				t.Errorf("%s: its schema allows a field with a wrong type", g.file)
			}
		}
	}
}

// TestGolden_IsNotEdited: golden messages are only added, with their checksums.
func TestGolden_IsNotEdited(t *testing.T) {
	for module := range messages() {
		f, err := os.Open(filepath.Join(root, module, "testdata/v1/SHA256SUMS"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		sums := map[string]string{}
		for s := bufio.NewScanner(f); s.Scan(); {
			sum, name, _ := strings.Cut(s.Text(), "  ")
			sums[name] = sum
		}
		for _, g := range goldenMessages(t, module) {
			sum := sha256.Sum256(g.data)
			if got := hex.EncodeToString(sum[:]); got != sums[filepath.Base(g.file)] {
				t.Errorf("%s was edited, or its sum %s is not in SHA256SUMS", g.file, got)
			}
			delete(sums, filepath.Base(g.file))
		}
		for name := range sums {
			t.Errorf("golden message %s of %s is missing", name, module)
		}
	}
}
