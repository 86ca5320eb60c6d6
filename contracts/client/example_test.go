package client_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/sightmesh/sightmesh/contracts/client"
	"github.com/sightmesh/sightmesh/contracts/retry"
	"github.com/sightmesh/sightmesh/contracts/subject"
)

func ExampleClient_Analyze() {
	nc, err := nats.Connect(nats.DefaultURL)
	if err != nil {
		log.Panic(err)
	}
	defer nc.Close()
	c, err := client.New(nc)
	if err != nil {
		log.Panic(err)
	}
	image, err := os.ReadFile("photo.jpg")
	if err != nil {
		log.Panic(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	result, err := c.Analyze(ctx, "faces", image)
	if err != nil {
		log.Panic(err)
	}
	for _, r := range result.Regions {
		fmt.Println(r.Label, r.Box)
	}
}

// A call with a key can be repeated after a temporary error: the calls are one job.
func ExampleClient_Analyze_retry() {
	nc, err := nats.Connect(nats.DefaultURL)
	if err != nil {
		log.Panic(err)
	}
	defer nc.Close()
	c, err := client.New(nc)
	if err != nil {
		log.Panic(err)
	}
	image, err := os.ReadFile("photo.jpg")
	if err != nil {
		log.Panic(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	opts := []client.AnalyzeOption{
		client.WithKey("photo-17"),
		client.WithMetadata(map[string]string{"camera": "3"}),
		client.WithMinScore(0.8),
	}
	result, err := c.Analyze(ctx, "objects", image, opts...)
	for {
		after, isTemporary := retry.Delay(err)
		if !isTemporary || retry.Sleep(ctx, after) != nil {
			break
		}
		result, err = c.Analyze(ctx, "objects", image, opts...)
	}
	if err != nil {
		log.Panic(err)
	}
	fmt.Println(result.Metadata["camera"], len(result.Regions))
}

// Analyze returns when the image is stored, and Await waits for the result.
func ExampleWithRespondAsync() {
	nc, err := nats.Connect(nats.DefaultURL)
	if err != nil {
		log.Panic(err)
	}
	defer nc.Close()
	c, err := client.New(nc)
	if err != nil {
		log.Panic(err)
	}
	page, err := os.ReadFile("page.png")
	if err != nil {
		log.Panic(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	job, err := c.Analyze(ctx, "text", page, client.WithRespondAsync(), client.WithPriority(subject.Bulk))
	if err != nil {
		log.Panic(err)
	}
	result, err := c.Await(ctx, job.ID)
	if err != nil {
		log.Panic(err)
	}
	fmt.Println(*result.Text)
}

func ExampleClient_Submit() {
	nc, err := nats.Connect(nats.DefaultURL)
	if err != nil {
		log.Panic(err)
	}
	defer nc.Close()
	c, err := client.New(nc)
	if err != nil {
		log.Panic(err)
	}
	page, err := os.ReadFile("page.png")
	if err != nil {
		log.Panic(err)
	}
	job, err := c.Submit(context.Background(), "text", subject.Bulk, page,
		client.WithMetadata(map[string]string{"file": "page.png"}))
	if err != nil {
		log.Panic(err)
	}
	// Later, possibly in another process.
	result, err := c.Await(context.Background(), job)
	if err != nil {
		log.Panic(err)
	}
	fmt.Println(*result.Text)
}
