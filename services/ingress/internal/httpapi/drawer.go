package httpapi

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strconv"
	"time"

	"github.com/munnerz/goautoneg"
	"golang.org/x/sync/semaphore"

	"github.com/sightmesh/sightmesh/contracts/client"
	"github.com/sightmesh/sightmesh/contracts/retry"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/ingress/internal/intake"
)

const (
	// maxDrawings is the maximum of drawn images that are received concurrently. The largest image has about
	// 100 MB as PNG.
	maxDrawings = 4
	// drawingWait is how long a request may wait until fewer images are drawn.
	drawingWait = 30 * time.Second
)

// drawer returns drawn images, which workers draw. Ingress decodes nothing.
type drawer struct {
	intake *intake.Intake
	client *client.Client
	places *semaphore.Weighted
}

func newDrawer(cfg Config) *drawer {
	return &drawer{intake: cfg.Intake, client: cfg.Client, places: semaphore.NewWeighted(maxDrawings)}
}

// drawnType returns the image type that a client accepts for a drawn image, or "" for none.
func drawnType(r *http.Request) string {
	t := goautoneg.Negotiate(r.Header.Get("Accept"), []string{"application/json", "image/png", "image/jpeg"})
	if t == "image/png" || t == "image/jpeg" {
		return t
	}
	return ""
}

// writeDrawn responds with the image of a request on which the regions of the result are drawn. An error
// affects only the drawing: the job is done, and the response has the address of its result.
func (d *drawer) writeDrawn(
	w http.ResponseWriter, r *http.Request, req *intake.Request, result v1.Result, mediaType string,
) error {
	w.Header().Set("Content-Location", "/v1/images/"+result.ID)
	image, err := d.draw(r.Context(), req, result, mediaType)
	if err != nil {
		return intake.DrawError(err, result.ID)
	}
	if result.Timings != nil {
		w.Header().Set("Server-Timing", serverTiming(*result.Timings))
	}
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Content-Length", strconv.Itoa(len(image)))
	_, err = w.Write(image) //nolint:gosec // an image, with its content type
	return err
}

// draw requests the drawn image from a worker. The drawn image counts for the memory of the request, because
// the client may read it slowly.
func (d *drawer) draw(ctx context.Context, req *intake.Request, result v1.Result, mediaType string) ([]byte, error) {
	if err := d.ensureImage(ctx, req, result); err != nil {
		return nil, err
	}
	turn, cancel := context.WithTimeout(ctx, drawingWait)
	defer cancel()
	if err := d.places.Acquire(turn, 1); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		p := v1.NewProblem(v1.Overloaded, "%d images are being drawn", maxDrawings).WithLimit(maxDrawings)
		return nil, retry.After(p, intake.RetryDelay)
	}
	defer d.places.Release(1)
	image, err := d.client.Draw(ctx, req.Image, result, mediaType)
	if err != nil {
		return nil, err
	}
	return image, req.Grow(int64(len(image)))
}

// ensureImage fetches the image of a request with a URL again when an earlier request has created the job. It
// checks that the result belongs to the image.
func (d *drawer) ensureImage(ctx context.Context, req *intake.Request, result v1.Result) error {
	if req.URL == "" {
		return nil
	}
	if req.Image == nil {
		var err error
		if req.Image, err = d.intake.Fetch(ctx, req.URL, req.Grow); err != nil {
			return err
		}
	}
	if sum := sha256.Sum256(req.Image); result.Image != nil && result.Image.SHA256 != hex.EncodeToString(sum[:]) {
		return v1.NewProblem(v1.FetchFailed, "what is at the address is no longer the picture that was read").
			WithField("url")
	}
	return nil
}
