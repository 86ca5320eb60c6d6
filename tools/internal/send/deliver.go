package send

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/sightmesh/sightmesh/contracts/client"
	"github.com/sightmesh/sightmesh/contracts/retry"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// deliverFunc sends an image once and waits for its result. The error is a
// [*retry.Error] when another attempt may succeed, and a [*v1.Problem] when the
// problem is the outcome.
type deliverFunc func(ctx context.Context, key string, image []byte) (v1.Result, error)

// drawFunc requests once the image of the job with this key as JPEG, with the regions
// of its result drawn on it. Errors are as for deliverFunc.
type drawFunc func(ctx context.Context, key string, image []byte, result v1.Result) ([]byte, error)

// attemptTimeout is the limit for one attempt. It is longer than the deadline of an
// interactive job, after which the mesh ends the job.
const attemptTimeout = 5 * time.Minute

// overHTTP sends images to an ingress.
type overHTTP struct {
	web   *http.Client
	base  string
	query string
}

func newOverHTTP(base, pipeline string, priority subject.Priority) *overHTTP {
	q := url.Values{}
	if priority != "" {
		q.Set("priority", string(priority))
	}
	if pipeline != "" {
		q.Set("pipeline", pipeline)
	}
	return &overHTTP{
		base: strings.TrimRight(base, "/"), query: q.Encode(),
		web: &http.Client{Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: maxConcurrency, IdleConnTimeout: 30 * time.Second,
		}},
	}
}

// post returns the request with an image.
func (o *overHTTP) post(ctx context.Context, key string, image []byte) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, o.base+"/v1/images?"+o.query, bytes.NewReader(image))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	req.Header.Set("Prefer", "wait=30")
	req.Header.Set(v1.HeaderKey, key)
	return req, nil
}

func (o *overHTTP) deliver(ctx context.Context, key string, image []byte) (v1.Result, error) {
	req, err := o.post(ctx, key, image)
	if err != nil {
		return v1.Result{}, err
	}
	r, err := requestResult(o.web, req)
	for err == nil && !r.Final() { // the job runs longer than the wait
		req, err = http.NewRequestWithContext(ctx, http.MethodGet, o.base+"/v1/images/"+r.ID+"?wait=30", nil)
		if err == nil {
			r, err = requestResult(o.web, req)
		}
	}
	return r, err
}

// draw sends the image again with its key. The mesh finds the finished job by the key.
func (o *overHTTP) draw(ctx context.Context, key string, image []byte, _ v1.Result) ([]byte, error) {
	req, err := o.post(ctx, key, image)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", drawnType)
	drawn, contentType, err := doRequest(o.web, req)
	if err == nil && contentType != drawnType {
		err = fmt.Errorf("the response has type %q, want %s", contentType, drawnType)
	}
	return drawn, err
}

// drawnType is the media type of drawn images.
const drawnType = "image/jpeg"

// requestResult makes a request and reads the result in its response.
func requestResult(web *http.Client, req *http.Request) (v1.Result, error) {
	var r v1.Result
	body, _, err := doRequest(web, req)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(body, &r); err != nil {
		return r, retry.After(fmt.Errorf("read the response: %w", err), 0)
	}
	if r.Status == v1.Failed && r.Problem != nil {
		return r, r.Problem
	}
	return r, nil
}

// doRequest makes a request and returns the body and the media type of its response.
// A response without a status of 2xx is an error.
func doRequest(web *http.Client, req *http.Request) (body []byte, contentType string, err error) {
	res, err := web.Do(req)
	if err != nil {
		return nil, "", retry.After(err, 0)
	}
	defer res.Body.Close()
	body, err = io.ReadAll(res.Body)
	if err != nil {
		return nil, "", retry.After(fmt.Errorf("read the response: %w", err), 0)
	}
	if res.StatusCode/100 == 2 {
		return body, res.Header.Get("Content-Type"), nil
	}
	retryAfter := retry.ParseAfter(res.Header.Get("Retry-After"))
	p := new(v1.Problem)
	if json.Unmarshal(body, p) != nil || p.Code == "" { // such as a response of a proxy
		err := fmt.Errorf("the response is %s", res.Status)
		status := res.StatusCode
		if status >= 500 || status == http.StatusTooManyRequests || status == http.StatusRequestTimeout {
			err = retry.After(err, retryAfter)
		}
		return nil, "", err
	}
	return nil, "", classifyProblem(p, retryAfter)
}

// classifyProblem returns a [*retry.Error] for a transient problem, and any other
// problem, which is the outcome, unchanged.
func classifyProblem(p *v1.Problem, retryAfter time.Duration) error {
	if isTransient(p.Code) {
		return retry.After(p, retryAfter)
	}
	return p
}

// overNATS sends images as requests over NATS.
type overNATS struct {
	client   *client.Client
	pipeline string
	priority subject.Priority // "" means the priority of the pipeline
}

func (o *overNATS) deliver(ctx context.Context, key string, image []byte) (v1.Result, error) {
	opts := []client.AnalyzeOption{client.WithKey(key)}
	if o.priority != "" {
		opts = append(opts, client.WithPriority(o.priority))
	}
	r, err := o.client.Analyze(ctx, o.pipeline, image, opts...)
	return r, natsError(err)
}

func (o *overNATS) draw(ctx context.Context, _ string, image []byte, result v1.Result) ([]byte, error) {
	drawn, err := o.client.Draw(ctx, image, result, drawnType)
	return drawn, natsError(err)
}

// natsError returns the error of an attempt over NATS.
func natsError(err error) error {
	var p *v1.Problem
	switch {
	case err == nil:
		return nil
	case errors.As(err, &p):
		after, _ := retry.Delay(err)
		return classifyProblem(p, after)
	}
	return retry.After(err, 0)
}
