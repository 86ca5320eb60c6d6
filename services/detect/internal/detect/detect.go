// Package detect is the detect service: it checks a picture, has a lane find
// the regions, and says what follows from them.
package detect

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"sync"

	"go.opentelemetry.io/otel/trace"

	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/lane/pipeline"
	"github.com/sightmesh/sightmesh/lane/pool"
	"github.com/sightmesh/sightmesh/services/internal/bus"
	"github.com/sightmesh/sightmesh/services/internal/consume"
	"github.com/sightmesh/sightmesh/services/internal/imagefile"
	"github.com/sightmesh/sightmesh/services/internal/outcome"
	"github.com/sightmesh/sightmesh/services/internal/telemetry"
)

// Handler processes the images of detect.
type Handler struct {
	pipelines map[string]pipeline.Pipeline
	limits    imagefile.Limits
}

// New returns a handler for the pipelines. Images outside the limits fail
// without reaching a lane: not all of them came through ingress.
func New(pipelines []pipeline.Pipeline, limits imagefile.Limits) *Handler {
	h := &Handler{pipelines: map[string]pipeline.Pipeline{}, limits: limits}
	for _, p := range pipelines {
		h.pipelines[p.Name] = p
	}
	return h
}

// Process returns the CROPS messages of an image, or its result when nothing
// was found or nothing is to be classified.
func (h *Handler) Process(ctx context.Context, l *pool.Lane, d *consume.Delivery) ([]bus.Message, error) {
	p := h.pipelines[d.Job.Pipeline]
	header, err := imagefile.Inspect(d.Body, h.limits)
	if err != nil {
		return nil, err
	}
	var digest [sha256.Size]byte
	var summing sync.WaitGroup
	summing.Go(func() { digest = sha256.Sum256(d.Body) }) // while the lane works
	found, pixels, err := l.Detect(ctx, lane.Detect{
		Pipeline: p.Name, MediaType: header.Type, MaxRegions: p.MaxRegions, Crops: p.Classify != nil,
	}, d.Body)
	summing.Wait()
	if err != nil {
		return nil, err
	}
	trace.SpanFromContext(ctx).SetAttributes(telemetry.AttrRegions.Int(len(found.Regions)))

	facts := v1.Crops{
		Image: v1.Image{
			Type: header.Type, Width: found.Width, Height: found.Height,
			Bytes: len(d.Body), SHA256: hex.EncodeToString(digest[:]), Orientation: found.Orientation, Damage: found.Damage,
		},
		Models:  l.Models(p.Name),
		Timings: v1.Timings{Queue: d.QueueMS(), Decode: found.Timing.DecodeMS, Detect: found.Timing.InferMS},
		Parts:   1,
	}
	if len(found.Regions) == 0 || p.Classify == nil {
		return result(ctx, d, p, facts, found.Regions)
	}
	return cropMessages(d, p, facts, found, pixels)
}

// result returns the result of an image whose regions are all there is to say.
func result(ctx context.Context, d *consume.Delivery, p pipeline.Pipeline, facts v1.Crops, found []lane.Region) ([]bus.Message, error) {
	part := v1.Part{Parts: 1, Image: facts.Image, Models: facts.Models, Timings: facts.Timings}
	for i, r := range found {
		part.Regions = append(part.Regions, v1.PartRegion{Number: i, Region: v1.Region{
			Box: r.Box, Fraction: r.Box.In(facts.Image.Width, facts.Image.Height), Polygon: r.Polygon,
			Score: r.Score, Label: r.Label, Text: r.Text, Landmarks: r.Landmarks,
		}})
	}
	m, err := outcome.Message(ctx, d.Header, outcome.Join(d.Job.ID, p, []v1.Part{part}))
	if err != nil {
		return nil, err
	}
	return []bus.Message{m}, nil
}

// maxPixels keeps a CROPS message below what a server takes.
const maxPixels = streams.MaxMessage / 2

// cropMessages spreads the crops of a picture over messages of at most K of
// them, and of at most maxPixels where crops are large.
func cropMessages(d *consume.Delivery, p pipeline.Pipeline, facts v1.Crops, found lane.Detected, pixels []byte) ([]bus.Message, error) {
	crops, err := cropsOf(found, len(pixels))
	if err != nil {
		return nil, err
	}
	groups := split(crops, p.CropsPerMessage, maxPixels)
	facts.Parts = len(groups)
	msgs := make([]bus.Message, 0, len(groups))
	for i, g := range groups {
		facts.Part, facts.Crops = i, g
		n := 0
		for _, c := range g {
			n += c.Size()
		}
		body, err := facts.Encode(pixels[:n])
		if err != nil {
			return nil, err
		}
		pixels = pixels[n:]
		job := d.Job
		job.Part = i
		msgs = append(msgs, bus.Message{
			Subject: subject.Crops(job), Stream: streams.Crops,
			ID: v1.MsgID(job.ID, v1.MsgCrops, i), Header: bus.Travel(d.Header), Body: body, Deadline: d.Deadline,
		})
	}
	return msgs, nil
}

// cropsOf puts the lane's regions and the shapes of their pixels together. A
// lane may be anybody's program, so that what it says is checked.
func cropsOf(found lane.Detected, pixels int) ([]v1.Crop, error) {
	if len(found.Crops) != len(found.Regions) {
		return nil, v1.NewProblem(v1.Internal, "the lane found %d regions and sent %d crops", len(found.Regions), len(found.Crops))
	}
	crops := make([]v1.Crop, len(found.Crops))
	for i, c := range found.Crops {
		r := found.Regions[i]
		if c.Width < 1 || c.Height < 1 || c.Width > v1.MaxCropSide || c.Height > v1.MaxCropSide || (c.Channels != 1 && c.Channels != 3) {
			return nil, v1.NewProblem(v1.Internal, "the lane sent a crop of %d x %d x %d", c.Width, c.Height, c.Channels)
		}
		crops[i] = v1.Crop{
			Region: i, Box: r.Box, Polygon: r.Polygon, Score: r.Score, Label: r.Label, Text: r.Text, Landmarks: r.Landmarks,
			Source: c.Source, Width: c.Width, Height: c.Height, Channels: c.Channels,
		}
		if pixels -= crops[i].Size(); pixels < 0 || crops[i].Size() > maxPixels {
			return nil, v1.NewProblem(v1.Internal, "the lane sent crop %d with %d bytes too many or too few", i, -pixels)
		}
	}
	return crops, nil
}

// split cuts crops, in order, into groups of at most n crops and size bytes.
// A crop larger than size is a group of its own.
func split(crops []v1.Crop, n, size int) [][]v1.Crop {
	var groups [][]v1.Crop
	start, bytes := 0, 0
	for i, c := range crops {
		if i > start && (i-start == n || bytes+c.Size() > size) {
			groups = append(groups, crops[start:i])
			start, bytes = i, 0
		}
		bytes += c.Size()
	}
	return append(groups, crops[start:])
}

// Fail returns the result of a job that failed: detect is before the image is
// split.
func (h *Handler) Fail(ctx context.Context, d *consume.Delivery, p *v1.Problem) (bus.Message, error) {
	return outcome.Message(ctx, d.Header, outcome.Failed(d.Job, p))
}
