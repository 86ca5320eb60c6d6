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

// deliver makes one attempt to have a picture read. The error is a
// [*retry.Error] when another attempt may have an outcome, and a [*v1.Problem]
// when that is the outcome.
type deliver func(ctx context.Context, key string, pic []byte) (v1.Result, error)

// patience is how long one attempt may take: longer than any job of the
// interactive kind, whose deadline the mesh watches over.
const patience = 5 * time.Minute

// overHTTP sends to an ingress.
func overHTTP(base, pipeline string, priority subject.Priority) deliver {
	q := url.Values{"priority": {string(priority)}}
	if pipeline != "" {
		q.Set("pipeline", pipeline)
	}
	base = strings.TrimRight(base, "/")
	web := &http.Client{Transport: &http.Transport{
		Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: maxConcurrency, IdleConnTimeout: 30 * time.Second,
	}}
	return func(ctx context.Context, key string, pic []byte) (v1.Result, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/v1/images?"+q.Encode(), bytes.NewReader(pic))
		if err != nil {
			return v1.Result{}, err
		}
		req.Header.Set("Content-Type", "application/octet-stream")
		req.Header.Set("Prefer", "wait=30")
		req.Header.Set(v1.HeaderKey, key)
		r, err := ask(web, req)
		for err == nil && !r.Final() { // it takes longer than the wait
			req, err = http.NewRequestWithContext(ctx, http.MethodGet, base+"/v1/images/"+r.ID+"?wait=30", nil)
			if err == nil {
				r, err = ask(web, req)
			}
		}
		return r, err
	}
}

// ask makes a request and reads its answer.
func ask(web *http.Client, req *http.Request) (v1.Result, error) {
	var r v1.Result
	res, err := web.Do(req)
	if err != nil {
		return r, retry.After(err, 0)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return r, retry.After(fmt.Errorf("read the answer: %w", err), 0)
	}
	if res.StatusCode/100 == 2 {
		if err := json.Unmarshal(body, &r); err != nil {
			return r, retry.After(fmt.Errorf("read the answer: %w", err), 0)
		}
		if r.Status == v1.Failed && r.Problem != nil {
			return r, r.Problem
		}
		return r, nil
	}
	retryAfter := retry.ParseAfter(res.Header.Get("Retry-After"))
	p := new(v1.Problem)
	if json.Unmarshal(body, p) != nil || p.Code == "" { // a proxy on the way
		err := fmt.Errorf("the answer was %s", res.Status)
		if res.StatusCode >= 500 || res.StatusCode == http.StatusTooManyRequests || res.StatusCode == http.StatusRequestTimeout {
			err = retry.After(err, retryAfter)
		}
		return r, err
	}
	return r, problemOf(p, retryAfter)
}

// problemOf tells a problem that passes from one that is the outcome.
func problemOf(p *v1.Problem, retryAfter time.Duration) error {
	if passes(p.Code) {
		return retry.After(p, retryAfter)
	}
	return p
}

// overNATS sends requests over a connection.
func overNATS(c *client.Client, pipeline string) deliver {
	return func(ctx context.Context, key string, pic []byte) (v1.Result, error) {
		r, err := c.AnalyzeKey(ctx, pipeline, key, pic)
		var p *v1.Problem
		switch {
		case err == nil:
			return r, nil
		case errors.As(err, &p):
			after, _ := retry.Delay(err)
			return r, problemOf(p, after)
		}
		return r, retry.After(err, 0)
	}
}
