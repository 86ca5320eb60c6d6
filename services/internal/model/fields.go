package model

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"go.yaml.in/yaml/v3"
)

// fieldNames returns the names of the fields of a model.yaml, and of those within output.
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

// CheckFields returns an error that names each field of model.yaml that the kind of the
// model does not use: it would be believed to do something. The fields of output are
// named output.format and so on. Every kind has those that say what the model is.
func (m *Model) CheckFields(used ...string) error {
	kind := m.Kind
	if m.Output.Format != "" {
		kind += " of the format " + m.Output.Format
	}
	used = append(used, "version", "kind", "sha256", "licence", "source", "output")
	var errs []error
	for _, field := range m.given {
		if !slices.Contains(used, field) {
			errs = append(errs, fmt.Errorf("%s: given, but %s has none", field, kind))
		}
	}
	return errors.Join(errs...)
}

// SettingsJSON returns the settings as those of a pipeline are handed over.
func (m *Model) SettingsJSON() (json.RawMessage, error) {
	if len(m.Settings) == 0 {
		return nil, nil
	}
	raw, err := json.Marshal(m.Settings)
	if err != nil {
		return nil, fmt.Errorf("settings: %w", err)
	}
	return raw, nil
}
