package consume

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/sightmesh/sightmesh/contracts/retry"
)

// ender says the last word on a delivery. When it is lost, the message is
// delivered again, and what is published then is dropped as a duplicate.
type ender struct {
	log     *slog.Logger
	backoff retry.Backoff
}

// end does what act says. why is the error of the handler.
func (e ender) end(ctx context.Context, m Message, d *Delivery, act action, why error) Outcome {
	switch act {
	case ack:
		e.ack(ctx, m)
		return Done
	case nak:
		e.logAckError(ctx, m, m.Nak())
		return HandedBack
	case putOff:
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
	e.log.WarnContext(ctx, "message will be delivered again", "subject", m.Subject(), "deliveries", d.Deliveries,
		"after", delay.String(), "error", why)
	e.logAckError(ctx, m, m.NakWithDelay(delay))
	return Retried
}

func (e ender) ack(ctx context.Context, m Message) { e.logAckError(ctx, m, m.Ack()) }

// term ends a message for a reason of one line.
func (e ender) term(ctx context.Context, m Message, reason string) {
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

func (e ender) logAckError(ctx context.Context, m Message, err error) {
	if err != nil {
		e.log.WarnContext(ctx, "cannot end a delivery", "subject", m.Subject(), "error", err)
	}
}
