package natsapi

import (
	"maps"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/ingress/internal/intake"
	"github.com/sightmesh/sightmesh/services/ingress/internal/jobparams"
	"github.com/sightmesh/sightmesh/services/internal/regionfilter"
	"github.com/sightmesh/sightmesh/services/internal/requestfields"
)

const (
	headerPrefer  = "Prefer"
	headerApplied = "Preference-Applied"
)

// parameterHeaders are the headers for what are query parameters over HTTP.
var parameterHeaders = map[string]string{v1.HeaderPriority: "priority", v1.HeaderCallback: "callback"}

// requestHeaders lists the headers of a request, without those of its trace.
var requestHeaders = slices.Sorted(slices.Values(slices.Concat(
	[]string{v1.HeaderKey, headerPrefer, requestfields.MetadataHeaders},
	slices.Collect(maps.Keys(parameterHeaders)), slices.Collect(maps.Keys(regionfilter.Headers())))))

// request is an image with the parameters of its job.
type request struct {
	intake.Request
	prefer jobparams.Preference
	filter regionfilter.Filter
}

// parseRequest parses a request. Header names are not case-sensitive, as in HTTP, because client libraries
// may change their case. The problems are the same as over HTTP.
func (a *Analyze) parseRequest(m *nats.Msg) (r request, err error) {
	name, err := subject.ParseAnalyze(m.Subject)
	if err != nil {
		return r, err
	}
	var ok bool
	if r.Pipeline, ok = a.Intake.Pipeline(name); !ok {
		return r, v1.NewProblem(v1.UnknownPipeline, "no pipeline %.40q", name).WithField("pipeline")
	}
	r.Image = m.Data
	if err := requestfields.CheckHeaders(m.Header, requestHeaders); err != nil {
		return r, err
	}
	if err := a.readParameters(m.Header, &r); err != nil {
		return r, err
	}
	if r.Key, err = jobparams.ParseKey(headerValues(m.Header, v1.HeaderKey)); err != nil {
		return r, err
	}
	if r.Metadata, err = jobparams.ParseMetadata(m.Header); err != nil {
		return r, err
	}
	r.prefer, err = jobparams.ParsePrefer(headerValues(m.Header, headerPrefer), a.Wait, a.MaxWait)
	return r, err
}

// readParameters parses the headers for query parameters. Each may be given once.
func (a *Analyze) readParameters(h nats.Header, r *request) (err error) {
	given := map[string]string{}
	for _, header := range slices.Sorted(maps.Keys(parameterHeaders)) {
		name := parameterHeaders[header]
		switch values := headerValues(h, header); {
		case len(values) > 1:
			return v1.NewProblem(v1.InvalidParameter, "%s is given %d times", header, len(values)).WithField(name)
		case len(values) == 1 && values[0] == "":
			return v1.NewProblem(v1.InvalidParameter, "%s is empty", header).WithField(name)
		case len(values) == 1:
			given[name] = values[0]
		}
	}
	if priority, ok := given["priority"]; ok {
		if r.Priority, err = jobparams.ParsePriority(priority); err != nil {
			return err
		}
	}
	if callback, ok := given["callback"]; ok {
		if err := jobparams.CheckWebhookURL(a.Intake, callback); err != nil {
			return err
		}
		r.WebhookURL = callback
	}
	r.filter, err = regionfilter.ParseHeader(h)
	return err
}

// headerValues returns the values of a header whose name is not case-sensitive.
func headerValues(h nats.Header, name string) (values []string) {
	for _, given := range slices.Sorted(maps.Keys(h)) {
		if strings.EqualFold(given, name) {
			values = append(values, h[given]...)
		}
	}
	return values
}
