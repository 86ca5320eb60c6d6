// Command skaffoldcheck checks skaffold.yaml against the schema of Skaffold.
package main

import (
	"fmt"
	"os"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"sigs.k8s.io/yaml"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: skaffoldcheck SCHEMA-FILE SKAFFOLD-FILE")
		os.Exit(2)
	}
	if err := check(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "skaffoldcheck:", err)
		os.Exit(1)
	}
}

func check(schemaFile, file string) error {
	schema, err := jsonschema.NewCompiler().Compile(schemaFile)
	if err != nil {
		return fmt.Errorf("read schema: %w", err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	var v any
	if err := yaml.Unmarshal(data, &v); err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	return schema.Validate(v)
}
