package httpapi

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/internal/regionfilter"
	"github.com/sightmesh/sightmesh/services/internal/requestfields"
)

// fields are the fields of a request other than its images, by name.
type fields map[string]string

// metaPrefix is the prefix of metadata fields.
const metaPrefix = "meta-"

// filterFields are the fields that select regions of a result.
var filterFields = []string{regionfilter.MinScore, regionfilter.Labels, regionfilter.Top}

// submissionFields are the fields of a request with images, in its query, form or JSON body.
var submissionFields = slices.Concat(
	[]string{"pipeline", "priority", "callback", "key", metaPrefix + "*"}, filterFields)

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
			return nil, requestfields.NewUnknownProblem(name, known)
		case twice:
			return nil, v1.NewProblem(v1.InvalidParameter, "%.60s is given twice", key).WithField(key)
		case !isKnown(name, known):
		case len(given) > 1:
			return nil, v1.NewProblem(v1.InvalidParameter, "%.60s is given %d times", name, len(given)).WithField(name)
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

// bodyFields are the fields of a [v1.ImageRequest] other than its image. Their types tell empty, missing and
// invalid fields apart. A report has them too, because it rejects a filter as in its query.
type bodyFields struct {
	Pipeline *string        `json:"pipeline"`
	Priority *string        `json:"priority"`
	Callback *string        `json:"callback"`
	Key      *string        `json:"key"`
	Metadata jsonMetadata   `json:"metadata"`
	MinScore jsontext.Value `json:"min_score"`
	Labels   []string       `json:"labels"`
	Top      jsontext.Value `json:"top"`
}

// jsonMetadata is metadata in JSON.
type jsonMetadata map[string]*string

// entries returns the entries other than null, which is the same as a missing entry.
func (m jsonMetadata) entries() map[string]string {
	out := make(map[string]string, len(m))
	for name, value := range m {
		if value != nil {
			out[name] = *value
		}
	}
	return out
}

// jsonFields returns the fields of a JSON body, in the form and with the rules of the query.
func jsonFields(in bodyFields) (fields, error) {
	values := url.Values{}
	for name, value := range map[string]*string{
		"pipeline": in.Pipeline, "priority": in.Priority, "callback": in.Callback, "key": in.Key,
	} {
		if value != nil {
			values.Set(name, *value)
		}
	}
	for name, value := range in.Metadata.entries() {
		values.Set(metaPrefix+name, value)
	}
	for name, value := range map[string]jsontext.Value{regionfilter.MinScore: in.MinScore, regionfilter.Top: in.Top} {
		switch {
		case value == nil || value.Kind() == 'n':
		case value.Kind() != '0':
			return nil, wrongKind(name, value.Kind())
		default:
			values.Set(name, string(value))
		}
	}
	if in.Labels != nil {
		for _, label := range in.Labels {
			if strings.Contains(label, ",") {
				return nil, v1.NewProblem(v1.InvalidParameter, "%s has %.60q, want names without commas",
					regionfilter.Labels, label).WithField(regionfilter.Labels)
			}
		}
		values.Set(regionfilter.Labels, strings.Join(in.Labels, ","))
	}
	return readFields(values, true, submissionFields...)
}
