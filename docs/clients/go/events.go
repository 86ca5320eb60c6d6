// Submits an image, and prints its events, with net/http: go run events.go http://127.0.0.1:8080 text page.png
package main

import (
	"bufio"
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
	"strings"
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
	if err := run(ctx, url+"/v1/images?pipeline="+pipeline, image); err != nil {
		log.Fatalf("%s: %v", path, err)
	}
}

// run submits an image, and prints its events and its result.
func run(ctx context.Context, address string, image []byte) error {
	header := http.Header{"Content-Type": {"image/*"}, "Idempotency-Key": {rand.Text()}, "Prefer": {"respond-async"}}
	accepted, err := send(ctx, http.MethodPost, address, header, image)
	if err != nil {
		return err
	}
	accepted.Body.Close()
	job, err := accepted.Location()
	if err != nil {
		return err
	}
	for last := ""; last != "end"; { // after a broken stream, continue with the next event
		header := http.Header{}
		if last != "" {
			header.Set("Last-Event-ID", last)
		}
		stream, err := send(ctx, http.MethodGet, job.String()+"/events", header, nil)
		if err != nil {
			return err
		}
		last, err = printEvents(stream.Body, last)
		stream.Body.Close()
		if err != nil {
			return err
		}
		if last != "end" {
			time.Sleep(time.Second)
		}
	}
	return nil
}

// printEvents prints the events of a stream until it ends or breaks, and returns the ID of the last event. The error is
// that of the job.
func printEvents(stream io.Reader, last string) (string, error) {
	lines := bufio.NewScanner(stream)
	lines.Buffer(nil, 16<<20) // the last event has the result
	event := map[string]string{}
	for lines.Scan() {
		if line := lines.Text(); line != "" {
			name, value, _ := strings.Cut(line, ": ") // a comment has no name
			event[name] = value
			continue
		}
		if event["event"] == "" { // only a comment
			continue
		}
		last = event["id"]
		fmt.Println(event["event"])
		var result v1.Result
		if err := json.Unmarshal([]byte(event["data"]), &result); err != nil {
			return last, err
		}
		if result.Problem != nil {
			return last, result.Problem
		}
		for _, r := range result.Regions { // of the event done
			fmt.Println(r.Box.X, r.Box.Y, r.Box.Width, r.Box.Height, cmp.Or(r.Text, r.Label))
		}
		event = map[string]string{}
	}
	return last, nil
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
