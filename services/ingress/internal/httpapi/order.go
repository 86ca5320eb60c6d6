package httpapi

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sightmesh/sightmesh/contracts/pipeline"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// order is what a request that brings pictures asks for.
type order struct {
	pipeline pipeline.Pipeline
	priority subject.Priority
	prefer   preference
	key      string // Idempotency-Key; empty for none
	metadata map[string]string
	callback string
}

// Bounds of what a client may say of a job. The headers of a message have to
// hold all of it.
const (
	maxKey      = 255
	maxURL      = 2048
	maxMetadata = 16   // entries
	maxMetaName = 40   // characters
	maxMeta     = 4096 // bytes of all names and values
)

const metaPrefix = "X-Sight-Meta-"

// order reads the query and the headers.
func (a *API) order(r *http.Request) (order, error) {
	var o order
	q, err := parseQuery(r.URL.RawQuery, "pipeline", "priority", "callback")
	if err != nil {
		return o, err
	}
	if o.pipeline, err = a.pipeline(q["pipeline"]); err != nil {
		return o, err
	}
	o.priority = subject.Interactive
	if p, ok := q["priority"]; ok {
		o.priority = subject.Priority(p)
	}
	if !o.priority.Valid() {
		return o, v1.NewProblem(v1.InvalidParameter, "priority is %.40q, want interactive or bulk", o.priority).WithField("priority")
	}
	if o.callback = q["callback"]; o.callback != "" {
		if err := a.checkCallback(o.callback); err != nil {
			return o, err
		}
	}
	if o.prefer, err = parsePrefer(r.Header.Values("Prefer"), a.Wait, a.MaxWait); err != nil {
		return o, err
	}
	if o.key = r.Header.Get("Idempotency-Key"); len(o.key) > maxKey {
		return o, v1.NewProblem(v1.InvalidHeader, "Idempotency-Key may have %d bytes", maxKey).WithField("Idempotency-Key").WithLimit(maxKey)
	}
	o.metadata, err = parseMetadata(r.Header)
	return o, err
}

// pipeline gives a pipeline by its name, or the first when it has none.
func (a *API) pipeline(name string) (pipeline.Pipeline, error) {
	if name == "" {
		return a.Pipelines[0], nil
	}
	p, ok := a.byName[name]
	if !ok {
		return p, v1.NewProblem(v1.UnknownPipeline, "no pipeline %.40q; /v1/pipelines lists those there are", name).WithField("pipeline")
	}
	return p, nil
}

// checkCallback refuses now what would be refused when the job is done.
func (a *API) checkCallback(raw string) error {
	if !a.Callbacks {
		return v1.NewProblem(v1.InvalidParameter, "this mesh has no secret to sign callbacks with, and sends none").WithField("callback")
	}
	if err := checkURL(raw); err != nil {
		return v1.NewProblem(v1.InvalidParameter, "callback %v", err).WithField("callback")
	}
	return nil
}

// checkURL checks what can be said of an address without a look at the
// network.
func checkURL(raw string) error {
	u, err := url.Parse(raw)
	switch {
	case len(raw) > maxURL:
		return fmt.Errorf("is longer than %d bytes", maxURL)
	case err != nil:
		return errors.New("is not a URL")
	case (u.Scheme != "http" && u.Scheme != "https") || u.Host == "":
		return errors.New("is not an http or https URL")
	}
	return nil
}

// parseMetadata reads X-Sight-Meta-*; the names come back in lower case.
func parseMetadata(h http.Header) (map[string]string, error) {
	out := map[string]string{}
	for name, values := range h {
		key, ok := strings.CutPrefix(name, metaPrefix)
		if !ok {
			continue
		}
		if len(values) > 1 {
			return nil, v1.NewProblem(v1.InvalidHeader, "%s is given %d times", name, len(values)).WithField(name)
		}
		out[strings.ToLower(key)] = values[0]
	}
	if field, err := checkMetadata(out); err != nil {
		return nil, v1.NewProblem(v1.InvalidHeader, "%s%s %v", metaPrefix, field, err).WithField(metaPrefix + field)
	}
	return out, nil
}

// checkMetadata holds metadata against its bounds, and names the entry that is
// wrong.
func checkMetadata(m map[string]string) (field string, err error) {
	total := 0
	for _, k := range slices.Sorted(maps.Keys(m)) {
		v := m[k]
		total += len(k) + len(v)
		switch {
		case k == "" || len(k) > maxMetaName:
			return k, fmt.Errorf("has a name of %d characters, want 1 to %d", len(k), maxMetaName)
		case !utf8.ValidString(v):
			return k, errors.New("is not UTF-8")
		case len(m) > maxMetadata:
			return k, fmt.Errorf("is one of %d entries, metadata may have %d", len(m), maxMetadata)
		case total > maxMeta:
			return k, fmt.Errorf("is too long: metadata may have %d bytes", maxMeta)
		}
	}
	return "", nil
}

// wait reads for how long a GET wants to wait; 0 when it does not say.
func (a *API) wait(r *http.Request) (time.Duration, error) {
	q, err := parseQuery(r.URL.RawQuery, "wait")
	if err != nil || q["wait"] == "" {
		return 0, err
	}
	n, err := strconv.ParseUint(q["wait"], 10, 31)
	if err != nil {
		return 0, v1.NewProblem(v1.InvalidParameter, "wait is %.20q, want a whole number of seconds", q["wait"]).WithField("wait")
	}
	return min(time.Duration(n)*time.Second, a.MaxWait), nil
}
