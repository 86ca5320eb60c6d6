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

// attempts counts the attempts of workers to process a message, so that a message that
// kills its workers is not retried without end. The count of JetStream is not enough: it
// includes deliveries that no worker received. The count of attempts is in the stream
// JOBS and survives the worker.
//
// Two workers have the same message when the first was paused for longer than
// [streams.AckWait] and then continues, for example after SIGSTOP. The later of their
// writes wins, which can reduce the count by the attempts made meanwhile. Then the
// message gets that many more attempts. It still ends, unless workers are paused
// repeatedly within begin.
type attempts struct {
	js    jetstream.JetStream
	stage subject.Stage
}

// begin records the start of an attempt to process a delivery. After
// [streams.MaxAttempts] attempts it returns the problem with which the job ends.
//
// The first delivery counts as an attempt without a record, whether or not a worker
// received it, and costs no request. An attempt that a stopping worker hands back also
// counts. After any other error of begin the message is redelivered. Then no attempt
// was counted, unless only the acknowledgement of the record was lost.
func (a attempts) begin(ctx context.Context, d *consume.Delivery) error {
	if d.Deliveries == 1 {
		return nil
	}
	made := v1.Attempts{Attempts: 1}
	subj := subject.Attempts(a.stage, d.Job)
	if _, err := bus.ReadLast(ctx, a.js, streams.Jobs, subj, &made); err != nil {
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
