package client

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/nats-io/nats.go"

	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// An AnalyzeOption is a parameter of [Client.Analyze]. The mesh checks its value. An ingress
// of version 0.1.0 ignores it.
type AnalyzeOption interface{ applyToAnalyze(p *params) }

// A SubmitOption is a parameter of [Client.Submit] and [Client.SubmitJob].
type SubmitOption interface{ applyToSubmit(p *params) }

// A JobOption is a parameter of [Client.Analyze], [Client.Submit] and [Client.SubmitJob],
// with the same effect.
type JobOption interface {
	AnalyzeOption
	SubmitOption
}

// A RegionOption selects the regions of a result. It is a parameter of [Client.Analyze],
// [Client.Lookup] and [Client.Await]. Without one, a result has all regions. The mesh
// stores all regions.
type RegionOption struct {
	header, value string
	problem       *v1.Problem // the call returns it; nil for a valid option
}

func (o RegionOption) applyToAnalyze(p *params) { p.regions = append(p.regions, o) }

// WithPriority sets the priority of the job. Without it, the job has the priority of its
// pipeline.
func WithPriority(priority subject.Priority) AnalyzeOption {
	return option(func(p *params) { p.header.Set(v1.HeaderPriority, string(priority)) })
}

// WithKey sets an idempotency key of at most 255 bytes: calls with the same key, pipeline,
// priority and image are one job and return its result. Analyze with a key can be called
// again after any temporary error. With another pipeline, priority or image, the error is
// [v1.KeyConflict]. The mesh rejects an empty key.
//
// The request then waits for its reply for at most 35 s, also when ctx has a later
// deadline.
func WithKey(key string) AnalyzeOption {
	return option(func(p *params) { p.header.Set(v1.HeaderKey, key) })
}

// WithRespondAsync makes Analyze return when the image is stored, with the state of the
// job. [Client.Await] then waits for its result. When the key of the call belongs to a job
// that has its outcome, Analyze returns this outcome.
func WithRespondAsync() AnalyzeOption { return option(func(p *params) { p.respondAsync = true }) }

// WithMetadata sets metadata that the result has too, with the names in lower case. An
// ingress accepts up to 16 entries, names of up to 40 characters, and 4,096 bytes of names
// and values. A name consists of the characters of an HTTP header name. A value is UTF-8
// without line breaks, and without blanks at its ends.
func WithMetadata(metadata map[string]string) JobOption {
	metadata = maps.Clone(metadata)
	return option(func(p *params) { p.metadata = metadata })
}

// WithWebhook sets the URL of a webhook, which gets the outcome of the job.
func WithWebhook(url string) JobOption {
	return option(func(p *params) { p.header.Set(v1.HeaderCallback, url) })
}

// WithDeadline sets the time after which the job fails and is not processed. The latest
// deadline is 24 h after the image was stored; a later time is shortened to it. Without it,
// the job has the deadline of its pipeline.
func WithDeadline(deadline time.Time) SubmitOption {
	return option(func(p *params) { p.header.Set(v1.HeaderDeadline, deadline.UTC().Format(time.RFC3339Nano)) })
}

// WithMinScore selects the regions that have this score, from 0 to 1, or a higher one.
func WithMinScore(score float64) RegionOption {
	return RegionOption{header: v1.HeaderMinScore, value: strconv.FormatFloat(score, 'f', -1, 64)}
}

// WithLabels selects the regions that have one of the labels. The call returns an error for
// a label with a comma, which separates labels in a request.
func WithLabels(labels ...string) RegionOption {
	o := RegionOption{header: v1.HeaderLabels, value: strings.Join(labels, ",")}
	for _, label := range labels {
		if strings.Contains(label, ",") {
			o.problem = v1.NewProblem(v1.InvalidHeader, "%s has the label %.60q, want labels without commas", o.header, label).
				WithField(o.header)
		}
	}
	return o
}

// WithTop selects the n regions with the highest scores, from 1 to 10,000.
func WithTop(n int) RegionOption { return RegionOption{header: v1.HeaderTop, value: strconv.Itoa(n)} }

