// Command ogen uses the client that ogen generates.
//
//	ogen ADDRESS IMAGE
//
// It posts the image, reads the result of the job, and posts the image to a pipeline that
// does not exist. It prints the status, the number of regions and the code of the problem.
package main

import (
	"bytes"
	"context"
	"fmt"
	"os"

	"github.com/sightmesh/sightmesh/tools/e2e/generators/ogen/api"
)

func main() {
	if err := run(context.Background(), os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "ogen:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, address, file string) error {
	image, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	client, err := api.NewClient(address)
	if err != nil {
		return err
	}
	post := func(pipeline string) (api.PostImageRes, error) {
		body := &api.PostImageReqImageWithContentType{
			ContentType: "image/png", Content: api.PostImageReqImage{Data: bytes.NewReader(image)},
		}
		return client.PostImage(ctx, body, api.PostImageParams{Pipeline: api.NewOptString(pipeline)})
	}
	posted, err := post("codes")
	if err != nil {
		return fmt.Errorf("post an image: %w", err)
	}
	result, ok := posted.(*api.ResultHeaders)
	if !ok {
		return fmt.Errorf("post an image: got %T", posted)
	}
	got, err := client.GetImage(ctx, api.GetImageParams{ID: result.Response.ID})
	if err != nil {
		return fmt.Errorf("get the result: %w", err)
	}
	again, ok := got.(*api.GetImageOKHeaders)
	if !ok {
		return fmt.Errorf("get the result: got %T", got)
	}
	rejected, err := post("nosuch")
	if err != nil {
		return fmt.Errorf("post to no pipeline: %w", err)
	}
	problem, ok := rejected.(*api.PostImageNotFound)
	if !ok {
		return fmt.Errorf("post to no pipeline: got %T", rejected)
	}
	fmt.Println(again.Response.Status, len(again.Response.Regions), problem.Response.Code)
	return nil
}
