package httpapi

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane/pipeline"
	"github.com/sightmesh/sightmesh/services/ingress/internal/intake"
	"github.com/sightmesh/sightmesh/services/ingress/internal/reportintake"
)

// parameters reads what requests say besides their bodies. Its methods name the
// parameter or header that is wrong.
type parameters struct {
	intake *intake.Intake
	// wait is how long a request waits that does not say; maxWait is the
	// longest that it may say.
	wait, maxWait time.Duration
}

// submission is what a request that brings images says of them.
type submission struct {
	intake.Request
	prefer preference
}

// report returns the request for a report of these images.
func (s submission) report(sources []v1.ReportSource, uploads []reportintake.Upload) reportintake.Request {
	return reportintake.Request{
		Pipeline: s.Pipeline, Key: s.Key, Metadata: s.Metadata, Callback: s.Callback,
		Sources: sources, Uploads: uploads,
	}
}

// submission reads the query and the headers.
func (p parameters) submission(r *http.Request) (submission, error) {
	var s submission
	q, err := parseQuery(r.URL.RawQuery, "pipeline", "priority", "callback")
	if err != nil {
		return s, err
	}
	if s.Pipeline, err = p.pipeline(q["pipeline"]); err != nil {
		return s, err
	}
	s.Priority = subject.Priority(q["priority"])
	if s.Priority != "" && !s.Priority.Valid() {
		return s, v1.NewProblem(v1.InvalidParameter, "priority is %.40q, want interactive or bulk", s.Priority).
			WithField("priority")
	}
	if s.Callback = q["callback"]; s.Callback != "" {
		if err := p.checkCallback(s.Callback); err != nil {
			return s, err
		}
	}
	if s.prefer, err = parsePrefer(r.Header.Values("Prefer"), p.wait, p.maxWait); err != nil {
		return s, err
	}
	if s.Key = r.Header.Get(v1.HeaderKey); len(s.Key) > intake.MaxKey {
		return s, v1.NewProblem(v1.InvalidHeader, "%s may have %d bytes", v1.HeaderKey, intake.MaxKey).
			WithField(v1.HeaderKey).WithLimit(intake.MaxKey)
	}
	s.Metadata, err = parseMetadata(r.Header)
	return s, err
}

// pipeline returns a pipeline by its name, or the first when it has none.
func (p parameters) pipeline(name string) (pipeline.Pipeline, error) {
	pl, ok := p.intake.Pipeline(name)
	if !ok {
		return pl, v1.NewProblem(v1.UnknownPipeline, "no pipeline %.40q; /v1/pipelines lists those there are", name).
			WithField("pipeline")
	}
	return pl, nil
}

// checkCallback rejects now what would be rejected when the job is done.
func (p parameters) checkCallback(raw string) error {
	err := p.intake.CheckCallback(raw)
	switch {
	case errors.Is(err, intake.ErrNoCallbacks):
		return v1.NewProblem(v1.InvalidParameter, "%v", err).WithField("callback")
	case err != nil:
		return v1.NewProblem(v1.InvalidParameter, "callback %v", err).WithField("callback")
	}
	return nil
}

// parseMetadata reads X-Sight-Meta-*; the names come back in lower case.
func parseMetadata(h http.Header) (map[string]string, error) {
	out := map[string]string{}
	for name, values := range h {
		key, ok := strings.CutPrefix(name, v1.HTTPMetadataPrefix)
		if !ok {
			continue
		}
		if len(values) > 1 {
			return nil, v1.NewProblem(v1.InvalidHeader, "%s is given %d times", name, len(values)).WithField(name)
		}
		out[strings.ToLower(key)] = values[0]
	}
	if field, err := intake.CheckMetadata(out); err != nil {
		return nil, v1.NewProblem(v1.InvalidHeader, "%s%s %v", v1.HTTPMetadataPrefix, field, err).WithField(v1.HTTPMetadataPrefix + field)
	}
	return out, nil
}

// waitTime reads for how long a GET wants to wait; 0 when it does not say.
func (p parameters) waitTime(r *http.Request) (time.Duration, error) {
	q, err := parseQuery(r.URL.RawQuery, "wait")
	if err != nil || q["wait"] == "" {
		return 0, err
	}
	n, err := strconv.ParseUint(q["wait"], 10, 31)
	if err != nil {
		return 0, v1.NewProblem(v1.InvalidParameter, "wait is %.20q, want a whole number of seconds", q["wait"]).
			WithField("wait")
	}
	return min(time.Duration(n)*time.Second, p.maxWait), nil
}
