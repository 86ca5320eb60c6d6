package worker

import (
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// Delivery is one message of a stage.
type Delivery struct {
	Job    subject.Job
	Header nats.Header
	Body   []byte
	// Stored is when the stream took the message, Received when this worker
	// did; what lies between is the wait in the queue.
	Stored   time.Time
	Received time.Time
	// Deadline of the job: what the message says, or the pipeline's from the
	// moment it was stored.
	Deadline time.Time
	// Deliveries counts this one.
	Deliveries int

	msg *nats.Msg
}

// QueueMS is the wait in the queue in milliseconds. The clocks of two machines
// may disagree; it is never negative.
func (d Delivery) QueueMS() float64 { return max(0, v1.Milliseconds(d.Received.Sub(d.Stored))) }

func newDelivery(stage subject.Stage, m *nats.Msg, received time.Time) (Delivery, error) {
	meta, err := m.Metadata()
	if err != nil {
		return Delivery{}, fmt.Errorf("read delivery: %w", err)
	}
	parse := subject.ParseImages
	if stage == subject.Classify {
		parse = subject.ParseCrops
	}
	job, err := parse(m.Subject)
	if err != nil {
		return Delivery{}, fmt.Errorf("read delivery: %w", err)
	}
	return Delivery{
		Job: job, Header: m.Header, Body: m.Data,
		Stored: meta.Timestamp, Received: received, Deliveries: int(meta.NumDelivered),
		msg: m,
	}, nil
}

// setDeadline reads the deadline of the job from the message.
func (d *Delivery) setDeadline(byDefault time.Duration) error {
	d.Deadline = d.Stored.Add(byDefault)
	h := d.Header.Get(v1.HeaderDeadline)
	if h == "" {
		return nil
	}
	t, err := time.Parse(time.RFC3339Nano, h)
	if err != nil {
		return v1.NewProblem(v1.InvalidMessage, "header %s: %q is not a time as in RFC 3339", v1.HeaderDeadline, h).WithField(v1.HeaderDeadline)
	}
	d.Deadline = t
	return nil
}
