package worker

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/internal/bus"
	"github.com/sightmesh/sightmesh/services/internal/consume"
)

// attempts counts how often workers tried to process a message, so that one
// that kills its workers ends. JetStream cannot tell: it counts deliveries that
// no worker received, too. The count is in the stream JOBS and survives the
// worker.
//
// Two workers hold one message when the first was silent for longer than
// [streams.AckWait] and then goes on, such as after SIGSTOP. The later of their
// writes stays, which can take the count back by the attempts made meanwhile.
// That is harmless: the message is tried that many times more, and ends unless
// workers are paused again and again in the middle of begin.
type attempts struct {
	js    jetstream.JetStream
	stage subject.Stage
}

// begin records that an attempt to process a delivery begins. After
// [streams.MaxAttempts] it returns the problem with which the job ends instead.
//
// The first delivery counts as an attempt that is not recorded: it costs no
// request, whether or not a worker received it. An attempt that a stopping
// worker hands back counts too. Any other error of begin means that the message
// is to be delivered again; then no attempt was counted, unless only the
// acknowledgement of the record was lost.
func (a attempts) begin(ctx context.Context, d *consume.Delivery) error {
	if d.Deliveries == 1 {
		return nil
	}
	made := v1.Attempts{Attempts: 1}
	subj := subject.Attempts(a.stage, d.Job)
	if _, err := bus.Last(ctx, a.js, streams.Jobs, subj, &made); err != nil {
		return fmt.Errorf("count the attempts: %w", err)
	}
	if made.Attempts >= streams.MaxAttempts {
		return v1.NewProblem(v1.TooManyDeliveries, "%d attempts ended without an outcome", made.Attempts)
	}
	made.Attempts++
	if err := bus.PublishLast(ctx, a.js, streams.Jobs, subj, made); err != nil {
		return fmt.Errorf("count the attempts: %w", err)
	}
	return nil
}
