package sessions

import v1 "github.com/sightmesh/sightmesh/contracts/v1"

// frame is one picture of a session.
type frame struct {
	number  int64
	image   []byte
	problem *v1.Problem // what is wrong with it alone
	release func()
}

// queue decides which frame is worked on next. It is pure.
//
// A frame is in the window from when it is begun until its answer was written,
// so that the window bounds all that a session holds, answers included.
type queue struct {
	window int
	// latest lets a frame that waits be replaced by a newer one; without it
	// no frame is taken while one waits.
	latest bool

	inProgress int
	waiting    *frame
	dropped    []int64 // before waiting, not yet answered
}

// maxDropped bounds what is remembered of dropped frames.
const maxDropped = 4096

// canOffer reports whether another frame can be offered.
func (q *queue) canOffer() bool {
	if q.latest {
		return len(q.dropped) < maxDropped
	}
	return q.waiting == nil
}

// offer gives a frame to the queue, which takes one.
func (q *queue) offer(f frame) {
	if q.waiting != nil {
		q.waiting.release()
		q.dropped = append(q.dropped, q.waiting.number)
	}
	q.waiting = &f
}

// next gives the frame to begin, and those that were dropped before it, if
// there is one and the window has room.
func (q *queue) next() (dropped []int64, f frame, ok bool) {
	if q.waiting == nil || q.inProgress == q.window {
		return nil, frame{}, false
	}
	dropped, f = q.dropped, *q.waiting
	q.inProgress++
	q.waiting, q.dropped = nil, nil
	return dropped, f, true
}

// done says that the answer of a frame that was begun is written.
func (q *queue) done() { q.inProgress-- }

// empty reports whether every frame was answered.
func (q *queue) empty() bool { return q.inProgress == 0 && q.waiting == nil }

// MaxFrame is the largest number that a client may give a frame: up to here
// every reader of JSON has them exactly.
const MaxFrame = 1 << 53

// numbers gives every frame its number.
type numbers struct{ next int64 }

// assign returns the number of the next frame: said, when the client has said
// one, or the one after the last.
func (n *numbers) assign(said *int64) (int64, error) {
	number := n.next
	if said != nil {
		if *said > MaxFrame {
			return 0, v1.NewProblem(v1.FrameOutOfOrder, "frame %d: numbers end at %d", *said, MaxFrame).WithField("frame").WithLimit(MaxFrame)
		}
		if *said < n.next {
			return 0, v1.NewProblem(v1.FrameOutOfOrder, "frame %d came when %d or a later one was expected", *said, n.next).WithField("frame").WithLimit(n.next)
		}
		number = *said
	}
	n.next = number + 1
	return number, nil
}
