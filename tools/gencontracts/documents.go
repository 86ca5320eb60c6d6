package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// node is an object in a document.
type node = map[string]any

// document reads a document that is written by hand, and adds the schemas of the messages to it. A schema in the
// document is merged with the schema of the message with the same name.
func document(path string, schemas map[string]any) (doc, components node, err error) {
	if err := readYAML(path, &doc); err != nil {
		return nil, nil, err
	}
	components = child(doc, "components")
	own := child(components, "schemas")
	for name, s := range schemas {
		j, err := json.Marshal(s)
		if err != nil {
			return nil, nil, fmt.Errorf("encode schema %s: %w", name, err)
		}
		schema := child(own, name)
		text := strings.ReplaceAll(string(j), defs, "#/components/schemas/")
		if err := json.Unmarshal([]byte(text), &schema); err != nil {
			return nil, nil, fmt.Errorf("encode schema %s: %w", name, err)
		}
	}
	return doc, components, nil
}

// openAPI returns the OpenAPI document: the document written by hand, the schemas to which it refers, its examples, and
// the responses for its problems.
func openAPI(folder string, schemas map[string]any) (node, error) {
	doc, components, err := document(filepath.Join(folder, "openapi.yaml"), schemas)
	if err != nil {
		return nil, err
	}
	examples := child(components, "examples")
	if err := readExamples(filepath.Join(folder, "examples"), examples); err != nil {
		return nil, err
	}
	if err := readProblems(filepath.Join(folder, "problems.yaml"), examples); err != nil {
		return nil, err
	}
	for path := range child(doc, "paths") {
		for method, operation := range child(child(doc, "paths"), path) {
			if o, ok := operation.(node); ok {
				if err := addProblems(o, method == "post"); err != nil {
					return nil, fmt.Errorf("%s %s: %w", method, path, err)
				}
			}
		}
	}
	prune(doc, components)
	return doc, nil
}

// readExamples sets the value of each example that has a file of its name, in JSON or text.
func readExamples(folder string, examples node) error {
	files, err := os.ReadDir(folder)
	if err != nil {
		return fmt.Errorf("read examples: %w", err)
	}
	for _, f := range files {
		data, err := os.ReadFile(filepath.Join(folder, f.Name()))
		if err != nil {
			return fmt.Errorf("read example: %w", err)
		}
		name, isJSON := strings.CutSuffix(f.Name(), ".json")
		name = strings.TrimSuffix(name, ".txt")
		example, ok := examples[name].(node)
		if !ok {
			return fmt.Errorf("example %s is not in components.examples", f.Name())
		}
		var value any = string(data)
		if isJSON {
			if err := json.Unmarshal(data, &value); err != nil {
				return fmt.Errorf("read example %s: %w", f.Name(), err)
			}
		}
		example["value"] = value
	}
	return nil
}

// exampleTrace is the trace ID of the examples of problems.
const exampleTrace = "bcd2049c9ac32c385148ce9bb102c246"

// readProblems adds an example of each problem code.
func readProblems(path string, examples node) error {
	var examplesByCode map[v1.Code]struct {
		Detail, Field, ID string
		Limit             int64
	}
	if err := readYAML(path, &examplesByCode); err != nil {
		return err
	}
	for _, code := range v1.Codes() {
		example, ok := examplesByCode[code]
		if !ok {
			return fmt.Errorf("%s has no problem %s", path, code)
		}
		p := v1.NewProblem(code, "%s", example.Detail).WithField(example.Field).WithLimit(example.Limit)
		p.Job, p.TraceID = example.ID, exampleTrace
		value, err := plainJSON(p)
		if err != nil {
			return err
		}
		examples["problem-"+string(code)] = node{"summary": p.Title, "value": value}
	}
	return nil
}

