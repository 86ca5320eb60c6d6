// Analyzes one image over NATS, with contracts/client: go run analyze.go nats://127.0.0.1:4222 text page.png
package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/sightmesh/sightmesh/contracts/client"
	"github.com/sightmesh/sightmesh/contracts/retry"
)

func main() {
	log.SetFlags(0)
	url, pipeline, path := os.Args[1], os.Args[2], os.Args[3]
	image, err := os.ReadFile(path)
	if err != nil {
		log.Fatal(err)
	}
	nc, err := nats.Connect(url)
	if err != nil {
		log.Fatal(err)
	}
	mesh, err := client.New(nc)
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	key := client.WithKey(rand.Text()) // makes the repeated requests one job
	result, err := mesh.Analyze(ctx, pipeline, image, key)
	for { // a temporary problem has a delay after which to retry
		after, ok := retry.Delay(err)
		if !ok || retry.Sleep(ctx, after) != nil {
			break
		}
		result, err = mesh.Analyze(ctx, pipeline, image, key)
	}
	if err != nil { // a *v1.Problem, if the mesh sent one
		log.Fatalf("%s: %v", path, err)
	}
	for _, r := range result.Regions {
		fmt.Println(r.Box.X, r.Box.Y, r.Box.Width, r.Box.Height, cmp.Or(r.Text, r.Label))
	}
}
