// Command gencontracts makes what contracts says to readers who do not write
// Go: a JSON Schema for each message from its Go type and comments, and the
// OpenAPI and AsyncAPI documents with those schemas in them.
//
//go:generate go run . ../../contracts
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/invopop/jsonschema"
	"go.yaml.in/yaml/v3"

	"github.com/sightmesh/sightmesh/contracts/lane"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

const module = "github.com/sightmesh/sightmesh/contracts"

// messages lists what gets a schema of its own, by file name.
func messages() map[string]any {
	return map[string]any{
		"result": v1.Result{}, "crops": v1.Crops{}, "part": v1.Part{}, "problem": v1.Problem{},
		"worker-status": v1.WorkerStatus{}, "pipelines": v1.Pipelines{},
		"event": v1.Event{}, "cancellation": v1.Cancellation{}, "callback": v1.Callback{},
		"callback-body": v1.CallbackBody{}, "manifest": v1.Manifest{}, "fetch": v1.Fetch{}, "report": v1.Report{},
		"stream-control": v1.StreamControl{}, "stream-answer": v1.StreamAnswer{}, "stream-end": v1.StreamEnd{},
		"lane-start": lane.Start{}, "lane-ready": lane.Ready{}, "lane-failed": lane.Failed{},
		"lane-detect": lane.Detect{}, "lane-detected": lane.Detected{},
		"lane-classify": lane.Classify{}, "lane-classified": lane.Classified{},
	}
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: gencontracts CONTRACTS-FOLDER")
		os.Exit(2)
	}
	files, err := generate(os.Args[1])
	if err == nil {
		err = write(os.Args[1], files)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "gencontracts:", err)
		os.Exit(1)
	}
}

func write(dir string, files map[string][]byte) error {
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			return fmt.Errorf("write: %w", err)
		}
	}
	return nil
}

// generate returns every file by its name below dir.
func generate(dir string) (map[string][]byte, error) {
	r, err := reflector(dir)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	shared := map[string]any{}
	for name, m := range messages() {
		s := r.Reflect(m)
		s.Version = jsonschema.Version
		s.ID = jsonschema.ID("https://github.com/sightmesh/sightmesh/blob/main/contracts/schema/v1/" + name + ".json")
		if files["schema/v1/"+name+".json"], err = encode(s); err != nil {
			return nil, err
		}
		if strings.HasPrefix(name, "lane-") {
			continue
		}
		for title, def := range s.Definitions {
			shared[title] = def
		}
	}
	for _, doc := range []string{"openapi", "asyncapi"} {
		if files[doc+".json"], err = document(filepath.Join(dir, "api", doc+".yaml"), shared); err != nil {
			return nil, err
		}
	}
	return files, nil
}

func reflector(dir string) (*jsonschema.Reflector, error) {
	r := &jsonschema.Reflector{AllowAdditionalProperties: true}
	// The comments are found by the paths of the packages, so that the walk
	// has to start where those begin.
	old, err := os.Getwd()
	if err != nil {
		return nil, fmt.Errorf("read comments: %w", err)
	}
	if err := os.Chdir(dir); err != nil {
		return nil, fmt.Errorf("read comments: %w", err)
	}
	defer os.Chdir(old) //nolint:errcheck // it was there a moment ago
	if err := r.AddGoComments(module, "./", jsonschema.WithFullComment()); err != nil {
		return nil, fmt.Errorf("read comments: %w", err)
	}
	r.LookupComment = func(t reflect.Type, field string) string {
		key := t.PkgPath() + "." + t.Name()
		if field != "" {
			key += "." + field
		}
		return plain(r.CommentMap[key])
	}
	return r, nil
}

// plain makes one line of a Go comment.
func plain(s string) string {
	s = strings.NewReplacer("[", "", "]", "", "*v1.", "", "v1.", "").Replace(s)
	return strings.Join(strings.Fields(s), " ")
}

// document fills the schemas of the messages into a hand-written document.
func document(path string, schemas map[string]any) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read document: %w", err)
	}
	var doc map[string]any
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	components, ok := doc["components"].(map[string]any)
	if !ok {
		return nil, fmt.Errorf("read %s: no components", path)
	}
	own, ok := components["schemas"].(map[string]any)
	if !ok {
		return nil, fmt.Errorf("read %s: no components.schemas", path)
	}
	for name, s := range schemas {
		j, err := json.Marshal(s)
		if err != nil {
			return nil, fmt.Errorf("encode schema %s: %w", name, err)
		}
		var v any
		if err := json.Unmarshal([]byte(strings.ReplaceAll(string(j), "#/$defs/", "#/components/schemas/")), &v); err != nil {
			return nil, fmt.Errorf("encode schema %s: %w", name, err)
		}
		own[name] = v
	}
	return encode(doc)
}

func encode(v any) ([]byte, error) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	return append(b, '\n'), nil
}
