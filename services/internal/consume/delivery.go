package consume

import (
	"context"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane/pipeline"
)

// Delivery is one receipt of a message. Handlers must not keep it.
type Delivery struct {
	// Job has the fields of the job that Open parsed from the subject. The others
	// are zero.
	Job     subject.Job
	Subject string
	Header  nats.Header
	Body    []byte
	// Stream and Consumer name where the message was pulled from.
	Stream   string
	Consumer string
	// Stored is when the stream stored the message, Received when this process
	// received it. The time between is the queue wait.
	Stored   time.Time
	Received time.Time
	// Deadline of the job, or zero when the message has none.
	Deadline time.Time
	// Deliveries is the number of deliveries of the message, including this one.
	// Some of them may have reached no process.
	Deliveries int

	onStored func(context.Context)
	handled  time.Time // when the handler returned; zero for none
}

// OnStored sets a function that is called when the messages that follow from the
// delivery are stored. It is for cleanup: when the process dies before the call, f is
// not called.
func (d *Delivery) OnStored(f func(context.Context)) { d.onStored = f }

// QueueMS returns the queue wait in milliseconds. It is never negative, also when
// the clocks of two machines differ.
func (d *Delivery) QueueMS() float64 { return max(0, v1.Milliseconds(d.Received.Sub(d.Stored))) }

// ReadDeadline sets the deadline of the delivery to that of [JobDeadline]. It also
// sets it in the header, because the messages that follow are stored later and must
// have the same deadline.
func (d *Delivery) ReadDeadline(after time.Duration) (err error) {
	if d.Deadline, err = JobDeadline(d.Header, d.Stored, after); err != nil {
		return err
	}
	if d.Header == nil {
		d.Header = nats.Header{}
	}
	d.Header.Set(v1.HeaderDeadline, d.Deadline.UTC().Format(time.RFC3339Nano))
	return nil
}

// JobDeadline returns the deadline of the job of a message: the time in its header h
// or, without such a header, the duration after from when the stream stored the
// message. When the header is not a valid time, JobDeadline returns the latter
// and a [*v1.Problem].
//
// The deadline is at most [pipeline.MaxDuration] after the message was stored. With a
// later deadline the stream would delete the message because of its age first, and the
// job would have no outcome. The time to live of a message that follows also ends
// before the maximum age.
func JobDeadline(h nats.Header, stored time.Time, after time.Duration) (time.Time, error) {
	deadline, latest := stored.Add(after), stored.Add(pipeline.MaxDuration)
	if says := h.Get(v1.HeaderDeadline); says != "" {
		t, err := time.Parse(time.RFC3339Nano, says)
		if err != nil {
			return deadline, v1.NewProblem(v1.InvalidMessage, "header %s: %q is not a time as in RFC 3339",
				v1.HeaderDeadline, says).
				WithField(v1.HeaderDeadline)
		}
		deadline = t
	}
	if deadline.After(latest) {
		return latest, nil
	}
	return deadline, nil
}

// newDelivery returns the delivery of a message without its job, which
// Config.Open sets.
func newDelivery(m Message, received time.Time) (*Delivery, error) {
	meta, err := m.Metadata()
	if err != nil {
		return nil, fmt.Errorf("read delivery on %s: %w", m.Subject(), err)
	}
	return &Delivery{
		Subject: m.Subject(), Header: m.Headers(), Body: m.Data(), Stream: meta.Stream, Consumer: meta.Consumer,
		Stored: meta.Timestamp, Received: received, Deliveries: int(meta.NumDelivered),
	}, nil
}
