// Package spantest helps tests to look at spans.
package spantest

import "go.opentelemetry.io/otel/attribute"

// Attributes returns attributes by key, their values as text.
func Attributes(all []attribute.KeyValue) map[attribute.Key]string {
	byKey := make(map[attribute.Key]string, len(all))
	for _, a := range all {
		byKey[a.Key] = a.Value.String()
	}
	return byKey
}
