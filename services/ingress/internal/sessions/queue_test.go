package sessions

import (
	"errors"
	"math/rand/v2"
	"testing"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// TestQueue_RandomSessions plays random sessions: every frame is begun or dropped, once and
// in order, and no more are begun than the window allows.
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
						t.Fatalf("seed %d: frame %d came when %d was due", seed, n, seen)
					}
					seen++
				}
				if q.inProgress > q.window {
					t.Fatalf("seed %d: %d begun, the window is %d", seed, q.inProgress, q.window)
				}
				f.release()
			case 2:
				if q.inProgress > 0 {
					q.done()
				}
			}
		}
		if int64(released) != total {
			t.Fatalf("seed %d: the memory of %d frames was given back, want %d", seed, released, total)
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
		t.Errorf("%d frames were taken while none was begun", n)
	}
}

func TestNumbers_Assign(t *testing.T) {
	t.Parallel()
	n := numbers{next: 5}
	said := func(i int64) *int64 { return &i }
	for _, tt := range []struct {
		said *int64
		want int64 // -1 for an error
	}{{nil, 5}, {nil, 6}, {said(10), 10}, {nil, 11}, {said(12), 12}, {said(12), -1}, {said(3), -1}, {nil, 13}} {
		got, err := n.assign(tt.said)
		var p *v1.Problem
		if tt.want < 0 {
			if !errors.As(err, &p) || p.Code != v1.FrameOutOfOrder || p.Limit != 13 {
				t.Errorf("got %d, %v, want that 13 was expected", got, err)
			}
		} else if err != nil || got != tt.want {
			t.Errorf("got %d, %v, want %d", got, err, tt.want)
		}
	}
}
