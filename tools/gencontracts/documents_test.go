package main

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

func loadOpenAPI(t *testing.T) *openapi3.T {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromFile(filepath.Join(root, "contracts/openapi.json"))
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// operations returns the operations by their IDs.
func operations(doc *openapi3.T) map[string]*openapi3.Operation {
	out := map[string]*openapi3.Operation{}
	for _, path := range doc.Paths.Map() {
		for _, o := range path.Operations() {
			out[o.OperationID] = o
		}
	}
	for _, path := range doc.Webhooks {
		for _, o := range path.Operations() {
			out[o.OperationID] = o
		}
	}
	return out
}

// TestOpenAPI_IsValid validates the document, and the examples with their schemas.
func TestOpenAPI_IsValid(t *testing.T) {
	t.Parallel()
	if err := loadOpenAPI(t).Validate(t.Context(), openapi3.EnableExamplesValidation()); err != nil {
		t.Error(err)
	}
}

// TestOpenAPI_HasExamples: every content but images has an example.
func TestOpenAPI_HasExamples(t *testing.T) {
	t.Parallel()
	for id, o := range operations(loadOpenAPI(t)) {
		contents := map[string]openapi3.Content{}
		if o.RequestBody != nil {
			contents["the request"] = o.RequestBody.Value.Content
		}
		for status, r := range o.Responses.Map() {
			contents["the response "+status] = r.Value.Content
		}
		for where, content := range contents {
			for mediaType, m := range content {
				isImage := strings.HasPrefix(mediaType, "image/") || mediaType == "application/octet-stream"
				if !isImage && m.Example == nil && len(m.Examples) == 0 {
					t.Errorf("%s has no example of %s as %s", id, where, mediaType)
				}
			}
		}
	}
}

// TestOpenAPI_EventsFollowTheirSchemas validates the events of the examples with the schemas
// that the operations name.
func TestOpenAPI_EventsFollowTheirSchemas(t *testing.T) {
	t.Parallel()
	doc := loadOpenAPI(t)
	for _, id := range []string{"imageEvents", "reportEvents"} {
		o := operations(doc)[id]
		schemas, _ := o.Extensions["x-events"].(map[string]any)
		example := o.Responses.Value("200").Value.Content["text/event-stream"].Examples["done"].Value
		stream, _ := example.Value.(string)
		name, events := "", 0
		for line := range strings.Lines(stream) {
			if after, ok := strings.CutPrefix(line, "event: "); ok {
				name = strings.TrimSpace(after)
			}
			data, ok := strings.CutPrefix(line, "data: ")
			if !ok {
				continue
			}
			events++
			ref, _ := schemas[name].(map[string]any)
			to, _ := ref["$ref"].(string)
			schema := doc.Components.Schemas[strings.TrimPrefix(to, "#/components/schemas/")]
			if schema == nil {
				t.Errorf("%s has no schema for the event %s", id, name)
				continue
			}
			var v any
			if err := json.Unmarshal([]byte(data), &v); err != nil {
				t.Fatal(err)
			}
			if err := schema.Value.VisitJSON(v); err != nil {
				t.Errorf("%s: event %s: %v", id, name, err)
			}
		}
		if events < 2 {
			t.Errorf("the example of %s has %d events, want the first and the last at least", id, events)
		}
	}
}

// TestOpenAPI_EveryCodeIsListed: every code is listed by an operation, except those of a
// wrong method and of sessions.
func TestOpenAPI_EveryCodeIsListed(t *testing.T) {
	t.Parallel()
	unlisted := []v1.Code{v1.MethodNotAllowed, v1.Idle, v1.FrameOutOfOrder}
	var listed []v1.Code
	for _, o := range operations(loadOpenAPI(t)) {
		codes, _ := o.Extensions["x-problem-codes"].([]any)
		for _, c := range codes {
			code, _ := c.(string)
			listed = append(listed, v1.Code(code))
		}
	}
	for _, c := range v1.Codes() {
		if slices.Contains(listed, c) == slices.Contains(unlisted, c) {
			t.Errorf("%s is listed by an operation: %v", c, slices.Contains(listed, c))
		}
	}
}

// TestOpenAPI_IsDescribed: operations, parameters, schemas and properties are described.
func TestOpenAPI_IsDescribed(t *testing.T) {
	t.Parallel()
	doc := loadOpenAPI(t)
	for id, o := range operations(doc) {
		if o.Summary == "" {
			t.Errorf("operation %s has no summary", id)
		}
		if o.Description == "" {
			t.Errorf("operation %s has no description", id)
		}
		if len(o.Tags) != 1 {
			t.Errorf("operation %s has the tags %v, want one", id, o.Tags)
		}
		for _, tag := range o.Tags {
			switch described := doc.Tags.Get(tag); {
			case described == nil:
				t.Errorf("tag %s of operation %s is not in the list of tags", tag, id)
			case described.Description == "":
				t.Errorf("tag %s of operation %s has no description", tag, id)
			}
		}
		for _, p := range o.Parameters {
			if p.Value.Description == "" {
				t.Errorf("parameter %s of %s has no description", p.Value.Name, id)
			}
			if p.Value.Example == nil {
				t.Errorf("parameter %s of %s has no example", p.Value.Name, id)
			}
		}
	}
	for name, s := range doc.Components.Schemas {
		if s.Value.Description == "" {
			t.Errorf("schema %s has no description", name)
		}
		for property, p := range s.Value.Properties {
			if p.Value.Description == "" {
				t.Errorf("property %s of schema %s has no description", property, name)
			}
		}
	}
}
