package lanetest

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane"
)

const (
	// manyRequests is how many requests one process gets in turn.
	manyRequests = 50
	// maxRegions is the default of max_regions of a pipeline.
	maxRegions = 100
)

// checkReady waits until the program is ready, and checks that it serves its
// pipeline.
func checkReady(ctx context.Context, s *suite) error {
	select {
	case <-s.pool.Ready():
	case <-ctx.Done():
		return ctx.Err()
	}
	status := s.pool.Status()[pipelineName]
	if !status.Ready {
		return fmt.Errorf("the program is not ready: %s", status.Reason)
	}
	for i, m := range status.Models {
		if m.Name == "" {
			return fmt.Errorf("pipelines.%s.models.%d.name is empty", pipelineName, i)
		}
	}
	return nil
}

// testImage is a file, and the size of its upright image; 0 when it is not known.
type testImage struct {
	name          string
	file          []byte
	width, height int
}

// generate returns an image of each media type that the program reads.
func (s *suite) generate(width, height int) ([]testImage, error) {
	var out []testImage
	for _, mediaType := range s.program.MediaTypes {
		file, err := encode(drawing(width, height), mediaType)
		if err != nil {
			return nil, err
		}
		out = append(out, testImage{fmt.Sprintf("%s of %d x %d", mediaType, width, height), file, width, height})
	}
	return out, nil
}

// images returns the images of an ordinary size that the program reads.
func (s *suite) images() ([]testImage, error) {
	out, err := s.generate(160, 120)
	for i, file := range s.program.Images {
		out = append(out, testImage{name: fmt.Sprintf("Images[%d]", i), file: file})
	}
	return out, err
}

// detect sends an image to the program, and returns its checked reply.
func (s *suite) detect(ctx context.Context, r lane.Detect, file []byte) (lane.Detected, error) {
	l, err := s.acquire(ctx)
	if err != nil {
		return lane.Detected{}, err
	}
	defer l.Release()
	r.Pipeline, r.MediaType, r.Crops = pipelineName, mediaType(file), s.program.Crops
	if r.MaxRegions == 0 {
		r.MaxRegions = maxRegions
	}
	found, _, err := l.Detect(ctx, r, file)
	return found, err
}

// accept sends images to the program, each of which it must accept.
func (s *suite) accept(ctx context.Context, r lane.Detect, images []testImage) error {
	var broken []error
	for _, i := range images {
		found, err := s.detect(ctx, r, i.file)
		switch {
		case err != nil:
			broken = append(broken, fmt.Errorf("%s: %w", i.name, err))
		case i.width != 0 && found.Width != i.width:
			broken = append(broken, fmt.Errorf("%s: width is %d", i.name, found.Width))
		case i.height != 0 && found.Height != i.height:
			broken = append(broken, fmt.Errorf("%s: height is %d", i.name, found.Height))
		}
	}
	return errors.Join(broken...)
}

// checkImages sends each image twice: the second request must not depend on the
// first. The large ones do not fit into the buffer of a socket.
func checkImages(ctx context.Context, s *suite) error {
	images, err := s.images()
	if err != nil {
		return err
	}
	large, err := s.generate(1200, 900)
	if err != nil {
		return err
	}
	images = append(images, large...)
	return s.accept(ctx, lane.Detect{}, slices.Concat(images, images))
}

// checkSmallestImage sends images of one pixel.
func checkSmallestImage(ctx context.Context, s *suite) error {
	images, err := s.generate(1, 1)
	if err != nil {
		return err
	}
	return s.accept(ctx, lane.Detect{}, images)
}

// checkMaxRegions requests one region at most.
func checkMaxRegions(ctx context.Context, s *suite) error {
	images, err := s.images()
	if err != nil {
		return err
	}
	return s.accept(ctx, lane.Detect{MaxRegions: 1}, images)
}

// checkCropLabels requests the crops of a label that no region has.
func checkCropLabels(ctx context.Context, s *suite) error {
	images, err := s.images()
	if err != nil {
		return err
	}
	return s.accept(ctx, lane.Detect{CropLabels: []string{"no-such-label"}}, images)
}

// checkOrientation sends a JPEG whose EXIF orientation turns it by 90 degrees: boxes
// are in pixels of the upright image.
func checkOrientation(ctx context.Context, s *suite) error {
	const turned = 6
	file, err := encode(drawing(160, 120), jpegType)
	if err != nil {
		return err
	}
	found, err := s.detect(ctx, lane.Detect{}, withOrientation(file, turned))
	if err != nil {
		return err
	}
	var broken []error
	if found.Width != 120 || found.Height != 160 {
		broken = append(broken, fmt.Errorf("an image of 160 x 120 with the EXIF orientation %d is %d x %d, want 120 x 160",
			turned, found.Width, found.Height))
	}
	if found.Orientation != turned {
		broken = append(broken, fmt.Errorf("orientation is %d, want %d", found.Orientation, turned))
	}
	return errors.Join(broken...)
}

