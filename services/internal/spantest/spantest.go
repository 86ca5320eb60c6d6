// Package spantest helps tests to check spans.
package spantest

import "go.opentelemetry.io/otel/attribute"

// Attributes returns the values of attributes, as text, by key.
func Attributes(all []attribute.KeyValue) map[attribute.Key]string {
	byKey := make(map[attribute.Key]string, len(all))
	for _, a := range all {
		byKey[a.Key] = a.Value.String()
	}
	return byKey
}
