package client_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/sightmesh/sightmesh/contracts/client"
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
	job, err := c.Submit(context.Background(), "text", subject.Bulk, page)
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