// params are the parameters of a call.
type params struct {
	header       nats.Header // without metadata and regions
	metadata     map[string]string
	regions      []RegionOption
	respondAsync bool
}

// option sets a parameter. The type that its constructor returns decides where it can be
// used.
type option func(*params)

func (o option) applyToAnalyze(p *params) { o(p) }
func (o option) applyToSubmit(p *params)  { o(p) }

// newAnalyzeParams returns the parameters of a request to analyze, with all its headers.
func newAnalyzeParams(opts []AnalyzeOption) (params, error) {
	p := params{header: nats.Header{}}
	for _, o := range opts {
		o.applyToAnalyze(&p)
	}
	p.header.Set("Prefer", fmt.Sprintf("wait=%d", int(analyzeWait.Seconds())))
	if p.respondAsync {
		p.header.Set("Prefer", "respond-async")
	}
	regions, err := newLookupHeader(p.regions)
	if err != nil {
		return p, err
	}
	maps.Copy(p.header, regions)
	metadata, err := newMetadataHeader(p.metadata)
	if err != nil {
		return p, err
	}
	maps.Copy(p.header, metadata)
	return p, checkValues(p.header)
}

// newSubmitHeader returns the headers of a job. The rules for metadata are those of a request
// to analyze.
func newSubmitHeader(opts []SubmitOption) (nats.Header, error) {
	p := params{header: nats.Header{}}
	for _, o := range opts {
		o.applyToSubmit(&p)
	}
	metadata, err := newMetadataHeader(p.metadata)
	if err != nil {
		return nil, err
	}
	if len(metadata) > 0 {
		byName := map[string]string{}
		for name := range metadata {
			byName[strings.TrimPrefix(name, v1.HTTPMetadataPrefix)] = metadata.Get(name)
		}
		data, err := json.Marshal(byName)
		if err != nil {
			return nil, fmt.Errorf("encode metadata: %w", err)
		}
		p.header.Set(v1.HeaderMetadata, string(data))
	}
	return p.header, checkValues(p.header)
}

// newLookupHeader returns the headers of a look-up.
func newLookupHeader(opts []RegionOption) (nats.Header, error) {
	h := nats.Header{}
	for _, o := range opts {
		if o.problem != nil {
			return nil, o.problem
		}
		h.Set(o.header, o.value)
	}
	return h, checkValues(h)
}

// newMetadataHeader returns the headers X-Sight-Meta-NAME, with the names in lower case.
func newMetadataHeader(metadata map[string]string) (nats.Header, error) {
	h := nats.Header{}
	for _, given := range slices.Sorted(maps.Keys(metadata)) {
		name := v1.HTTPMetadataPrefix + strings.ToLower(given)
		_, isRepeated := h[name]
		switch {
		case given == "" || strings.ContainsFunc(given, isForbiddenInName):
			return nil, v1.NewProblem(v1.InvalidHeader, "%.40q is not a name of metadata: "+
				"want letters, digits and any of !#$%%&'*+-.^_`|~", given).WithField(name)
		case isRepeated:
			return nil, v1.NewProblem(v1.InvalidHeader, "%s is given twice", name).WithField(name)
		}
		h.Set(name, metadata[given])
	}
	return h, checkValues(h)
}

// isForbiddenInName reports whether the name of an HTTP header cannot have a character (RFC
// 9110, section 5.6.2).
func isForbiddenInName(r rune) bool {
	isAlphanumeric := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
	return !isAlphanumeric && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
}

// checkValues returns a problem for a value that the connection would change.
func checkValues(h nats.Header) error {
	for _, name := range slices.Sorted(maps.Keys(h)) {
		switch value := h.Get(name); {
		case !utf8.ValidString(value):
			return v1.NewProblem(v1.InvalidHeader, "%s is not UTF-8", name).WithField(name)
		case strings.ContainsAny(value, "\r\n"):
			return v1.NewProblem(v1.InvalidHeader, "%s has a line break", name).WithField(name)
		case textproto.TrimString(value) != value:
			return v1.NewProblem(v1.InvalidHeader, "%s begins or ends with a blank", name).WithField(name)
		}
	}
	return nil
}
