// Command outsider is a program outside the tree: it uses the modules contracts
// and lane as their users do. TestModules_OutsiderBuilds builds and runs it.
//
//	outsider             runs a lane pool with itself as lane program, has it
//	                     detect an image, and prints the region
//	outsider lane        is that lane program
//	outsider URL IMAGE   analyzes an image file on the mesh at a NATS URL with
//	                     the pipeline text, and prints the text
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/png"
	"os"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/sightmesh/sightmesh/contracts/client"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/lane/pool"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var err error
	switch args := os.Args[1:]; {
	case len(args) == 0:
		err = runPool(ctx)
	case len(args) == 1 && args[0] == "lane":
		err = lane.Run(bounds{})
	case len(args) == 2:
		err = analyze(ctx, args[0], args[1])
	default:
		err = errors.New("usage: outsider [lane | URL IMAGE]")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "outsider:", err)
		os.Exit(1)
	}
}

// pipeline is the name of the only pipeline of the lane program.
const pipeline = "bounds"

// runPool runs a lane pool with this program as lane program, and has it detect
// an image.
func runPool(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	p, err := pool.New(pool.Config{
		Stage: subject.Detect, Lanes: 1, StartTimeout: 20 * time.Second,
		Programs: []pool.Program{{
			Name: "outsider", Argv: []string{self, "lane"},
			Pipelines: map[string]pool.Pipeline{pipeline: {Timeout: 20 * time.Second}},
		}},
	})
	if err != nil {
		return err
	}
	runCtx, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- p.Run(runCtx) }()
	err = detect(ctx, p)
	stop()
	return errors.Join(err, <-ended)
}

// detect has the pool detect an image of 20 × 10 pixels and prints the region.
func detect(ctx context.Context, p *pool.Pool) error {
	var file bytes.Buffer
	if err := png.Encode(&file, image.NewGray(image.Rect(0, 0, 20, 10))); err != nil {
		return err
	}
	l, err := p.Acquire(ctx)
	if err != nil {
		return err
	}
	defer l.Release()
	d, _, err := l.Detect(ctx, lane.Detect{Pipeline: pipeline, MediaType: "image/png"}, file.Bytes())
	if err != nil {
		return err
	}
	for _, r := range d.Regions {
		fmt.Printf("%s %d x %d at %d, %d\n", r.Label, r.Box.Width, r.Box.Height, r.Box.X, r.Box.Y)
	}
	return nil
}

// A bounds is a detector that finds one region: the whole image.
type bounds struct{}

// Start names a model for each pipeline.
func (bounds) Start(s lane.Start) (map[string]lane.Loaded, error) {
	loaded := map[string]lane.Loaded{}
	for name := range s.Pipelines {
		loaded[name] = lane.Loaded{Models: []v1.Model{{Name: "bounds", Version: "1"}}}
	}
	return loaded, nil
}

// Detect returns the whole image as a region.
func (bounds) Detect(_ lane.Detect, file []byte) (lane.Detected, [][]byte, error) {
	size, _, err := image.DecodeConfig(bytes.NewReader(file))
	if err != nil {
		return lane.Detected{}, nil, v1.NewProblem(v1.Damaged, "%v", err)
	}
	return lane.Detected{
		Width: size.Width, Height: size.Height,
		Regions: []lane.Region{{Box: v1.Box{Width: size.Width, Height: size.Height}, Score: 1, Label: "bounds"}},
	}, nil, nil
}

// Classify is not called: the pool is of the stage detect.
func (bounds) Classify(lane.Classify, []byte) (lane.Classified, error) {
	return lane.Classified{}, v1.NewProblem(v1.Internal, "outsider has no classifier")
}

// analyze prints the text of an image file.
func analyze(ctx context.Context, url, name string) error {
	file, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	nc, err := nats.Connect(url)
	if err != nil {
		return err
	}
	defer nc.Close()
	c, err := client.New(nc)
	if err != nil {
		return err
	}
	result, err := c.Analyze(ctx, "text", file)
	if err != nil {
		return err
	}
	if result.Text == nil {
		return fmt.Errorf("the result of job %s has no text", result.ID)
	}
	fmt.Println(*result.Text)
	return nil
}
