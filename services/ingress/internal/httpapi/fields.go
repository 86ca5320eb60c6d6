package httpapi

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/ingress/internal/jobparams"
	"github.com/sightmesh/sightmesh/services/internal/regionfilter"
)

// fields are the fields of a request other than its images, by name.
type fields map[string]string

// metaPrefix is the prefix of metadata fields.
const metaPrefix = "meta-"

// filterFields are the fields that select regions of a result.
var filterFields = []string{regionfilter.MinScore, regionfilter.Labels, regionfilter.Top}

// submissionFields are the fields of a request with images, in its query, form or JSON body.
var submissionFields = slices.Concat([]string{"pipeline", "priority", "callback", "key", metaPrefix + "*"}, filterFields)

// parseQuery parses the query of a request.
func parseQuery(r *http.Request, known ...string) (fields, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, v1.NewProblem(v1.InvalidParameter, "the query cannot be read: %v", err).WithField("query")
	}
	return readFields(q, isStrict(r), known...)
}

// isStrict reports whether unknown fields of a request are a problem. The old routes ignore unknown fields,
// as the original services did.
func isStrict(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, "/v1/") }

// readFields returns the known fields, each of which may be given once. An unknown field is a problem when
// strict, and is ignored otherwise.
func readFields(values url.Values, strict bool, known ...string) (fields, error) {
	out := fields{}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		key, isMeta := name, strings.HasPrefix(name, metaPrefix)
		if isMeta { // like headers, not case-sensitive
			key = strings.ToLower(name)
		}
		_, twice := out[key]
		switch given := values[name]; {
		case !isKnown(name, known) && strict:
			return nil, jobparams.UnknownField(name, known)
		case twice:
			return nil, v1.NewProblem(v1.InvalidParameter, "%s is given twice", key).WithField(key)
		case !isKnown(name, known):
		case len(given) > 1:
			return nil, v1.NewProblem(v1.InvalidParameter, "%s is given %d times", name, len(given)).WithField(name)
		case given[0] == "" && !isMeta:
			return nil, v1.NewProblem(v1.InvalidParameter, "%s is empty", name).WithField(name)
		default:
			out[key] = given[0]
		}
	}
	return out, nil
}

// isKnown reports whether known has a field, or has meta-* for the field of an entry of metadata.
func isKnown(name string, known []string) bool {
	if strings.HasPrefix(name, metaPrefix) {
		name = metaPrefix + "*"
	}
	return slices.Contains(known, name)
}

// bodyFields are [v1.RequestFields] as pointers, so that empty and missing fields differ.
type bodyFields struct {
	Pipeline *string           `json:"pipeline"`
	Priority *string           `json:"priority"`
	Callback *string           `json:"callback"`
	Key      *string           `json:"key"`
	Metadata map[string]string `json:"metadata"`
}

// jsonFields returns the fields of a JSON body.
func jsonFields(in bodyFields) (fields, error) {
	out := fields{}
	for name, value := range map[string]*string{
		"pipeline": in.Pipeline, "priority": in.Priority, "callback": in.Callback, "key": in.Key,
	} {
		if value == nil {
			continue
		}
		if out[name] = *value; *value == "" {
			return nil, v1.NewProblem(v1.InvalidParameter, "%s is empty", name).WithField(name)
		}
	}
	for name, value := range in.Metadata {
		key := metaPrefix + strings.ToLower(name)
		if _, twice := out[key]; twice {
			return nil, v1.NewProblem(v1.InvalidParameter, "metadata.%s is given twice", strings.ToLower(name)).
				WithField("metadata." + strings.ToLower(name))
		}
		out[key] = value
	}
	return out, nil
}
