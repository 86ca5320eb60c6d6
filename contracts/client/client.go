// Package client is a client of a mesh over NATS. It analyzes images, and looks up,
// cancels and watches jobs.
//
//	nc, err := nats.Connect(url)
//	c, err := client.New(nc)
//	result, err := c.Analyze(ctx, "faces", image, client.WithTop(3))
//
// Options set the parameters of a job, and select the regions of its result.
//
// An error of the mesh or of the image wraps a [*v1.Problem]. It also wraps a
// [*retry.Error] when another try may succeed. The trace in a context is continued by
// the mesh.
package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/propagation"

	"github.com/sightmesh/sightmesh/contracts/retry"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// A Client is safe for concurrent use by multiple goroutines.
type Client struct {
	nc *nats.Conn
	js jetstream.JetStream
}

// New returns a client that uses a connection. The caller closes the connection.
func New(nc *nats.Conn) (*Client, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("open JetStream: %w", err)
	}
	return &Client{nc: nc, js: js}, nil
}

// analyzeWait is how long an ingress waits for the outcome before it replies with the state
// of the job.
const analyzeWait = 20 * time.Second

// analyzeTimeout is how long a request for a result waits for its reply, unless the
// deadline of its context applies. It is a little longer than analyzeWait and the other
// steps of an ingress: it stores the image, in up to 6 s, and looks up the state, in up to
// 5 s.
const analyzeTimeout = 35 * time.Second

// Analyze submits an image and returns its result. It sends a request to one ingress.
// When the ingress replies before the job has its outcome, Analyze waits for the outcome
// until ctx ends. For a job that failed it returns the result and its problem as the
// error.
//
// The request waits for its reply until the deadline of ctx, or for 35 s when ctx has
// none. When the reply is lost, the error does not have the ID of the job, and another
// call of Analyze makes a second job. [WithKey] avoids this.
func (c *Client) Analyze(
	ctx context.Context, pipeline string, image []byte, opts ...AnalyzeOption,
) (v1.Result, error) {
	p, err := newAnalyzeParams(opts)
	if err != nil {
		return v1.Result{}, err
	}
	requestCtx := ctx
	if _, ok := ctx.Deadline(); !ok || p.header.Get(v1.HeaderKey) != "" {
		var cancel context.CancelFunc
		requestCtx, cancel = context.WithTimeout(ctx, analyzeTimeout)
		defer cancel()
	}
	var r v1.Result
	m := &nats.Msg{Subject: subject.Analyze(pipeline), Header: p.header, Data: image}
	if err := c.request(requestCtx, m, &r); err != nil {
		return r, err
	}
	switch {
	case p.respondAsync && !r.Final():
		return r, nil
	case p.respondAsync || !r.Final(): // a reply to respond-async has only the status
		if r, err = c.Await(ctx, r.ID, p.regions...); err != nil {
			return r, err
		}
	}
	if r.Status == v1.Failed && r.Problem != nil {
		return r, r.Problem
	}
	return r, nil
}

// requestTimeout is how long a request about a job waits for its reply.
const requestTimeout = 5 * time.Second

// Lookup returns the result or the state of a job. It waits for at most 5 s; then the
// error is [v1.Unavailable].
func (c *Client) Lookup(ctx context.Context, job string, regions ...RegionOption) (v1.Result, error) {
	h, err := newLookupHeader(regions)
	if err != nil {
		return v1.Result{}, err
	}
	var r v1.Result
	return r, c.requestAboutJob(ctx, job, subject.Lookup, h, &r)
}

// Cancel cancels a job that has no outcome yet. It waits as long as Lookup. After an
// error the job may have been cancelled; Cancel can be called again.
func (c *Client) Cancel(ctx context.Context, job string) (v1.Cancellation, error) {
	var r v1.Cancellation
	return r, c.requestAboutJob(ctx, job, subject.Cancel, nats.Header{}, &r)
}

func (c *Client) requestAboutJob(
	ctx context.Context, job string, subj func(string) string, h nats.Header, reply any,
) error {
	if !subject.ValidJob(job) {
		return newInvalidIDProblem()
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return c.request(ctx, &nats.Msg{Subject: subj(job), Header: h}, reply)
}

func newInvalidIDProblem() *v1.Problem {
	return v1.NewProblem(v1.UnknownJob, "a job is named by 1 to 64 of A-Z, a-z, 0-9, '_' and '-'")
}

// request sends a request to a service and decodes its reply.
func (c *Client) request(ctx context.Context, ask *nats.Msg, reply any) error {
	subj := ask.Subject
	injectTrace(ctx, ask.Header)
	m, err := c.nc.RequestMsgWithContext(ctx, ask)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return v1.NewProblem(v1.Unavailable, "no service responds on %s", subj)
	case errors.Is(err, context.DeadlineExceeded):
		return v1.NewProblem(v1.Unavailable, "no service responded on %s in time", subj)
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("request on %s: %w", subj, err)
	case err != nil: // such as while the client reconnects
		return v1.NewProblem(v1.Unavailable, "cannot send a request on %s: %v", subj, err)
	}
	if err := serviceError(subj, m); err != nil {
		return err
	}
	if err := json.Unmarshal(m.Data, reply); err != nil {
		return fmt.Errorf("request on %s: decode reply: %w", subj, err)
	}
	return nil
}

// serviceError returns the problem of a reply, or nil when the reply is not a problem.
func serviceError(subj string, m *nats.Msg) error {
	if m.Header.Get("Nats-Service-Error-Code") == "" {
		return nil
	}
	p := new(v1.Problem)
	if err := json.Unmarshal(m.Data, p); err != nil {
		return fmt.Errorf("request on %s: decode problem: %w", subj, err)
	}
	if after := retry.ParseAfter(m.Header.Get("Retry-After")); after > 0 {
		return retry.After(p, after)
	}
	return p
}

// injectTrace adds the trace context to h. The names are in lower case, as in the W3C
// specification; NATS does not change their case.
func injectTrace(ctx context.Context, h nats.Header) {
	c := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, c)
	for k, v := range c {
		h.Set(k, v)
	}
}