// checkDamagedImage sends files that are not images, which the program must reject,
// and half of each image, in which it may find regions. The same process must
// accept an image afterwards.
func checkDamagedImage(ctx context.Context, s *suite) error {
	images, err := s.images()
	if err != nil {
		return err
	}
	l, err := s.acquire(ctx) // the process that gets the damaged images is running
	if err != nil {
		return err
	}
	l.Release()
	before := s.restarts.count()
	broken := []error{s.rejectDamaged(ctx, "a text file", []byte("This file is not an image."), true)}
	for _, i := range images {
		broken = append(broken, s.rejectDamaged(ctx, "half of "+i.name, i.file[:len(i.file)/2], false))
	}
	broken = append(broken, s.accept(ctx, lane.Detect{}, images))
	if n := s.restarts.count() - before; n > 0 {
		broken = append(broken, fmt.Errorf("%d processes ended on damaged images, want none", n))
	}
	return errors.Join(broken...)
}

// rejectDamaged sends a damaged file. The error of the program must say that the
// image is at fault.
func (s *suite) rejectDamaged(ctx context.Context, name string, file []byte, mustFail bool) error {
	_, err := s.detect(ctx, lane.Detect{}, file)
	if err == nil {
		if mustFail {
			return fmt.Errorf("%s: detected, want failed with the code %s", name, v1.Damaged)
		}
		return nil
	}
	p, ok := errors.AsType[*v1.Problem](err)
	switch {
	case !ok:
		return fmt.Errorf("%s: %w", name, err)
	case p.Code != v1.Damaged && p.Code != v1.UnsupportedType:
		return fmt.Errorf("%s: %w, want failed with the code %s or %s", name, err, v1.Damaged, v1.UnsupportedType)
	case p.Detail == "":
		return fmt.Errorf("%s: failed with an empty detail", name)
	}
	return nil
}

// crop returns a crop of a drawing and its pixels.
func crop(region, width, height, channels int) (lane.Crop, []byte) {
	m := drawing(width, height)
	var pixels []byte
	for y := range height {
		for x := range width {
			c := m.RGBAAt(x, y)
			if channels == 1 {
				pixels = append(pixels, c.G)
				continue
			}
			pixels = append(pixels, c.B, c.G, c.R)
		}
	}
	return lane.Crop{Region: region, Width: width, Height: height, Channels: channels}, pixels
}

// classifyRequest returns a request with a crop of each size, width and height.
func classifyRequest(channels int, sizes ...[2]int) (r lane.Classify, pixels []byte) {
	r.Pipeline = pipelineName
	for i, size := range sizes {
		c, p := crop(i, size[0], size[1], channels)
		r.Crops, pixels = append(r.Crops, c), append(pixels, p...)
	}
	return r, pixels
}

// classify sends crops to the program, and checks its reply.
func (s *suite) classify(ctx context.Context, r lane.Classify, pixels []byte) error {
	l, err := s.acquire(ctx)
	if err != nil {
		return err
	}
	defer l.Release()
	named, err := l.Classify(ctx, r, pixels)
	if err != nil {
		return err
	}
	for i, a := range named.Answers {
		if a.Region != r.Crops[i].Region {
			return fmt.Errorf("answers.%d.region is %d, want %d as in the request", i, a.Region, r.Crops[i].Region)
		}
	}
	return nil
}

// checkCrops sends each message twice: one crop, and several.
func checkCrops(ctx context.Context, s *suite) error {
	var broken []error
	for _, channels := range s.program.Channels {
		for _, sizes := range [][][2]int{{{200, 48}}, {{200, 48}, {64, 64}, {30, 90}, {900, 600}}} {
			r, pixels := classifyRequest(channels, sizes...)
			r.Crops[0].Label = "a label"
			for range 2 {
				if err := s.classify(ctx, r, pixels); err != nil {
					broken = append(broken, fmt.Errorf("%d crops of %d channels: %w", len(sizes), channels, err))
				}
			}
		}
	}
	return errors.Join(broken...)
}

// checkSmallestCrop sends crops of one pixel.
func checkSmallestCrop(ctx context.Context, s *suite) error {
	var broken []error
	for _, channels := range s.program.Channels {
		r, pixels := classifyRequest(channels, [2]int{1, 1})
		if err := s.classify(ctx, r, pixels); err != nil {
			broken = append(broken, fmt.Errorf("a crop of %d channels: %w", channels, err))
		}
	}
	return errors.Join(broken...)
}

// checkManyRequests sends many requests in turn, which one process must serve.
func checkManyRequests(ctx context.Context, s *suite) error {
	images, err := s.images()
	if err != nil {
		return err
	}
	l, err := s.acquire(ctx)
	if err != nil {
		return err
	}
	l.Release()
	before := s.restarts.count()
	for n := range manyRequests {
		if s.program.Stage == subject.Classify {
			r, pixels := classifyRequest(s.program.Channels[n%len(s.program.Channels)], [2]int{100 + n, 48})
			err = s.classify(ctx, r, pixels)
		} else {
			err = s.accept(ctx, lane.Detect{}, images[n%len(images):][:1])
		}
		if err != nil {
			return fmt.Errorf("request %d: %w", n+1, err)
		}
	}
	if n := s.restarts.count() - before; n > 0 {
		return fmt.Errorf("%d processes ended during %d requests, want none", n, manyRequests)
	}
	return nil
}
