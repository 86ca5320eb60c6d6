package consume

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/sightmesh/sightmesh/contracts/retry"
)

// acknowledger acknowledges deliveries. When an acknowledgement is lost, the message
// is redelivered, and the streams drop the messages that follow as duplicates.
type acknowledger struct {
	log     *slog.Logger
	backoff retry.Backoff
}

// finish does act. why is the error of the handler.
func (e acknowledger) finish(ctx context.Context, m Message, d *Delivery, act action, why error) Outcome {
	switch act {
	case ack:
		e.ack(ctx, m)
		return Done
	case nak:
		e.logAckError(ctx, m, m.Nak())
		return HandedBack
	case nakSnooze:
		var s snooze
		errors.As(why, &s)
		e.logAckError(ctx, m, m.NakWithDelay(time.Duration(s)))
		return Snoozed
	case fail, term:
		e.log.ErrorContext(ctx, "message dropped", "subject", m.Subject(), "error", why)
		e.term(ctx, m, why.Error())
		return Dropped
	}
	delay, _ := retry.Delay(why)
	if delay == 0 {
		delay = e.backoff.Delay(d.Deliveries)
	}
	e.log.WarnContext(ctx, "message will be redelivered", "subject", m.Subject(), "deliveries", d.Deliveries,
		"after", delay.String(), "error", why)
	e.logAckError(ctx, m, m.NakWithDelay(delay))
	return Retried
}

func (e acknowledger) ack(ctx context.Context, m Message) { e.logAckError(ctx, m, m.Ack()) }

// term terminates a message. The server keeps the reason, which is cut to 200
// characters on one line.
func (e acknowledger) term(ctx context.Context, m Message, reason string) {
	const longest = 200
	line := []rune(reason)
	line = line[:min(len(line), longest)]
	for i, r := range line {
		if r < ' ' {
			line[i] = ' '
		}
	}
	e.logAckError(ctx, m, m.TermWithReason(string(line)))
}

func (e acknowledger) logAckError(ctx context.Context, m Message, err error) {
	if err != nil {
		e.log.WarnContext(ctx, "cannot acknowledge a delivery", "subject", m.Subject(), "error", err)
	}
}
