// Command kubeschemas makes the JSON Schemas that kubeconform reads out of the
// OpenAPI document in the module of Kubernetes, so that manifests are checked
// without a network. The schemas are strict: an unknown field is an error.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: kubeschemas SWAGGER-FILE FOLDER")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
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
		switch { // types that the document describes by one of their forms
		case strings.HasSuffix(name, ".intstr.IntOrString"):
			doc.Definitions[name] = definition{"type": []string{"string", "integer"}}
		case strings.HasSuffix(name, ".resource.Quantity"):
			doc.Definitions[name] = definition{"type": []string{"string", "number"}}
		}
	}
	for name, d := range doc.Definitions {
		for _, k := range kinds(d) {
			group, _, _ := strings.Cut(k.Group, ".")
			file := strings.ToLower(k.Kind)
			if group != "" {
				file += "-" + group
			}
			out, err := json.Marshal(map[string]any{"$ref": "#/definitions/" + name, "definitions": doc.Definitions})
			if err != nil {
				return fmt.Errorf("encode schema of %s: %w", k.Kind, err)
			}
			if err := os.WriteFile(filepath.Join(dir, file+"-"+k.Version+".json"), out, 0o644); err != nil {
				return fmt.Errorf("write schema of %s: %w", k.Kind, err)
			}
		}
	}
	return nil
}

type kind struct{ Group, Kind, Version string }

// used are the kinds of the chart; a schema has the whole document in it, so
// that more would be large.
var used = "Deployment StatefulSet Service ServiceAccount ConfigMap Job Ingress PodDisruptionBudget Namespace"

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
