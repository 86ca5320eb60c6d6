package natsapi

import (
	"maps"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/ingress/internal/intake"
	"github.com/sightmesh/sightmesh/services/ingress/internal/submission"
)

const (
	headerPrefer  = "Prefer"
	headerApplied = "Preference-Applied"
	anyMetadata   = v1.HTTPMetadataPrefix + "NAME"
)

// requestHeaders lists what a request may say besides its image and its trace. The names
// are those of HTTP; what is a parameter there has a header with the prefix of the mesh.
var requestHeaders = []string{
	v1.HeaderPriority, v1.HeaderCallback, v1.HeaderKey, headerPrefer, anyMetadata,
}

// readHeaders adds what the headers of a request say of its image to r. Their names may
// be in any case, as those of HTTP: a client library may change it.
func (a *Analyze) readHeaders(h nats.Header, r *intake.Request) (p submission.Preference, err error) {
	if err := rejectUnknown(h); err != nil {
		return p, err
	}
	priority, err := single(h, v1.HeaderPriority, v1.InvalidParameter, "priority")
	if err != nil {
		return p, err
	}
	if priority != "" {
		if r.Priority, err = submission.ParsePriority(priority); err != nil {
			return p, err
		}
	}
	if r.Callback, err = single(h, v1.HeaderCallback, v1.InvalidParameter, "callback"); err != nil {
		return p, err
	}
	if r.Callback != "" {
		if err := submission.CheckCallback(a.Intake, r.Callback); err != nil {
			return p, err
		}
	}
	if r.Key, err = single(h, v1.HeaderKey, v1.InvalidHeader, v1.HeaderKey); err != nil {
		return p, err
	}
	if err := submission.CheckKey(r.Key); err != nil {
		return p, err
	}
	if r.Metadata, err = submission.ParseMetadata(h); err != nil {
		return p, err
	}
	return submission.ParsePrefer(valuesOf(h, headerPrefer), a.Wait, a.MaxWait)
}

// rejectUnknown returns a problem for a header of the mesh that no request has: a client
// that sends it believes that it does something.
func rejectUnknown(h nats.Header) error {
	for _, name := range slices.Sorted(maps.Keys(h)) {
		lower := strings.ToLower(name)
		isOurs := strings.HasPrefix(lower, "sight-") || strings.HasPrefix(lower, "x-sight-")
		isKnown := submission.IsMetadata(name) ||
			slices.ContainsFunc(requestHeaders, func(known string) bool { return strings.EqualFold(known, name) })
		if isOurs && !isKnown {
			return v1.NewProblem(v1.InvalidHeader, "%.60s is not known here; known are %s", name,
				strings.Join(requestHeaders, ", ")).WithField(name)
		}
	}
	return nil
}

// single returns the value of a header that may be given once, or "". A problem has the
// code and field that the same has over HTTP.
func single(h nats.Header, name string, code v1.Code, field string) (string, error) {
	switch values := valuesOf(h, name); {
	case len(values) > 1:
		return "", v1.NewProblem(code, "%s is given %d times", name, len(values)).WithField(field)
	case len(values) == 0:
		return "", nil
	case values[0] == "" && code == v1.InvalidParameter:
		return "", v1.NewProblem(code, "%s is empty", name).WithField(field)
	default:
		return values[0], nil
	}
}

// valuesOf returns the values of a header whose name is in any case.
func valuesOf(h nats.Header, name string) (values []string) {
	for _, given := range slices.Sorted(maps.Keys(h)) {
		if strings.EqualFold(given, name) {
			values = append(values, h[given]...)
		}
	}
	return values
}
