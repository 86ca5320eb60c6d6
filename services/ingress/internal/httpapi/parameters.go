package httpapi

import (
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane/pipeline"
	"github.com/sightmesh/sightmesh/services/ingress/internal/intake"
	"github.com/sightmesh/sightmesh/services/ingress/internal/jobparams"
	"github.com/sightmesh/sightmesh/services/ingress/internal/reportintake"
	"github.com/sightmesh/sightmesh/services/internal/regionfilter"
	"github.com/sightmesh/sightmesh/services/internal/requestfields"
)

// parameters parses queries and headers of requests. Its problems name the invalid parameter or header.
type parameters struct {
	intake *intake.Intake
	// wait is the default wait of a request. maxWait is the longest wait that a request can set.
	wait, maxWait time.Duration
}

// submission holds the parameters of a request with images.
type submission struct {
	intake.Request
	prefer jobparams.Preference
	filter regionfilter.Filter
	// fields are the fields of the request, and places where each of them is.
	fields, places fields
}

// report returns the request for a report of these images. A report has the priority bulk, and its response
// has no regions.
func (s submission) report(sources []v1.ReportSource, uploads []reportintake.Upload) (reportintake.Request, error) {
	for _, name := range append([]string{"priority"}, filterFields...) {
		if _, given := s.places[name]; given && (name != "priority" || s.Priority != subject.Bulk) {
			return reportintake.Request{}, v1.NewProblem(v1.InvalidParameter,
				"%s is given, but a report is of priority bulk, and its regions are asked for later", name).WithField(name)
		}
	}
	return reportintake.Request{
		Pipeline: s.Pipeline, Key: s.Key, KeyField: s.KeyField, Metadata: s.Metadata, WebhookURL: s.WebhookURL,
		Sources: sources, Uploads: uploads,
	}, nil
}

// knownHeaders are the headers of a request with images that are not of HTTP.
var knownHeaders = []string{v1.HeaderKey, "Prefer", requestfields.MetadataHeaders}

// submission parses the query and the headers. The old routes ignore unknown ones. The caller adds the fields of the
// body with addFields.
func (p parameters) submission(r *http.Request) (submission, error) {
	s := submission{fields: fields{}, places: fields{}}
	q, err := parseQuery(r, submissionFields...)
	if err != nil {
		return s, err
	}
	if isStrict(r) {
		if err := requestfields.CheckHeaders(r.Header, knownHeaders); err != nil {
			return s, err
		}
	}
	if s.Pipeline, err = p.pipeline(""); err != nil {
		return s, err
	}
	if s.prefer, err = jobparams.ParsePrefer(r.Header.Values("Prefer"), p.wait, p.maxWait); err != nil {
		return s, err
	}
	if s.Key, err = jobparams.ParseKey(r.Header.Values(v1.HeaderKey)); err != nil {
		return s, err
	}
	if s.Key != "" {
		s.places["key"] = "a header"
	}
	if s.Metadata, err = jobparams.ParseMetadata(r.Header); err != nil {
		return s, err
	}
	for name := range s.Metadata {
		s.places[metaPrefix+name] = "a header"
	}
	return s, p.addFields(&s, q, "the query")
}

// addFields adds the fields of one place of a request. A field that is also in another place is a problem.
func (p parameters) addFields(s *submission, in fields, place string) (err error) {
	for _, name := range slices.Sorted(maps.Keys(in)) {
		if other, ok := s.places[name]; ok {
			return v1.NewProblem(v1.InvalidParameter, "%.60s is given twice: in %s and in %s", name, other, place).
				WithField(name)
		}
		s.fields[name], s.places[name] = in[name], place
		if err := p.setField(s, name, in[name]); err != nil {
			return err
		}
	}
	if name, err := intake.CheckMetadata(s.Metadata); err != nil {
		return intake.FieldProblem(v1.InvalidParameter, metaPrefix+name, err)
	}
	s.filter, err = regionfilter.Parse(s.fields)
	return err
}

// setField sets a field other than a filter.
func (p parameters) setField(s *submission, name, value string) (err error) {
	switch name {
	case "pipeline":
		s.Pipeline, err = p.pipeline(value)
	case "priority":
		s.Priority, err = jobparams.ParsePriority(value)
	case "callback":
		s.WebhookURL, err = value, jobparams.CheckWebhookURL(p.intake, value)
	case "key":
		s.Key, s.KeyField, err = value, name, jobparams.CheckKey(v1.InvalidParameter, name, value)
	default:
		if meta, ok := strings.CutPrefix(name, metaPrefix); ok {
			s.Metadata[meta] = value
		}
	}
	return err
}

// pipeline returns a pipeline by its name, or the first pipeline when name is "".
func (p parameters) pipeline(name string) (pipeline.Pipeline, error) {
	pl, ok := p.intake.Pipeline(name)
	if !ok {
		return pl, v1.NewProblem(v1.UnknownPipeline, "no pipeline %.40q; /v1/pipelines lists those there are", name).
			WithField("pipeline")
	}
	return pl, nil
}

// lookup holds the parameters of a request for a result.
type lookup struct {
	wait   time.Duration // 0 when not given
	filter regionfilter.Filter
}

// lookup parses the wait and the filter of a GET.
func (p parameters) lookup(r *http.Request) (lookup, error) {
	var l lookup
	q, err := parseQuery(r, append([]string{"wait"}, filterFields...)...)
	if err != nil {
		return l, err
	}
	if l.filter, err = regionfilter.Parse(q); err != nil || q["wait"] == "" {
		return l, err
	}
	n, err := strconv.ParseUint(q["wait"], 10, 31)
	if err != nil {
		return l, v1.NewProblem(v1.InvalidParameter, "wait is %.20q, want a whole number of seconds", q["wait"]).
			WithField("wait")
	}
	l.wait = min(time.Duration(n)*time.Second, p.maxWait)
	return l, nil
}

// parseFilter parses the filter of a GET without other parameters.
func parseFilter(r *http.Request) (regionfilter.Filter, error) {
	q, err := parseQuery(r, filterFields...)
	if err != nil {
		return regionfilter.Filter{}, err
	}
	return regionfilter.Parse(q)
}
