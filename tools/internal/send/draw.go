package send

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/sightmesh/sightmesh/contracts/retry"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// draw requests the image with the regions of its result drawn on it, and writes it
// into the folder of --draw. It does nothing without --draw. It makes at most
// --attempts attempts, but only one when no worker draws.
func (r *run) draw(working, running context.Context, f file, key string, image []byte, result v1.Result) error {
	if r.cfg.Draw == "" {
		return nil
	}
	for n := 1; ; n++ {
		drawn, err := r.attemptDraw(working, key, image, result)
		if err == nil {
			return r.writeDrawn(f, drawn)
		}
		after, retryable := retry.Delay(err)
		var p *v1.Problem
		if !retryable || errors.As(err, &p) && p.Code == v1.NoWorker || n == r.cfg.Attempts ||
			working.Err() != nil || retry.Sleep(running, delay(n, after)) != nil {
			return fmt.Errorf("draw: %w", err)
		}
	}
}

func (r *run) attemptDraw(ctx context.Context, key string, image []byte, result v1.Result) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	begin := time.Now()
	drawn, err := r.drawer(ctx, key, image, result)
	if isOverloaded(err) {
		r.limit.observe(time.Since(begin), true)
	}
	return drawn, err
}

// writeDrawn writes a drawn image into the folder of --draw.
func (r *run) writeDrawn(f file, drawn []byte) error {
	path := filepath.Join(r.cfg.Draw, f.name+".jpg")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("draw: %w", err)
	}
	if err := os.WriteFile(path, drawn, 0o644); err != nil {
		return fmt.Errorf("draw: %w", err)
	}
	return nil
}
