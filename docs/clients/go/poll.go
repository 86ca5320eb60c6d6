// Submits an image, and waits for it with long polls, with net/http: go run poll.go http://127.0.0.1:8080 text page.png
package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strconv"
	"time"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

func main() {
	log.SetFlags(0)
	url, pipeline, path := os.Args[1], os.Args[2], os.Args[3]
	image, err := os.ReadFile(path)
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	result, err := analyze(ctx, url+"/v1/images?pipeline="+pipeline, image)
	if err != nil {
		log.Fatalf("%s: %v", path, err)
	}
	for _, r := range result.Regions {
		fmt.Println(r.Box.X, r.Box.Y, r.Box.Width, r.Box.Height, cmp.Or(r.Text, r.Label))
	}
}

// analyze submits an image, and polls until it has its result. The error is a *v1.Problem if the mesh sent one.
func analyze(ctx context.Context, address string, image []byte) (v1.Result, error) {
	var job v1.Result
	header := http.Header{"Content-Type": {"image/*"}, "Idempotency-Key": {rand.Text()}, "Prefer": {"respond-async"}}
	accepted, err := send(ctx, http.MethodPost, address, header, image, &job)
	if err != nil {
		return job, err
	}
	location, err := accepted.Location()
	if err != nil {
		return job, err
	}
	// Each response comes when the job ends, or after 30 s.
	for poll := location.String() + "?wait=30"; job.Status != v1.Done && job.Status != v1.Failed; {
		if _, err := send(ctx, http.MethodGet, poll, nil, nil, &job); err != nil {
			return job, err
		}
	}
	if job.Problem != nil {
		return job, job.Problem
	}
	return job, nil
}

// send makes a request, and decodes the body of its response. It retries a 429 or 503 after the seconds in Retry-After.
func send(
	ctx context.Context, method, address string, header http.Header, content []byte, out any,
) (*http.Response, error) {
	for {
		req, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(content))
		if err != nil {
			return nil, err
		}
		req.Header = header.Clone()
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return nil, err
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil {
			return nil, err
		}
		isBusy := res.StatusCode == http.StatusTooManyRequests || res.StatusCode == http.StatusServiceUnavailable
		switch seconds, _ := strconv.Atoi(res.Header.Get("Retry-After")); {
		case isBusy && seconds > 0:
			select {
			case <-time.After(time.Duration(seconds) * time.Second):
			case <-ctx.Done():
				return nil, fmt.Errorf("%s: %w", res.Status, ctx.Err())
			}
		case res.Header.Get("Content-Type") == "application/problem+json":
			problem := new(v1.Problem)
			if err := json.Unmarshal(body, problem); err != nil {
				return nil, err
			}
			return nil, problem
		case res.StatusCode/100 != 2:
			return nil, fmt.Errorf("%s: %.200s", res.Status, body)
		default:
			return res, json.Unmarshal(body, out)
		}
	}
}
