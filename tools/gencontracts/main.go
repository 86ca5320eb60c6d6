// Command gencontracts generates the descriptions of the messages of the modules contracts and lane for programs in
// other languages: a JSON Schema for each message, from its Go type and comments, and the OpenAPI and AsyncAPI
// documents with the schemas of contracts.
//
//go:generate go run . ../..
package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/invopop/jsonschema"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane"
)

const repository = "github.com/sightmesh/sightmesh"

// messages returns the messages with a schema, by module and file name.
func messages() map[string]map[string]any {
	return map[string]map[string]any{
		"contracts": {
			"result": v1.Result{}, "crops": v1.Crops{}, "part": v1.Part{}, "problem": v1.Problem{},
			"worker-status": v1.WorkerStatus{}, "results-status": v1.ResultsStatus{}, "pipelines": v1.Pipelines{},
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

// generate returns the content of every generated file. root is the folder of the
// repository; names are relative to it.
func generate(root string) (map[string][]byte, error) {
	r := &jsonschema.Reflector{AllowAdditionalProperties: true, Mapper: enumRef}
	r.LookupComment = func(t reflect.Type, field string) string {
		key := t.PkgPath() + "." + t.Name()
		if field == "" {
			return toSentence(r.CommentMap[key])
		}
		comment := r.CommentMap[key+"."+field]
		f, _ := t.FieldByName(field)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if rest, ok := strings.CutPrefix(comment, field+" "); ok && !strings.EqualFold(name, field) {
			comment = "`" + name + "` " + rest // the name in JSON
		}
		return toSentence(comment)
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
			defineEnums(s)
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
	folder := filepath.Join(root, "contracts/api")
	http, err := openAPI(folder, shared)
	if err != nil {
		return nil, err
	}
	nats, err := asyncAPI(folder, filepath.Join(root, "contracts/testdata/v1"), shared)
	if err != nil {
		return nil, err
	}
	for name, doc := range map[string]node{"openapi": http, "asyncapi": nats} {
		if files["contracts/"+name+".json"], err = encode(doc); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// enums returns the schemas of the types with a fixed set of values, by type name.
func enums() map[string]*jsonschema.Schema {
	out := map[string]*jsonschema.Schema{}
	add := func(name, description string, values ...any) {
		out[name] = &jsonschema.Schema{Type: "string", Enum: values, Description: description}
	}
	add("Status", "State of a job or report. The states done and failed are final.",
		v1.Queued, v1.Running, v1.Done, v1.Failed)
	add("FrameStatus", "Outcome of a frame of a session. A dropped frame was replaced by a newer one.",
		v1.Done, v1.Failed, v1.Dropped)
	add("CallbackState", "State of a webhook. The states delivered and failed are final.",
		v1.WebhookPending, v1.WebhookDelivered, v1.WebhookFailed)
	add("EventName", "Name of an event of a job or report.",
		v1.EventAccepted, v1.EventDetecting, v1.EventClassifying, v1.EventImage, v1.EventDone, v1.EventFailed)
	add("PipelineState", "State of a pipeline in the mesh. ready: a worker of each stage is ready. "+
		"cold: a stage has no worker, and images wait for one. starting: the workers of a stage load their models. "+
		"unserved: a stage has no worker, and images are rejected. failed: the workers of a stage cannot serve it.",
		v1.PipelineReady, v1.PipelineCold, v1.PipelineStarting, v1.PipelineUnserved, v1.PipelineFailed)
	codes := v1.Codes()
	slices.Sort(codes)
	add("Code", "Stable name of a kind of problem. Later versions can have more codes.")
	for _, c := range codes {
		out["Code"].Enum = append(out["Code"].Enum, c)
	}
	return out
}

const defs = "#/$defs/"

// enumRef returns a reference to the definition of a type of [enums], or nil for another type.
func enumRef(t reflect.Type) *jsonschema.Schema {
	if _, ok := enums()[t.Name()]; !ok || t.PkgPath() != reflect.TypeFor[v1.Result]().PkgPath() {
		return nil
	}
	return &jsonschema.Schema{Ref: defs + t.Name()}
}

// defineEnums adds the definitions of the [enums] to which s refers.
func defineEnums(s *jsonschema.Schema) {
	all := enums()
	for _, name := range slices.Sorted(maps.Keys(s.Definitions)) {
		for p := s.Definitions[name].Properties.Oldest(); p != nil; p = p.Next() {
			if name == "FrameOutcome" && p.Key == "status" {
				p.Value.Ref = defs + "FrameStatus"
			}
			if enum := strings.TrimPrefix(p.Value.Ref, defs); all[enum] != nil {
				s.Definitions[enum] = all[enum]
			}
		}
	}
}

// readComments reads the comments on the types of a module.
func readComments(r *jsonschema.Reflector, root, module string) error {
	// The reflector derives the paths of packages from those of files, so the walk must
	// start in the folder of the module.
	old, err := os.Getwd()
	if err != nil {
		return fmt.Errorf("read comments: %w", err)
	}
	if err := os.Chdir(filepath.Join(root, module)); err != nil {
		return fmt.Errorf("read comments: %w", err)
	}
	defer os.Chdir(old) //nolint:errcheck // the folder exists
	if err := r.AddGoComments(repository+"/"+module, "./", jsonschema.WithFullComment()); err != nil {
		return fmt.Errorf("read comments of %s: %w", module, err)
	}
	return nil
}

// toSentence returns a Go comment as sentences on one line.
func toSentence(s string) string {
	s = strings.NewReplacer("[", "", "]", "", "*v1.", "", "v1.", "").Replace(s)
	s = strings.Join(strings.Fields(s), " ")
	if s == "" {
		return ""
	}
	return strings.ToUpper(s[:1]) + strings.TrimSuffix(s[1:], ".") + "."
}

func encode(v any) ([]byte, error) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	return append(b, '\n'), nil
}
