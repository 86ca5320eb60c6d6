// Command oapicodegen uses the client that oapi-codegen generates.
//
//	oapicodegen ADDRESS IMAGE
//
// It does and prints the same as command ogen.
package main

import (
	"bytes"
	"context"
	"fmt"
	"os"

	"github.com/sightmesh/sightmesh/tools/e2e/generators/oapicodegen/api"
)

func main() {
	if err := run(context.Background(), os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "oapicodegen:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, address, file string) error {
	image, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	client, err := api.NewClientWithResponses(address)
	if err != nil {
		return err
	}
	post := func(pipeline string) (*api.PostImageResponse, error) {
		params := &api.PostImageParams{Pipeline: &pipeline}
		return client.PostImageWithBodyWithResponse(ctx, params, "image/png", bytes.NewReader(image))
	}
	posted, err := post("codes")
	if err != nil || posted.JSON200 == nil {
		return fmt.Errorf("post an image: %w, or %s", err, posted.Status())
	}
	got, err := client.GetImageWithResponse(ctx, posted.JSON200.Id, nil)
	if err != nil || got.JSON200 == nil || got.JSON200.Regions == nil {
		return fmt.Errorf("get the result: %w, or %s", err, got.Status())
	}
	rejected, err := post("nosuch")
	if err != nil || rejected.ApplicationproblemJSON404 == nil {
		return fmt.Errorf("post to no pipeline: %w, or %s", err, rejected.Status())
	}
	fmt.Println(got.JSON200.Status, len(*got.JSON200.Regions), rejected.ApplicationproblemJSON404.Code)
	return nil
}
