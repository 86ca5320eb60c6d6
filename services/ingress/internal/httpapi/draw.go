package httpapi

import (
	"net/http"
	"strconv"

	"github.com/sightmesh/sightmesh/contracts/draw"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// draw answers with the picture and what was found drawn on it. A picture
// takes four bytes for each pixel while it is drawn on, so that only a few are
// at a time.
func (a *API) draw(w http.ResponseWriter, r *http.Request, pic []byte, result v1.Result, mediaType string) error {
	if err := a.draws.Acquire(r.Context(), 1); err != nil {
		return err
	}
	defer a.draws.Release(1)
	out, err := draw.Draw(pic, result, mediaType)
	if err != nil {
		return err
	}
	if result.Timings != nil {
		w.Header().Set("Server-Timing", serverTiming(*result.Timings))
	}
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Content-Length", strconv.Itoa(len(out)))
	w.Header().Set("Content-Location", "/v1/images/"+result.ID)
	_, err = w.Write(out) //nolint:gosec // an image, and announced as one
	return err
}
