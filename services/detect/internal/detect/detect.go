// Package detect is the detect service: it checks an image, lets a lane find the regions,
// and makes the messages with the crops, or with the result.
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

// New returns a handler for the pipelines. Images outside the limits fail before they reach
// a lane. The limits are checked here because other clients than ingress can publish images.
func New(pipelines []pipeline.Pipeline, limits imagefile.Limits) *Handler {
	h := &Handler{pipelines: map[string]pipeline.Pipeline{}, limits: limits}
	for _, p := range pipelines {
		h.pipelines[p.Name] = p
	}
	return h
}

// Process returns the CROPS messages of an image, or its result when no region was found or
// none is to be classified.
func (h *Handler) Process(ctx context.Context, l *pool.Lane, d *consume.Delivery) ([]bus.Message, error) {
	p := h.pipelines[d.Job.Pipeline]
	header, err := imagefile.Inspect(d.Body, h.limits)
	if err != nil {
		return nil, err
	}
	span := trace.SpanFromContext(ctx)
	span.SetAttributes(telemetry.ImageAttributes(len(d.Body), header.Width, header.Height)...)
	var digest [sha256.Size]byte
	var hashing sync.WaitGroup
	hashing.Go(func() { digest = sha256.Sum256(d.Body) }) // while the lane runs
	found, pixels, err := l.Detect(ctx, p.DetectRequest(header.Type), d.Body)
	hashing.Wait()
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
		return resultMessages(ctx, d, p, facts, found.Regions)
	}
	return cropMessages(d, p, facts, found, pixels)
}

// resultMessages returns the result of an image that has no crops to classify.
func resultMessages(
	ctx context.Context, d *consume.Delivery, p pipeline.Pipeline, facts v1.Crops, found []lane.Region,
) ([]bus.Message, error) {
	part := v1.Part{Parts: 1, Image: facts.Image, Models: facts.Models, Timings: facts.Timings}
	for i, r := range found {
		part.Regions = append(part.Regions, unclassifiedRegion(i, r, facts.Image))
	}
	m, err := outcome.Message(ctx, d.Header, outcome.Join(d.Job.ID, p, []v1.Part{part}))
	if err != nil {
		return nil, err
	}
	return []bus.Message{m}, nil
}

// unclassifiedRegion returns a region as the detector found it.
func unclassifiedRegion(number int, r lane.Region, image v1.Image) v1.PartRegion {
	return v1.PartRegion{Number: number, Region: v1.Region{
		Box: r.Box, Fraction: r.Box.Fraction(image.Width, image.Height), Polygon: r.Polygon,
		Score: r.Score, Label: r.Label, Text: r.Text, Landmarks: r.Landmarks,
	}}
}

// maxPixelBytes limits the pixels in a CROPS message, in bytes, so that the message stays below
// the limit of the server.
const maxPixelBytes = streams.MaxMessage / 2

// cropMessages distributes the crops of an image to messages of at most CropsPerMessage
// crops and maxPixelBytes bytes. A region without a crop is in the message of the crop before
// it, or in the first message.
func cropMessages(
	d *consume.Delivery, p pipeline.Pipeline, facts v1.Crops, found lane.Detected, pixels []byte,
) ([]bus.Message, error) {
	crops, err := combineCrops(found)
	if err != nil {
		return nil, err
	}
	groups := groupCrops(crops, p.CropsPerMessage, maxPixelBytes)
	facts.Parts = len(groups)
	msgs := make([]bus.Message, 0, len(groups))
	next := 0 // number of the first region that is not in a message yet
	for i, g := range groups {
		end := len(found.Regions)
		if i+1 < len(groups) {
			end = groups[i+1][0].Region
		}
		facts.Part, facts.Crops, facts.Regions = i, g, regionsWithoutCrops(g, found.Regions, next, end, facts.Image)
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
			ID: v1.MsgID(job.ID, v1.MsgCrops, i), Header: bus.CopyHeaders(d.Header), Body: body, Deadline: d.Deadline,
		})
	}
	return msgs, nil
}

// regionsWithoutCrops returns the regions from number from to number to-1 that have no crop.
func regionsWithoutCrops(
	crops []v1.Crop, regions []lane.Region, from, to int, image v1.Image,
) (others []v1.PartRegion) {
	for number := from; number < to; number++ {
		if len(crops) > 0 && crops[0].Region == number {
			crops = crops[1:]
			continue
		}
		others = append(others, unclassifiedRegion(number, regions[number], image))
	}
	return others
}

// combineCrops combines the regions that the lane found with the shapes of their pixels.
func combineCrops(found lane.Detected) ([]v1.Crop, error) {
	crops := make([]v1.Crop, len(found.Crops))
	for i, c := range found.Crops {
		r := found.Regions[c.Region]
		crops[i] = v1.Crop{
			Region: c.Region, Box: r.Box, Polygon: r.Polygon, Score: r.Score,
			Label: r.Label, Text: r.Text, Landmarks: r.Landmarks,
			Source: c.Source, Width: c.Width, Height: c.Height, Channels: c.Channels,
		}
		if n := crops[i].Size(); n > maxPixelBytes {
			return nil, v1.NewProblem(v1.Internal,
				"the lane sent a crop of %d bytes for region %d, more than a message has room for",
				n, c.Region).WithLimit(maxPixelBytes)
		}
	}
	return crops, nil
}

// groupCrops divides crops, in order, into groups of at most n crops and size bytes. A crop
// larger than size is a group of its own.
func groupCrops(crops []v1.Crop, n, size int) [][]v1.Crop {
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

// Fail returns the result of a job that failed. It is the result of the whole job, because
// the job has no parts yet.
func (h *Handler) Fail(ctx context.Context, d *consume.Delivery, p *v1.Problem) (bus.Message, error) {
	return outcome.Message(ctx, d.Header, outcome.NewFailed(d.Job, p))
}
