package sessions

import (
	"errors"
	"math/rand/v2"
	"testing"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// TestQueue_RandomSessions simulates random sessions: every frame is started or dropped, once and
// in order, and no more frames are in progress than the window allows.
func TestQueue_RandomSessions(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 0))
		q := queue{window: 1 + r.IntN(4), latest: r.IntN(2) == 0}
		total, sent, seen, released := int64(50), int64(0), int64(0), 0
		for seen < total || !q.empty() {
			switch r.IntN(3) {
			case 0:
				if sent < total && q.canOffer() {
					q.offer(frame{number: sent, release: func() { released++ }})
					sent++
				}
			case 1:
				dropped, f, ok := q.next()
				if !ok {
					continue
				}
				if len(dropped) > 0 && !q.latest {
					t.Fatalf("seed %d: %v dropped", seed, dropped)
				}
				for _, n := range append(dropped, f.number) {
					if n != seen {
						t.Fatalf("seed %d: got frame %d, want %d", seed, n, seen)
					}
					seen++
				}
				if q.inProgress > q.window {
					t.Fatalf("seed %d: %d frames are in progress, the window is %d", seed, q.inProgress, q.window)
				}
				f.release()
			case 2:
				if q.inProgress > 0 {
					q.done()
				}
			}
		}
		if int64(released) != total {
			t.Fatalf("seed %d: the memory of %d frames was released, want %d", seed, released, total)
		}
	}
}

func TestQueue_LimitsDroppedFrames(t *testing.T) {
	t.Parallel()
	q := queue{window: 1, latest: true}
	n := 0
	for ; q.canOffer(); n++ {
		q.offer(frame{number: int64(n), release: func() {}})
	}
	if n > maxDropped+1 {
		t.Errorf("%d frames are accepted before one is started, want %d or fewer", n, maxDropped+1)
	}
}

func TestNumbers_Assign(t *testing.T) {
	t.Parallel()
	n := numbers{next: 5}
	number := func(i int64) *int64 { return &i }
	for _, tt := range []struct {
		given *int64
		want  int64 // -1 for an error
	}{{nil, 5}, {nil, 6}, {number(10), 10}, {nil, 11}, {number(12), 12}, {number(12), -1}, {number(3), -1}, {nil, 13}} {
		got, err := n.assign(tt.given)
		if tt.want >= 0 {
			if err != nil {
				t.Errorf("want %d: %v", tt.want, err)
			}
			if got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
			continue
		}
		var p *v1.Problem
		if !errors.As(err, &p) {
			t.Errorf("got %d, %v, want a problem", got, err)
			continue
		}
		if p.Code != v1.FrameOutOfOrder {
			t.Errorf("the code is %s, want %s", p.Code, v1.FrameOutOfOrder)
		}
		if p.Limit != 13 {
			t.Errorf("the limit is %d, want 13, the lowest accepted number", p.Limit)
		}
	}
}
