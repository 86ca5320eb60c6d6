// Analyzes many images as one report, with net/http: go run report.go http://127.0.0.1:8080 text *.png
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

func main() {
	log.SetFlags(0)
	url, pipeline, paths := os.Args[1], os.Args[2], os.Args[3:]
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	report, err := analyze(ctx, url+"/v1/reports?pipeline="+pipeline, paths)
	if err != nil {
		log.Fatal(err)
	}
	for i, image := range report.Images {
		if image.Status == v1.Done {
			fmt.Println(paths[i], "done", len(image.Result.Regions), "regions")
		} else {
			fmt.Println(paths[i], "failed", image.Result.Problem)
		}
	}
}

// analyze submits the images as a report, waits until it is done, and returns it.
func analyze(ctx context.Context, address string, paths []string) (v1.Report, error) {
	var report v1.Report
	form, contentType, err := newForm(paths)
	if err != nil {
		return report, err
	}
	header := http.Header{
		"Content-Type": {contentType}, "Idempotency-Key": {rand.Text()}, "X-Sight-Meta-From": {"report.go"},
	}
	accepted, err := send(ctx, http.MethodPost, address, header, form)
	if err != nil {
		return report, err
	}
	accepted.Body.Close()
	location, err := accepted.Location()
	if err != nil {
		return report, err
	}
	for isDone := false; !isDone; { // a broken event stream is opened again
		events, err := send(ctx, http.MethodGet, location.String()+"/events", nil, nil)
		if err != nil {
			return report, err
		}
		for lines := bufio.NewScanner(events.Body); !isDone && lines.Scan(); {
			isDone = lines.Text() == "event: done"
		}
		events.Body.Close()
	}
	res, err := send(ctx, http.MethodGet, location.String(), nil, nil)
	if err != nil {
		return report, err
	}
	defer res.Body.Close()
	return report, json.NewDecoder(res.Body).Decode(&report)
}

// newForm returns a form with the images. It can have 64 MiB and 1,000 images. For more bytes, send JSON with the URLs
// of the images.
func newForm(paths []string) (form []byte, contentType string, err error) {
	var body bytes.Buffer
	w := multipart.NewWriter(&body)
	for _, path := range paths {
		image, err := os.ReadFile(path)
		if err != nil {
			return nil, "", err
		}
		part, err := w.CreateFormFile("image", filepath.Base(path))
		if err != nil {
			return nil, "", err
		}
		if _, err := part.Write(image); err != nil {
			return nil, "", err
		}
	}
	err = w.Close() // writes the end of the form
	return body.Bytes(), w.FormDataContentType(), err
}

// send makes a request. It retries a 429 or 503 after the seconds in Retry-After. The error is a *v1.Problem if the
// mesh sent one.
func send(
	ctx context.Context, method, address string, header http.Header, content []byte,
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
		if res.StatusCode/100 == 2 {
			return res, nil
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
		default:
			return nil, fmt.Errorf("%s: %.200s", res.Status, body)
		}
	}
}
