package e2e

import (
	"bytes"
	"image"
	"image/png"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// labelledModel describes the network rows with three classes. Each row of an image is
// a region: 0, class, score, left, top, right and bottom. The pixel value 50 is 1.
const labelledModel = `
version: "7"
kind: ssd
engines: [opencv]
weights: rows.caffemodel
config: rows.prototxt
labels: labels.txt
input: {width: 7, height: 4, resize: stretch, channels: grey, scale: 0.02}
threshold: 0.5
classes: 4
`

// labelPipelines are pipelines that find the same regions. Each CROPS message of
// "labels" has one crop, so that results joins the parts.
const labelPipelines = `
pipelines:
  - name: plain
    detect: {kind: model, settings: {model: labelled}}
  - name: labels
    crops_per_message: 1
    detect: {kind: model, settings: {model: labelled, channels: bgr}}
    classify:
      by_label:
        person: {kind: model, settings: {model: colours, threshold: 0.001}}
        car: {kind: model, settings: {model: shades, threshold: 0.001}}
  - name: together
    detect: {kind: model, settings: {model: labelled, channels: bgr}}
    classify:
      by_label:
        person: {kind: model, settings: {model: colours, threshold: 0.001}}
  - name: unwanted
    detect: {kind: model, settings: {model: labelled}}
    classify:
      by_label:
        cat: {kind: model, settings: {model: colours}}
`

// TestPipelines_ClassifierOfEachLabel checks that each region is classified by the
// classifier of its label. A region whose label has no classifier stays unchanged and in
// its place. The images have several parts, one part and no part.
func TestPipelines_ClassifierOfEachLabel(t *testing.T) {
	models := t.TempDir()
	writeFiles(t, filepath.Join(models, "labelled"), rowsModel)
	writeFiles(t, filepath.Join(models, "labelled"), map[string]string{
		"model.yaml": labelledModel, "labels.txt": "background\nperson\ncar\ndog\n",
	})
	writeFiles(t, filepath.Join(models, "colours"), coloursModel)
	writeFiles(t, filepath.Join(models, "shades"), coloursModel)
	writeFiles(t, filepath.Join(models, "shades"), map[string]string{"labels.txt": "dark\nmiddle\nlight\n"})
	writeFiles(t, models, map[string]string{"pipelines.yaml": labelPipelines})
	m := start(t, nil, "--pipelines", filepath.Join(models, "pipelines.yaml"), "--models", models)
	for name, p := range m.awaitPipelines(t) {
		if !p.Ready {
			t.Fatalf("pipeline %s is not ready: %s", name, p.Reason)
		}
	}
	img := image.NewGray(image.Rect(0, 0, 7, 4))
	const person, car, dog = 50, 100, 150
	copy(img.Pix, []byte{
		0, dog, 45, 0, 0, 10, 50, // from the left: dog, person, dog, car
		0, person, 40, 8, 0, 20, 50,
		0, dog, 35, 22, 0, 30, 50,
		0, car, 30, 36, 0, 50, 50,
	})
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	found := m.postDone(t, "?pipeline=plain", b.Bytes()).Regions
	if labels := labels(found); !reflect.DeepEqual(labels, []string{"dog", "person", "dog", "car"}) {
		t.Fatalf("the detector finds %v, want dog, person, dog, car", labels)
	}
	detector := v1.Model{Name: "labelled", Version: "7"}
	colours, shades := v1.Model{Name: "colours", Version: "3"}, v1.Model{Name: "shades", Version: "3"}
	for name, tt := range map[string]struct {
		classifier map[string]v1.Model // by label
		models     []v1.Model
	}{
		"labels":   {map[string]v1.Model{"person": colours, "car": shades}, []v1.Model{detector, shades, colours}},
		"together": {map[string]v1.Model{"person": colours}, []v1.Model{detector, colours}},
		"unwanted": {nil, []v1.Model{detector}},
	} {
		r := m.postDone(t, "?pipeline="+name, b.Bytes())
		if !reflect.DeepEqual(r.Models, tt.models) {
			t.Errorf("%s: models %+v, want %+v", name, r.Models, tt.models)
		}
		if len(r.Regions) != len(found) {
			t.Errorf("%s: regions %v, want %v", name, labels(r.Regions), labels(found))
			continue
		}
		for i, region := range r.Regions {
			named := ""
			switch {
			case hasLabel(region, "red"):
				named = "colours"
			case hasLabel(region, "dark"):
				named = "shades"
			}
			if want := tt.classifier[region.Label].Name; named != want {
				t.Errorf("%s: region %d, %s, is classified by %q, want %q", name, i, region.Label, named, want)
			}
			region.Labels = nil
			if !reflect.DeepEqual(region, found[i]) {
				t.Errorf("%s: region %d is %+v, want %+v as the detector has found it", name, i, region, found[i])
			}
		}
	}
}

// TestPipelines_DefaultPriority checks that an image has the priority of its pipeline,
// over HTTP and over NATS, unless the request sets a priority.
func TestPipelines_DefaultPriority(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pipelines.yaml")
	writeFiles(t, filepath.Dir(file), map[string]string{"pipelines.yaml": `
pipelines:
  - {name: usual, detect: {kind: text-lines}}
  - {name: patient, priority: bulk, detect: {kind: text-lines}}
`})
	m := start(t, nil, "--pipelines", file)
	nc := m.connect(t)
	images, err := nc.SubscribeSync(subject.Prefix + "images.>")
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	page := samplePage(t)
	request := func(pipeline string) {
		t.Helper()
		if _, err := nc.Request(subject.Analyze(pipeline), page, responseTimeout); err != nil {
			t.Fatalf("request over NATS: %v", err)
		}
	}
	for name, tt := range map[string]struct {
		send func()
		want subject.Priority
	}{
		"default":  {func() { m.postDone(t, "?pipeline=usual", page) }, subject.Interactive},
		"pipeline": {func() { m.postDone(t, "?pipeline=patient", page) }, subject.Bulk},
		"request": {func() { m.postDone(t, "?pipeline=patient&priority=interactive", page) },
			subject.Interactive},
		"default, over NATS":  {func() { request("usual") }, subject.Interactive},
		"pipeline, over NATS": {func() { request("patient") }, subject.Bulk},
	} {
		tt.send()
		stored, err := images.NextMsg(responseTimeout)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		job, err := subject.ParseImages(stored.Subject)
		if err != nil {
			t.Fatal(err)
		}
		if job.Priority != tt.want {
			t.Errorf("%s: the priority is %s, want %s", name, job.Priority, tt.want)
		}
	}
}

func labels(regions []v1.Region) []string {
	labels := make([]string, 0, len(regions))
	for _, r := range regions {
		labels = append(labels, r.Label)
	}
	return labels
}
