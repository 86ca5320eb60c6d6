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

// operations returns every operation by its ID.
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

// TestOpenAPI_IsValid also holds the examples against their schemas.
func TestOpenAPI_IsValid(t *testing.T) {
	t.Parallel()
	if err := loadOpenAPI(t).Validate(t.Context(), openapi3.EnableExamplesValidation()); err != nil {
		t.Error(err)
	}
}

// TestOpenAPI_HasExamples: whatever is JSON, or an event stream, is shown.
func TestOpenAPI_HasExamples(t *testing.T) {
	t.Parallel()
	for id, o := range operations(loadOpenAPI(t)) {
		contents := map[string]openapi3.Content{}
		if o.RequestBody != nil {
			contents["its request"] = o.RequestBody.Value.Content
		}
		for status, r := range o.Responses.Map() {
			contents["its response "+status] = r.Value.Content
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

// TestOpenAPI_EventsFollowTheirSchemas holds the events of the examples against what the
// operations say of each.
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
				t.Errorf("%s says nothing of the event %s", id, name)
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

// TestOpenAPI_EveryCodeIsListed: a problem belongs to an operation, unless it is that of
// a method, or of a session.
func TestOpenAPI_EveryCodeIsListed(t *testing.T) {
	t.Parallel()
	elsewhere := []v1.Code{v1.MethodNotAllowed, v1.Idle, v1.FrameOutOfOrder}
	var listed []v1.Code
	for _, o := range operations(loadOpenAPI(t)) {
		codes, _ := o.Extensions["x-problem-codes"].([]any)
		for _, c := range codes {
			code, _ := c.(string)
			listed = append(listed, v1.Code(code))
		}
	}
	for _, c := range v1.Codes() {
		if slices.Contains(listed, c) == slices.Contains(elsewhere, c) {
			t.Errorf("%s is listed by an operation: %v", c, slices.Contains(listed, c))
		}
	}
}

// TestOpenAPI_IsDescribed: nothing has to be guessed from its name.
func TestOpenAPI_IsDescribed(t *testing.T) {
	t.Parallel()
	doc := loadOpenAPI(t)
	for id, o := range operations(doc) {
		switch {
		case o.Summary == "":
			t.Errorf(`operation %s has no summary, or no description: o.Summary = %v, want != ""`, id, o.Summary)
		case o.Description == "":
			t.Errorf(`operation %s has no summary, or no description: o.Description = %v, want != ""`,
				id, o.Description)
		}
		switch {
		case len(o.Tags) != 1:
			t.Errorf("operation %s has the tags %v, want one that is described: len(o.Tags) = %v, want 1",
				id, o.Tags, len(o.Tags))
		case doc.Tags.Get(o.Tags[0]) == nil:
			t.Errorf("operation %s has the tags %v, want one that is described: doc.Tags.Get(o.Tags[0]) = %v, want != nil",
				id, o.Tags, doc.Tags.Get(o.Tags[0]))
		case doc.Tags.Get(o.Tags[0]).Description == "":
			t.Errorf(`operation %s has the tags %v, want one that is described: doc.Tags.Get(o.Tags[0]).Description = %v, want != ""`,
				id, o.Tags, doc.Tags.Get(o.Tags[0]).Description)
		}
		for _, p := range o.Parameters {
			switch {
			case p.Value.Description == "":
				t.Errorf(`parameter %s of %s has no description, or no example: p.Value.Description = %v, want != ""`,
					p.Value.Name, id, p.Value.Description)
			case p.Value.Example == nil:
				t.Errorf("parameter %s of %s has no description, or no example: p.Value.Example = %v, want != nil",
					p.Value.Name, id, p.Value.Example)
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
