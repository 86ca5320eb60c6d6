package model

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/sightmesh/sightmesh/lane"
)

// fieldNames returns the names of the top-level fields of a model.yaml and of the fields in
// output, such as output.format.
func fieldNames(data []byte) ([]string, error) {
	var fields map[string]any
	if err := yaml.Unmarshal(data, &fields); err != nil {
		return nil, err
	}
	names := slices.Sorted(maps.Keys(fields))
	if output, ok := fields["output"].(map[string]any); ok {
		for _, name := range slices.Sorted(maps.Keys(output)) {
			names = append(names, "output."+name)
		}
	}
	return names, nil
}

// RequireFields returns an error that names each of these fields that model.yaml does not have.
func (m *Model) RequireFields(fields ...string) error {
	var errs []error
	for _, field := range fields {
		if !slices.Contains(m.givenFields, field) {
			errs = append(errs, fmt.Errorf("%s: missing", field))
		}
	}
	if len(errs) > 0 {
		return fmt.Errorf("load model %s: %s: %w", m.Name, filepath.Join(m.Dir, File), errors.Join(errs...))
	}
	return nil
}

// CheckFields returns an error that names each field of model.yaml that is not in used: an
// operator would expect it to have an effect. The fields in output are named output.format
// and so on. The fields that describe the model, such as version, are always accepted.
func (m *Model) CheckFields(used ...string) error {
	kind := m.Kind
	if m.Output.Format != "" {
		kind += " with output.format " + m.Output.Format
	}
	used = append(used, "version", "kind", "sha256", "licence", "source", "output")
	var errs []error
	for _, field := range m.givenFields {
		if !slices.Contains(used, field) {
			errs = append(errs, fmt.Errorf("%s: not used by %s", field, kind))
		}
	}
	return errors.Join(errs...)
}

// DecodeSettings decodes the settings into a struct that contains the defaults, by the
// struct's JSON tags. A field that the struct does not have is an error that names it.
func (m *Model) DecodeSettings(into any) error {
	raw, err := json.Marshal(m.Settings)
	if err == nil {
		err = lane.DecodeSettings(raw, into)
	}
	if err != nil {
		return fmt.Errorf("model %s: %s: %w", m.Name, File, err)
	}
	return nil
}
