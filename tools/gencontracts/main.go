// Command gencontracts makes what contracts and lane say to readers who do not
// write Go: a JSON Schema for each message from its Go type and comments, and the
// OpenAPI and AsyncAPI documents with the schemas of contracts in them.
//
//go:generate go run . ../..
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

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane"
)

const repository = "github.com/sightmesh/sightmesh"

// messages lists what gets a schema of its own: for each module, the messages by
// file name.
func messages() map[string]map[string]any {
	return map[string]map[string]any{
		"contracts": {
			"result": v1.Result{}, "crops": v1.Crops{}, "part": v1.Part{}, "problem": v1.Problem{},
			"worker-status": v1.WorkerStatus{}, "pipelines": v1.Pipelines{},
			"event": v1.Event{}, "cancellation": v1.Cancellation{}, "callback": v1.Callback{},
			"callback-body": v1.CallbackBody{}, "manifest": v1.Manifest{}, "fetch": v1.Fetch{}, "report": v1.Report{},
			"stream-control": v1.SessionControl{}, "stream-answer": v1.FrameOutcome{}, "stream-end": v1.SessionEnd{},
			"draw-request": v1.DrawRequest{},
		},
		"lane": {
			"start": lane.Start{}, "ready": lane.Ready{}, "failed": lane.Failed{},
			"detect": lane.Detect{}, "detected": lane.Detected{},
			"classify": lane.Classify{}, "classified": lane.Classified{},
			"draw": lane.Draw{}, "drawn": lane.Drawn{},
		},
	}
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: gencontracts ROOT")
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

func write(root string, files map[string][]byte) error {
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(root, name), data, 0o644); err != nil {
			return fmt.Errorf("write: %w", err)
		}
	}
	return nil
}

// generate returns every file by its name below root, the folder of the
// repository.
func generate(root string) (map[string][]byte, error) {
	r := &jsonschema.Reflector{AllowAdditionalProperties: true}
	r.LookupComment = func(t reflect.Type, field string) string {
		key := t.PkgPath() + "." + t.Name()
		if field != "" {
			key += "." + field
		}
		return plain(r.CommentMap[key])
	}
	for module := range messages() {
		if err := readComments(r, root, module); err != nil {
			return nil, err
		}
	}
	files := map[string][]byte{}
	shared := map[string]any{} // schemas of the OpenAPI and AsyncAPI documents
	for module, types := range messages() {
		for name, m := range types {
			s := r.Reflect(m)
			s.Version = jsonschema.Version
			file := module + "/schema/v1/" + name + ".json"
			s.ID = jsonschema.ID("https://" + repository + "/blob/main/" + file)
			data, err := encode(s)
			if err != nil {
				return nil, err
			}
			files[file] = data
			if module != "contracts" {
				continue
			}
			for title, def := range s.Definitions {
				shared[title] = def
			}
		}
	}
	for _, name := range []string{"openapi", "asyncapi"} {
		data, err := document(filepath.Join(root, "contracts/api", name+".yaml"), shared)
		if err != nil {
			return nil, err
		}
		files["contracts/"+name+".json"] = data
	}
	return files, nil
}

// readComments reads the comments of the types of a module.
func readComments(r *jsonschema.Reflector, root, module string) error {
	// They are found by the paths of the packages, so that the walk has to start
	// where those begin.
	old, err := os.Getwd()
	if err != nil {
		return fmt.Errorf("read comments: %w", err)
	}
	if err := os.Chdir(filepath.Join(root, module)); err != nil {
		return fmt.Errorf("read comments: %w", err)
	}
	defer os.Chdir(old) //nolint:errcheck // it was there a moment ago
	if err := r.AddGoComments(repository+"/"+module, "./", jsonschema.WithFullComment()); err != nil {
		return fmt.Errorf("read comments of %s: %w", module, err)
	}
	return nil
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
