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
	span := trace.SpanFromContext(ctx)
	span.SetAttributes(telemetry.ImageAttributes(len(d.Body), header.Width, header.Height)...)
	var digest [sha256.Size]byte
	var summing sync.WaitGroup
	summing.Go(func() { digest = sha256.Sum256(d.Body) }) // while the lane works
	found, pixels, err := l.Detect(ctx, p.DetectRequest(header.Type), d.Body)
	summing.Wait()
	if err != nil {
		return nil, err
	}
	span.SetAttributes(telemetry.AttrRegions.Int(len(found.Regions)))

	facts := v1.Crops{
		Image: v1.Image{
			Type: header.Type, Width: found.Width, Height: found.Height,
			Bytes: len(d.Body), SHA256: hex.EncodeToString(digest[:]), Orientation: found.Orientation, Damage: found.Damage,
		},
		Models:  l.Models(p.Name),
		Timings: v1.Timings{Queue: d.QueueMS(), Decode: found.Timing.DecodeMS, Detect: found.Timing.InferMS},
		Parts:   1,
	}
	if len(found.Crops) == 0 {
		return result(ctx, d, p, facts, found.Regions)
	}
	return cropMessages(d, p, facts, found, pixels)
}

// result returns the result of an image whose regions are all there is to say.
func result(ctx context.Context, d *consume.Delivery, p pipeline.Pipeline, facts v1.Crops, found []lane.Region) ([]bus.Message, error) {
	part := v1.Part{Parts: 1, Image: facts.Image, Models: facts.Models, Timings: facts.Timings}
	for i, r := range found {
		part.Regions = append(part.Regions, unclassified(i, r, facts.Image))
	}
	m, err := outcome.Message(ctx, d.Header, outcome.Join(d.Job.ID, p, []v1.Part{part}))
	if err != nil {
		return nil, err
	}
	return []bus.Message{m}, nil
}

// unclassified returns a region of an image as it was found.
func unclassified(number int, r lane.Region, image v1.Image) v1.PartRegion {
	return v1.PartRegion{Number: number, Region: v1.Region{
		Box: r.Box, Fraction: r.Box.In(image.Width, image.Height), Polygon: r.Polygon,
		Score: r.Score, Label: r.Label, Text: r.Text, Landmarks: r.Landmarks,
	}}
}

// maxPixels keeps a CROPS message below what a server takes.
const maxPixels = streams.MaxMessage / 2

// cropMessages spreads the crops of a picture over messages of at most K of
// them, and of at most maxPixels where crops are large. Regions without a crop travel
// in the message of the crop before them, or of the first.
func cropMessages(d *consume.Delivery, p pipeline.Pipeline, facts v1.Crops, found lane.Detected, pixels []byte) ([]bus.Message, error) {
	crops, err := cropsOf(found)
	if err != nil {
		return nil, err
	}
	groups := split(crops, p.CropsPerMessage, maxPixels)
	facts.Parts = len(groups)
	msgs := make([]bus.Message, 0, len(groups))
	next := 0 // number of the first region that is in no message yet
	for i, g := range groups {
		end := len(found.Regions)
		if i+1 < len(groups) {
			end = groups[i+1][0].Region
		}
		facts.Part, facts.Crops, facts.Regions = i, g, without(g, found.Regions, next, end, facts.Image)
		next = end
		n := 0
		for _, c := range g {
			n += c.Size()
		}
		body, err := facts.Encode(pixels[:n])
		if err != nil {
			return nil, err
		}
		if len(body) > streams.MaxMessage {
			return nil, v1.NewProblem(v1.Internal,
				"%d crops and %d other regions have %d bytes, more than a message may have",
				len(facts.Crops), len(facts.Regions), len(body)).WithLimit(streams.MaxMessage)
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

// without returns the regions from one number to before another that are not those of
// crops.
func without(crops []v1.Crop, regions []lane.Region, from, to int, image v1.Image) (others []v1.PartRegion) {
	for number := from; number < to; number++ {
		if len(crops) > 0 && crops[0].Region == number {
			crops = crops[1:]
			continue
		}
		others = append(others, unclassified(number, regions[number], image))
	}
	return others
}

// cropsOf puts the lane's regions and the shapes of their pixels together.
func cropsOf(found lane.Detected) ([]v1.Crop, error) {
	crops := make([]v1.Crop, len(found.Crops))
	for i, c := range found.Crops {
		r := found.Regions[c.Region]
		crops[i] = v1.Crop{
			Region: c.Region, Box: r.Box, Polygon: r.Polygon, Score: r.Score,
			Label: r.Label, Text: r.Text, Landmarks: r.Landmarks,
			Source: c.Source, Width: c.Width, Height: c.Height, Channels: c.Channels,
		}
		if n := crops[i].Size(); n > maxPixels {
			return nil, v1.NewProblem(v1.Internal,
				"the lane sent a crop of %d bytes for region %d, more than a message has room for",
				n, c.Region).WithLimit(maxPixels)
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
