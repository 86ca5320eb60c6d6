package frames

import (
	"context"
	"testing"
	"time"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

func TestPingAfterEnd(t *testing.T) {
	work := make(chan struct{})
	s := serve(t, nil, func(ctx context.Context, pic string) v1.Result { <-work; return echo(ctx, pic) })
	c := s.dial(t)
	done := make(chan struct{})
	c.frame("one")
	c.text(`{"end": true}`)
	time.Sleep(100 * time.Millisecond)
	go func() { defer close(done); c.rest() }()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if err := c.Ping(ctx); err != nil {
		t.Errorf("ping while the last answer is awaited: %v", err)
	}
	close(work)
	<-done
}

func TestHangUpAfterEnd(t *testing.T) {
	gone := make(chan bool, 1)
	s := serve(t, nil, func(ctx context.Context, pic string) v1.Result {
		select {
		case <-ctx.Done():
			gone <- true
		case <-time.After(3 * time.Second):
			gone <- false
		}
		return v1.Result{}
	})
	c := s.dial(t)
	c.frame("one")
	c.text(`{"end": true}`)
	time.Sleep(100 * time.Millisecond)
	c.CloseNow()
	if !<-gone {
		t.Error("the frame of a client that hung up after its end mark is worked on")
	}
}