// addProblems adds a response to an operation for each status of the codes that it lists under x-problem-codes.
// isSubmission says whether the operation can accept a job. Problems of such an operation can have headers with the
// address of the job.
func addProblems(operation node, isSubmission bool) error {
	listed, _ := operation["x-problem-codes"].([]any)
	var codes []any
	for _, c := range listed {
		if several, ok := c.([]any); ok { // a list of codes of another operation
			codes = append(codes, several...)
			continue
		}
		codes = append(codes, c)
	}
	operation["x-problem-codes"] = codes
	responses := maps.Clone(child(operation, "responses")) // other operations may refer to the same object
	for _, code := range codes {
		p := v1.NewProblem(v1.Code(fmt.Sprint(code)), "")
		if string(p.Code) != code {
			return fmt.Errorf("%v is not a problem code", code)
		}
		status := strconv.Itoa(p.Status)
		response, ok := responses[status].(node)
		if !ok {
			response = problemResponse(p.Status, isSubmission)
			responses[status] = response
		}
		description := fmt.Sprintf("%v\n`%s`: %s.", response["description"], code, p.Title)
		response["description"] = strings.TrimPrefix(description, "\n")
		examples := child(child(child(response, "content"), "application/problem+json"), "examples")
		examples[string(p.Code)] = ref("examples", "problem-"+string(p.Code))
	}
	operation["responses"] = responses
	return nil
}

// problemResponse returns the response for problems with a status, without a problem.
func problemResponse(status int, isSubmission bool) node {
	names := []string{"traceparent", "X-Request-Id"}
	if isSubmission {
		names = append(names, "Location", "Content-Location", "Preference-Applied", "Server-Timing")
	}
	if status == 429 || status == 503 {
		names = append(names, "Retry-After")
	}
	headers := node{}
	for _, name := range names {
		headers[name] = ref("headers", name)
	}
	return node{
		"description": "",
		"headers":     headers,
		"content": node{"application/problem+json": node{
			"schema": ref("schemas", "Problem"), "examples": node{},
		}},
	}
}

// asyncAPI returns the AsyncAPI document: the document written by hand, the schemas to which it refers, and the
// examples of its messages. The examples are the golden messages that a message lists under x-golden.
func asyncAPI(folder, golden string, schemas map[string]any) (node, error) {
	doc, components, err := document(filepath.Join(folder, "asyncapi.yaml"), schemas)
	if err != nil {
		return nil, err
	}
	for name, m := range child(components, "messages") {
		message, ok := m.(node)
		if !ok {
			return nil, fmt.Errorf("message %s is not an object", name)
		}
		files, _ := message["x-golden"].([]any)
		delete(message, "x-golden")
		for _, file := range files {
			data, err := os.ReadFile(filepath.Join(golden, fmt.Sprint(file)+".json"))
			if err != nil {
				return nil, fmt.Errorf("read example of message %s: %w", name, err)
			}
			var payload any
			if err := json.Unmarshal(data, &payload); err != nil {
				return nil, fmt.Errorf("read example %s of message %s: %w", file, name, err)
			}
			examples, _ := message["examples"].([]any)
			message["examples"] = append(examples, node{"name": file, "payload": payload})
		}
	}
	prune(doc, components)
	return doc, nil
}

// prune removes the schemas and examples to which nothing refers.
func prune(doc, components node) {
	for _, kind := range []string{"examples", "schemas"} {
		all := child(components, kind)
		delete(components, kind) // references in a component that is removed do not count
		kept := node{}
		for waiting := []any{doc}; len(waiting) > 0; waiting = waiting[1:] {
			switch v := waiting[0].(type) {
			case node:
				waiting = slices.AppendSeq(waiting, maps.Values(v))
			case []any:
				waiting = append(waiting, v...)
			case string:
				name, ok := strings.CutPrefix(v, "#/components/"+kind+"/")
				if _, seen := kept[name]; ok && !seen && all[name] != nil {
					kept[name] = all[name]
					waiting = append(waiting, all[name])
				}
			}
		}
		if len(kept) > 0 {
			components[kind] = kept
		}
	}
}

// child returns the object under a key. It creates the object if there is none.
func child(n node, key string) node {
	c, ok := n[key].(node)
	if !ok {
		c = node{}
		n[key] = c
	}
	return c
}

// ref returns a reference to a component.
func ref(kind, name string) node { return node{"$ref": "#/components/" + kind + "/" + name} }

func readYAML(path string, into any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read document: %w", err)
	}
	if err := yaml.Unmarshal(data, into); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}

// plainJSON encodes v as JSON and decodes it into plain values.
func plainJSON(v any) (out any, err error) {
	data, err := json.Marshal(v)
	return out, errors.Join(err, json.Unmarshal(data, &out))
}
