package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"image"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/lane/pool"
)

// TestDocs_CustomKind builds the lane programs of detect and classify with the model
// kinds of the guide in docs/models.md, and runs a model of each kind.
func TestDocs_CustomKind(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join(root(t), "docs", "models.md"))
	if err != nil {
		t.Fatal(err)
	}
	// A file begins with its path. The line for New is in the next block of code.
	file := regexp.MustCompile("(?s)```go\n// (services/\\S+)\n(.*?)```.*?```go\n(\tcase .*?)```")
	files := file.FindAllStringSubmatch(string(page), -1)
	if len(files) != 2 {
		t.Fatalf("the guide has %d files with a line for New, want 2: one for each stage", len(files))
	}
	// The build uses an overlay; the source does not change.
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	scratch := t.TempDir()
	addOverlay := func(path, content string) {
		file := filepath.Join(scratch, strings.ReplaceAll(path, "/", "_"))
		writeFiles(t, scratch, map[string]string{filepath.Base(file): content})
		overlay.Replace[filepath.Join(root(t), path)] = file
	}
	for _, f := range files {
		addOverlay(f[1], f[2])
		path := filepath.Join(filepath.Dir(f[1]), "decoders.go")
		source, err := os.ReadFile(filepath.Join(root(t), path))
		if err != nil {
			t.Fatal(err)
		}
		before, after, ok := strings.Cut(string(source), "\t}\n\treturn nil, fmt.Errorf(\"kind: ")
		if !ok {
			t.Fatalf("%s has no place for a new kind", path)
		}
		addOverlay(path, before+f[3]+"\t}\n\treturn nil, fmt.Errorf(\"kind: "+after)
	}
	description, err := json.Marshal(overlay)
	if err != nil {
		t.Fatal(err)
	}
	writeFiles(t, scratch, map[string]string{"overlay.json": string(description)})
	build := exec.Command("go", "build", "-overlay", filepath.Join(scratch, "overlay.json"), "-o", scratch+"/",
		"./services/detect", "./services/classify")
	build.Dir = root(t)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("the code of the guide does not build: %v\n%s", err, out)
	}

	writeFiles(t, filepath.Join(scratch, "cells"), map[string]string{
		"model.yaml": `
version: "1"
kind: grid
engines: [opencv]
weights: n.caffemodel
config: n.prototxt
labels: labels.txt
input: {width: 4, height: 2, resize: stretch, channels: grey, scale: 0.01}
threshold: 0.5
classes: 1
`,
		"labels.txt": "spot\n", "n.caffemodel": "\x0a\x01n", "n.prototxt": identity(1, 2, 4),
	})
	img := image.NewGray(image.Rect(0, 0, 4, 2))
	img.Pix[6] = 90 // the third cell of the second row
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	l := acquireLane(t, subject.Detect, filepath.Join(scratch, "detect"), scratch, "cells")
	found, _, err := l.Detect(t.Context(), lane.Detect{Pipeline: "own", MediaType: "image/png", MaxRegions: 10},
		b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if want := []lane.Region{{Box: v1.Box{X: 2, Y: 1, Width: 1, Height: 1}, Score: 0.9,
		Label: "spot"}}; !reflect.DeepEqual(found.Regions, want) {
		t.Errorf("found %+v, want %+v", found.Regions, want)
	}

	writeFiles(t, filepath.Join(scratch, "bright"), map[string]string{
		"model.yaml": `
version: "1"
kind: yes-no
engines: [opencv]
weights: n.caffemodel
config: n.prototxt
labels: labels.txt
input: {width: 1, height: 1, resize: stretch, channels: grey, scale: 0.01}
threshold: 0.5
classes: 1
`,
		"labels.txt": "bright\n", "n.caffemodel": "\x0a\x01n", "n.prototxt": identity(1, 1, 1),
	})
	l = acquireLane(t, subject.Classify, filepath.Join(scratch, "classify"), scratch, "bright")
	crop := lane.Crop{Width: 1, Height: 1, Channels: 1}
	named, err := l.Classify(t.Context(), lane.Classify{Pipeline: "own", Crops: []lane.Crop{crop, crop}},
		[]byte{75, 10})
	if err != nil {
		t.Fatal(err)
	}
	if len(named.Answers) != 2 {
		t.Fatalf("%d results, want 2", len(named.Answers))
	}
	if labels := named.Answers[0].Labels; len(labels) != 1 || labels[0].Label != "bright" {
		t.Errorf("the bright crop has the labels %+v, want bright", labels)
	}
	if labels := named.Answers[1].Labels; len(labels) != 0 {
		t.Errorf("the dark crop has the labels %+v, want none", labels)
	}
}

// identity returns a Caffe network whose output is its input.
func identity(channels, height, width int) string {
	return fmt.Sprintf(`
name: "n"
input: "data"
input_shape { dim: 1 dim: %d dim: %d dim: %d }
layer { name: "out" type: "Power" bottom: "data" top: "out" power_param { scale: 1 } }
`, channels, height, width)
}

// acquireLane starts a lane program with the pipeline "own", which runs a model, and
// returns a lane. The lane is stopped when the test ends.
func acquireLane(t *testing.T, stage subject.Stage, program, models, name string) *pool.Lane {
	t.Helper()
	settings, err := json.Marshal(map[string]string{"model": name})
	if err != nil {
		t.Fatal(err)
	}
	p, err := pool.New(pool.Config{
		Stage: stage, Lanes: 1, Models: models, StartTimeout: time.Minute,
		Programs: []pool.Program{{Name: "own", Argv: []string{program, "lane"}, Pipelines: map[string]pool.Pipeline{
			"own": {Setup: lane.Setup{Kind: "model", Settings: settings}, Timeout: time.Minute},
		}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	<-p.Ready()
	if s := p.Status()["own"]; !s.Ready {
		t.Fatalf("the pipeline of %s is not ready: %s", name, s.Reason)
	}
	l, err := p.Acquire(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Release)
	return l
}
