// Package classify is the classify service: it lets a lane classify the crops of an image,
// and converts the boxes in the outcome to pixels of the image.
package classify

import (
	"context"
	"encoding/json"
	"fmt"
	"image"
	"math"

	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/lane/pipeline"
	"github.com/sightmesh/sightmesh/lane/pool"
	"github.com/sightmesh/sightmesh/services/internal/bus"
	"github.com/sightmesh/sightmesh/services/internal/consume"
	"github.com/sightmesh/sightmesh/services/internal/outcome"
)

// Handler processes the crops of classify.
type Handler struct {
	pipelines map[string]pipeline.Pipeline
}

// New returns a handler for the pipelines.
func New(pipelines []pipeline.Pipeline) *Handler {
	h := &Handler{pipelines: map[string]pipeline.Pipeline{}}
	for _, p := range pipelines {
		h.pipelines[p.Name] = p
	}
	return h
}

// Process returns the message with the result of an image, or with the part of the result
// that belongs to the delivery.
func (h *Handler) Process(ctx context.Context, l *pool.Lane, d *consume.Delivery) ([]bus.Message, error) {
	crops, pixels, err := v1.DecodeCrops(d.Body)
	if err != nil {
		return nil, v1.NewProblem(v1.InvalidMessage, "%v", err)
	}
	shapes := make([]lane.Crop, len(crops.Crops))
	for i, c := range crops.Crops {
		shapes[i] = lane.Crop{Region: c.Region, Width: c.Width, Height: c.Height, Channels: c.Channels, Label: c.Label}
	}
	named, err := l.Classify(ctx, lane.Classify{Pipeline: d.Job.Pipeline, Crops: shapes}, pixels)
	if err != nil {
		return nil, err
	}
	part := newPart(crops, d)
	part.Models = append(part.Models, l.Models(d.Job.Pipeline)...)
	part.Timings.Classify = sum(named.Timing.DecodeMS, named.Timing.InferMS)
	classified, err := combineRegions(crops, named.Answers)
	if err != nil {
		return nil, err
	}
	part.Regions = append(part.Regions, classified...)
	m, err := h.message(ctx, d, part)
	if err != nil {
		return nil, err
	}
	return []bus.Message{m}, nil
}

// newPart returns a part with what the CROPS message says about the image, and with the
// regions that are not classified.
func newPart(c v1.Crops, d *consume.Delivery) v1.Part {
	part := v1.Part{
		Part: c.Part, Parts: c.Parts, Image: c.Image, Models: c.Models, Timings: c.Timings, Regions: c.Regions,
	}
	part.Timings.Queue = sum(c.Timings.Queue, d.QueueMS())
	return part
}

// sum returns the sum of two times in milliseconds, with three decimals as each of them.
func sum(a, b float64) float64 { return math.Round((a+b)*1000) / 1000 }

// message returns the message with the result if the job has one part. Otherwise it returns
// the message with the part, which the service results joins.
func (h *Handler) message(ctx context.Context, d *consume.Delivery, part v1.Part) (bus.Message, error) {
	if part.Parts == 1 {
		return outcome.Message(ctx, d.Header, outcome.Join(d.Job.ID, h.pipelines[d.Job.Pipeline], []v1.Part{part}))
	}
	body, err := json.Marshal(part)
	if err != nil {
		return bus.Message{}, fmt.Errorf("encode part %d of %s: %w", part.Part, d.Job.ID, err)
	}
	return bus.Message{
		Subject: subject.Parts(d.Job), Stream: streams.Parts,
		ID: v1.MsgID(d.Job.ID, v1.MsgParts, part.Part), Header: bus.CopyHeaders(d.Header), Body: body, Deadline: d.Deadline,
	}, nil
}

// Fail returns the message with the result of a job that failed. If the job has several
// parts, it returns the failed part: the result is published when all parts have arrived.
func (h *Handler) Fail(ctx context.Context, d *consume.Delivery, p *v1.Problem) (bus.Message, error) {
	crops, _, err := v1.DecodeCrops(d.Body)
	if err != nil {
		return outcome.Message(ctx, d.Header, outcome.NewFailed(d.Job, p))
	}
	part := newPart(crops, d)
	part.Problem = p
	return h.message(ctx, d, part)
}

