// Analyzes one image, with net/http: go run image.go http://127.0.0.1:8080 text page.png
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

// analyze posts an image until the result is there, and returns it. The error is a *v1.Problem if the mesh sent one.
func analyze(ctx context.Context, address string, image []byte) (v1.Result, error) {
	var result v1.Result
	key := rand.Text() // makes the repeated requests one job
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(image))
		if err != nil {
			return result, err
		}
		req.Header.Set("Content-Type", "image/*")
		req.Header.Set("Idempotency-Key", key)
		req.Header.Set("Prefer", "wait=60")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return result, err
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil {
			return result, err
		}
		switch seconds, _ := strconv.Atoi(res.Header.Get("Retry-After")); {
		case res.StatusCode == http.StatusOK:
			return result, json.Unmarshal(body, &result)
		case seconds > 0: // also with 202: the repeated request waits for the same job
			select {
			case <-time.After(time.Duration(seconds) * time.Second):
			case <-ctx.Done():
				return result, fmt.Errorf("%s: %w", res.Status, ctx.Err())
			}
		case res.Header.Get("Content-Type") == "application/problem+json":
			problem := new(v1.Problem)
			if err := json.Unmarshal(body, problem); err != nil {
				return result, err
			}
			return result, problem
		default:
			return result, fmt.Errorf("%s: %.200s", res.Status, body)
		}
	}
}
