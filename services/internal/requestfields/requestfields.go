// Package requestfields rejects fields and headers that a request cannot have. The rules are the
// same over HTTP and NATS.
package requestfields

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// MetadataHeaders stands for the headers with metadata in a list of known headers.
const MetadataHeaders = v1.HTTPMetadataPrefix + "NAME"

// CheckHeaders returns a problem for a header that begins with Sight- or X-Sight- and is not one
// of known, because the client expects an effect. Names are not case-sensitive. Other headers
// are not of the mesh.
func CheckHeaders(h map[string][]string, known []string) error {
	for _, name := range slices.Sorted(maps.Keys(h)) {
		lower := strings.ToLower(name)
		isOurs := strings.HasPrefix(lower, "sight-") || strings.HasPrefix(lower, "x-sight-")
		isKnown := slices.ContainsFunc(known, func(k string) bool {
			return strings.EqualFold(k, name) || k == MetadataHeaders && IsMetadata(name)
		})
		if isOurs && !isKnown {
			return NewUnknownProblem(name, known)
		}
	}
	return nil
}

// NewUnknownProblem returns the problem of a field or header that is not one of known.
func NewUnknownProblem(name string, known []string) *v1.Problem {
	return v1.NewProblem(v1.UnknownField, "%.60q is not known here; known are %s", name,
		cmp.Or(strings.Join(known, ", "), "none")).WithField(name)
}

// IsMetadata reports whether a header has metadata.
func IsMetadata(name string) bool {
	n := len(v1.HTTPMetadataPrefix)
	return len(name) >= n && strings.EqualFold(name[:n], v1.HTTPMetadataPrefix)
}