// combineRegions combines the outcomes of the detector and the classifier for each crop.
func combineRegions(crops v1.Crops, labels []lane.CropLabel) ([]v1.PartRegion, error) {
	if len(labels) != len(crops.Crops) {
		return nil, v1.NewProblem(v1.Internal,
			"the lane returned %d labels for %d crops", len(labels), len(crops.Crops))
	}
	out := make([]v1.PartRegion, 0, len(labels))
	for i, a := range labels {
		c := crops.Crops[i]
		if a.Drop {
			continue
		}
		r := v1.Region{
			Box: c.Box, Fraction: c.Box.Fraction(crops.Image.Width, crops.Image.Height), Polygon: c.Polygon,
			Score: c.Score, Label: c.Label, Labels: a.Labels, Landmarks: c.Landmarks, Text: c.Text,
			Embedding: a.Embedding,
		}
		if a.Text != "" {
			r.Text, r.Score = a.Text, a.Score
		}
		for _, w := range a.Words {
			r.Words = append(r.Words, v1.Word{Box: cropToImage(w.Box, c), Text: w.Text, Score: w.Score})
		}
		out = append(out, v1.PartRegion{Number: c.Region, Region: r})
	}
	return out, nil
}

// cropToImage converts a box in pixels of a crop to pixels of the image.
func cropToImage(b v1.Box, c v1.Crop) v1.Box {
	if len(c.Polygon) == 4 {
		return polygonToImage(b, c)
	}
	source := c.Box
	if c.Source != nil {
		source = *c.Source
	}
	sx, sy := float64(source.Width)/float64(c.Width), float64(source.Height)/float64(c.Height)
	x0, y0 := float64(b.X)*sx, float64(b.Y)*sy
	x1, y1 := float64(b.X+b.Width)*sx, float64(b.Y+b.Height)*sy
	return v1.Box{
		X: source.X + int(x0), Y: source.Y + int(y0),
		Width: max(1, int(x1+0.5)-int(x0)), Height: max(1, int(y1+0.5)-int(y0)),
	}
}

// polygonToImage is cropToImage for a crop between the four corners of a polygon. It returns the
// smallest upright box around the place in the image, clipped to the box of the crop.
func polygonToImage(b v1.Box, c v1.Crop) v1.Box {
	corner := func(i int) (x, y float64) { return float64(c.Polygon[i].X), float64(c.Polygon[i].Y) }
	x0, y0 := corner(0)
	x1, y1 := corner(1)
	x2, y2 := corner(2)
	x3, y3 := corner(3)
	left, top := math.Inf(1), math.Inf(1)
	right, bottom := math.Inf(-1), math.Inf(-1)
	for _, p := range [][2]int{{b.X, b.Y}, {b.X + b.Width, b.Y}, {b.X + b.Width, b.Y + b.Height}, {b.X, b.Y + b.Height}} {
		u, v := float64(p[0])/float64(c.Width), float64(p[1])/float64(c.Height)
		x := (1-v)*((1-u)*x0+u*x1) + v*((1-u)*x3+u*x2)
		y := (1-v)*((1-u)*y0+u*y1) + v*((1-u)*y3+u*y2)
		left, right = min(left, x), max(right, x)
		top, bottom = min(top, y), max(bottom, y)
	}
	in := image.Rect(c.Box.X, c.Box.Y, c.Box.X+c.Box.Width, c.Box.Y+c.Box.Height)
	place := image.Rect(int(math.Floor(left)), int(math.Floor(top)), int(math.Ceil(right)), int(math.Ceil(bottom)))
	if place = place.Intersect(in); place.Empty() {
		return c.Box
	}
	return v1.Box{X: place.Min.X, Y: place.Min.Y, Width: place.Dx(), Height: place.Dy()}
}
