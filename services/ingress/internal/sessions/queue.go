package sessions

import v1 "github.com/sightmesh/sightmesh/contracts/v1"

// frame is one image of a session.
type frame struct {
	number  int64
	image   []byte
	problem *v1.Problem // problem of this frame
	release func()
}

// queue decides which frame is processed next. It is pure.
//
// A frame is in the window from its start until its outcome is written, so that the window limits everything
// that a session keeps in memory.
type queue struct {
	window int
	// latest is whether a newer frame replaces the waiting one. Otherwise no frame is accepted while one
	// waits.
	latest bool

	inProgress int
	waiting    *frame
	dropped    []int64 // before waiting, without a written outcome
}

// maxDropped is the maximum of dropped frames whose numbers are kept.
const maxDropped = 4096

// canOffer reports whether another frame can be offered.
func (q *queue) canOffer() bool {
	if q.latest {
		return len(q.dropped) < maxDropped
	}
	return q.waiting == nil
}

// offer adds a frame. The caller has checked canOffer.
func (q *queue) offer(f frame) {
	if q.waiting != nil {
		q.waiting.release()
		q.dropped = append(q.dropped, q.waiting.number)
	}
	q.waiting = &f
}

// next returns the frame to start and the frames that were dropped before it. ok is false when no frame waits
// or the window is full.
func (q *queue) next() (dropped []int64, f frame, ok bool) {
	if q.waiting == nil || q.inProgress == q.window {
		return nil, frame{}, false
	}
	dropped, f = q.dropped, *q.waiting
	q.inProgress++
	q.waiting, q.dropped = nil, nil
	return dropped, f, true
}

// done records that the outcome of a started frame is written.
func (q *queue) done() { q.inProgress-- }

// empty reports whether every frame is finished.
func (q *queue) empty() bool { return q.inProgress == 0 && q.waiting == nil }

// MaxFrame is the largest number of a frame. Every JSON parser represents numbers up to it exactly.
const MaxFrame = 1 << 53

// numbers assigns numbers to frames.
type numbers struct{ next int64 }

// assign returns the number of the next frame: given, or the number after the last frame when given is nil.
func (n *numbers) assign(given *int64) (int64, error) {
	number := n.next
	if given != nil {
		if *given > MaxFrame {
			return 0, v1.NewProblem(v1.FrameOutOfOrder, "frame %d: numbers end at %d", *given,
				MaxFrame).WithField("frame").WithLimit(MaxFrame)
		}
		if *given < n.next {
			return 0, v1.NewProblem(v1.FrameOutOfOrder, "frame %d came when %d or a later one was expected", *given,
				n.next).WithField("frame").WithLimit(n.next)
		}
		number = *given
	}
	n.next = number + 1
	return number, nil
}
