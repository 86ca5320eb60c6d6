// Analyzes many images over NATS, with contracts/client: go run bulk.go nats://127.0.0.1:4222 text *.png
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/sightmesh/sightmesh/contracts/client"
	"github.com/sightmesh/sightmesh/contracts/retry"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

func main() {
	log.SetFlags(0)
	url, pipeline, paths := os.Args[1], os.Args[2], os.Args[3:]
	nc, err := nats.Connect(url)
	if err != nil {
		log.Fatal(err)
	}
	mesh, err := client.New(nc)
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	if err := checkPipeline(ctx, nc, pipeline); err != nil {
		log.Fatal(err)
	}
	results := make([]v1.Result, len(paths))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(16) // images that the mesh has at a time
	for i, path := range paths {
		group.Go(func() error {
			result, err := analyze(ctx, mesh, pipeline, path)
			results[i] = result
			return err
		})
	}
	if err := group.Wait(); err != nil {
		log.Fatal(err)
	}
	for i, path := range paths {
		if r := results[i]; r.Status == v1.Done {
			fmt.Println(path, "done", len(r.Regions), "regions")
		} else {
			fmt.Println(path, "failed", r.Problem)
		}
	}
}

// checkPipeline returns an error for a pipeline that is not set up. The stream accepts images of any pipeline.
func checkPipeline(ctx context.Context, nc *nats.Conn, pipeline string) error {
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	_, err = js.Consumer(ctx, streams.Images, streams.WorkConsumer(subject.Detect, pipeline, subject.Bulk))
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		return fmt.Errorf("no pipeline %q", pipeline)
	}
	return err
}

// analyze stores an image as a job of bulk priority, and returns its result.
func analyze(ctx context.Context, mesh *client.Client, pipeline, path string) (v1.Result, error) {
	image, err := os.ReadFile(path)
	if err != nil {
		return v1.Result{}, err
	}
	job := subject.Job{Pipeline: pipeline, Priority: subject.Bulk, ID: rand.Text()}
	err = mesh.SubmitJob(ctx, job, image)
	for { // a temporary problem, such as a full queue, has a delay after which to retry
		after, ok := retry.Delay(err)
		if !ok || retry.Sleep(ctx, after) != nil {
			break
		}
		err = mesh.SubmitJob(ctx, job, image)
	}
	if err != nil {
		return v1.Result{}, fmt.Errorf("%s: %w", path, err)
	}
	return mesh.Await(ctx, job.ID)
}
