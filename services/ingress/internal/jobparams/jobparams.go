// Package jobparams parses the parameters and headers of requests with images. The rules
// are the same over HTTP and NATS. Errors are problems that name the parameter or header,
// and the limit.
package jobparams

import (
	"errors"
	"strings"

	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/ingress/internal/intake"
	"github.com/sightmesh/sightmesh/services/internal/requestfields"
)

// ParsePriority parses a priority.
func ParsePriority(value string) (subject.Priority, error) {
	p := subject.Priority(value)
	if !p.Valid() {
		return "", v1.NewProblem(v1.InvalidParameter, "priority is %.40q, want interactive or bulk", value).
			WithField("priority")
	}
	return p, nil
}

// CheckWebhookURL returns a problem when no webhook would be sent to the URL.
func CheckWebhookURL(i *intake.Intake, raw string) error {
	err := i.CheckWebhookURL(raw)
	switch {
	case errors.Is(err, intake.ErrNoWebhooks):
		return v1.NewProblem(v1.InvalidParameter, "%v", err).WithField("callback")
	case err != nil:
		return intake.FieldProblem(v1.InvalidParameter, "callback", err)
	}
	return nil
}

// ParseKey returns the value of the header Idempotency-Key, or "" when there is none. An
// empty value is a problem, and so is more than one.
func ParseKey(values []string) (string, error) {
	switch {
	case len(values) == 0:
		return "", nil
	case len(values) > 1:
		return "", v1.NewProblem(v1.InvalidHeader, "%s is given %d times", v1.HeaderKey, len(values)).WithField(v1.HeaderKey)
	case values[0] == "":
		return "", v1.NewProblem(v1.InvalidHeader, "%s is empty", v1.HeaderKey).WithField(v1.HeaderKey)
	}
	return values[0], CheckKey(v1.InvalidHeader, v1.HeaderKey, values[0])
}

// CheckKey checks the length of a key in the header or field name. Its problem has the
// given code.
func CheckKey(code v1.Code, name, value string) error {
	if len(value) > intake.MaxKey {
		return v1.NewProblem(code, "%s may have %d bytes", name, intake.MaxKey).WithField(name).WithLimit(intake.MaxKey)
	}
	return nil
}

// ParseMetadata returns the metadata in the headers X-Sight-Meta-*, whose names are not
// case-sensitive. It returns the names in lower case.
func ParseMetadata(h map[string][]string) (map[string]string, error) {
	out := map[string]string{}
	for name, values := range h {
		if !requestfields.IsMetadata(name) {
			continue
		}
		key := strings.ToLower(name[len(v1.HTTPMetadataPrefix):])
		if _, twice := out[key]; twice || len(values) > 1 {
			return nil, v1.NewProblem(v1.InvalidHeader, "%.60s is given %d times", name, max(len(values), 2)).WithField(name)
		}
		out[key] = values[0]
	}
	if field, err := intake.CheckMetadata(out); err != nil {
		return nil, intake.FieldProblem(v1.InvalidHeader, v1.HTTPMetadataPrefix+field, err)
	}
	return out, nil
}
