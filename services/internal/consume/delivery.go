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
	// Job is what the subject says of the job. Fields that the subject does
	// not have are zero.
	Job     subject.Job
	Subject string
	Header  nats.Header
	Body    []byte
	// Stream and Consumer are where the message came from.
	Stream   string
	Consumer string
	// Stored is when the stream stored the message, Received when this process
	// received it. The time between is the queue wait.
	Stored   time.Time
	Received time.Time
	// Deadline of the job, or zero when the message has none.
	Deadline time.Time
	// Deliveries counts the deliveries of the message, this one included. Some
	// of them may have reached no process.
	Deliveries int

	then    func(context.Context)
	handled time.Time // when the handler returned; zero for none
}

// Then has f called once what follows from the delivery is stored. It is for
// tidying up: f is not called again when the process dies before it.
func (d *Delivery) Then(f func(context.Context)) { d.then = f }

// QueueMS returns the queue wait in milliseconds. The clocks of two machines
// may disagree; the result is never negative.
func (d *Delivery) QueueMS() float64 { return max(0, v1.Milliseconds(d.Received.Sub(d.Stored))) }

// ReadDeadline sets the deadline of the job as [JobDeadline] says, also in the
// header of the delivery: the messages that follow from it were stored later, and
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

// JobDeadline returns the deadline of the job of a message that a stream stored
// at the given time: what its header h says or, without a header, the duration
// after the message was stored. The latter also comes with the [*v1.Problem] of a
// header that is no time.
//
// The deadline is at most [pipeline.MaxDuration] after the message was stored: with
// a later one the stream would delete the message for its age first, and the job
// would have no outcome. The time to live of a message that follows also ends
// before its age.
func JobDeadline(h nats.Header, stored time.Time, after time.Duration) (time.Time, error) {
	deadline, latest := stored.Add(after), stored.Add(pipeline.MaxDuration)
	if says := h.Get(v1.HeaderDeadline); says != "" {
		t, err := time.Parse(time.RFC3339Nano, says)
		if err != nil {
			return deadline, v1.NewProblem(v1.InvalidMessage, "header %s: %q is not a time as in RFC 3339", v1.HeaderDeadline, says).
				WithField(v1.HeaderDeadline)
		}
		deadline = t
	}
	if deadline.After(latest) {
		return latest, nil
	}
	return deadline, nil
}

// newDelivery reads what every message of a stream has. The job is for the
// Open function of the consumer.
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
