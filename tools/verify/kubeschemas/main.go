// Command kubeschemas writes the JSON Schemas that kubeconform reads, so that it checks
// manifests without a network. The sources are the OpenAPI document in the module of
// Kubernetes, and files with CustomResourceDefinitions in the modules of add-ons. The
// schemas are strict: an unknown field is an error.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"
)

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: kubeschemas FOLDER SWAGGER-FILE [CRD-FILE...]")
		os.Exit(2)
	}
	err := run(os.Args[2], os.Args[1])
	for _, file := range os.Args[3:] {
		err = errors.Join(err, runCRD(file, os.Args[1]))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "kubeschemas:", err)
		os.Exit(1)
	}
}

type definition map[string]any

func run(swagger, dir string) error {
	data, err := os.ReadFile(swagger)
	if err != nil {
		return fmt.Errorf("read OpenAPI of Kubernetes: %w", err)
	}
	var doc struct {
		Definitions map[string]definition `json:"definitions"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return fmt.Errorf("read OpenAPI of Kubernetes: %w", err)
	}
	for name, d := range doc.Definitions {
		if d["properties"] != nil {
			d["additionalProperties"] = false
		}
		switch { // types for which the document describes only one of their forms
		case strings.HasSuffix(name, ".intstr.IntOrString"):
			doc.Definitions[name] = definition{"type": []string{"string", "integer"}}
		case strings.HasSuffix(name, ".resource.Quantity"):
			doc.Definitions[name] = definition{"type": []string{"string", "number"}}
		}
	}
	for name, d := range doc.Definitions {
		for _, k := range kinds(d) {
			schema := map[string]any{"$ref": "#/definitions/" + name, "definitions": doc.Definitions}
			if err := write(dir, k, schema); err != nil {
				return err
			}
		}
	}
	return nil
}

// write writes the schema of a kind to a file with the name that kubeconform expects.
func write(dir string, k kind, schema any) error {
	group, _, _ := strings.Cut(k.Group, ".")
	file := strings.ToLower(k.Kind)
	if group != "" {
		file += "-" + group
	}
	out, err := json.Marshal(schema)
	if err != nil {
		return fmt.Errorf("encode schema of %s: %w", k.Kind, err)
	}
	if err := os.WriteFile(filepath.Join(dir, file+"-"+k.Version+".json"), out, 0o644); err != nil {
		return fmt.Errorf("write schema of %s: %w", k.Kind, err)
	}
	return nil
}

// runCRD writes the schemas of a CustomResourceDefinition.
func runCRD(file, dir string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read CustomResourceDefinition: %w", err)
	}
	var crd struct {
		Spec struct {
			Group string
			Names struct{ Kind string }

			Versions []struct {
				Name   string
				Schema struct{ OpenAPIV3Schema map[string]any }
			}
		}
	}
	if err := yaml.Unmarshal(data, &crd); err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	for _, v := range crd.Spec.Versions {
		schema := v.Schema.OpenAPIV3Schema
		if schema == nil {
			return fmt.Errorf("read %s: version %q has no schema", file, v.Name)
		}
		forbidUnknown(schema)
		if properties, ok := schema["properties"].(map[string]any); ok {
			properties["metadata"] = map[string]any{"type": "object"} // the API server checks its fields
		}
		if err := write(dir, kind{crd.Spec.Group, crd.Spec.Names.Kind, v.Name}, schema); err != nil {
			return err
		}
	}
	return nil
}

// forbidUnknown makes unknown fields errors, at every depth of a schema.
func forbidUnknown(v any) {
	switch t := v.(type) {
	case []any:
		for _, x := range t {
			forbidUnknown(x)
		}
	case map[string]any:
		if t["x-kubernetes-int-or-string"] == true {
			delete(t, "type")
			delete(t, "anyOf")
			t["type"] = []string{"string", "integer"}
		}
		_, hasRest := t["additionalProperties"]
		_, hasFields := t["properties"].(map[string]any)
		if t["type"] == "object" && hasFields && !hasRest && t["x-kubernetes-preserve-unknown-fields"] != true {
			t["additionalProperties"] = false
		}
		for _, x := range t {
			forbidUnknown(x)
		}
	}
}

type kind struct{ Group, Kind, Version string }

// used has the kinds of the chart. Each schema contains the whole document, so that
// schemas of all kinds would be large.
var used = "Deployment StatefulSet Service ServiceAccount ConfigMap Job Pod Ingress NetworkPolicy " +
	"PodDisruptionBudget HorizontalPodAutoscaler Namespace"

func kinds(d definition) []kind {
	raw, err := json.Marshal(d["x-kubernetes-group-version-kind"])
	if err != nil {
		return nil
	}
	var all, out []kind
	if json.Unmarshal(raw, &all) != nil {
		return nil
	}
	for _, k := range all {
		if strings.Contains(" "+used+" ", " "+k.Kind+" ") {
			out = append(out, k)
		}
	}
	return out
}
