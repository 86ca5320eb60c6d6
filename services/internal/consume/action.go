package consume

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sightmesh/sightmesh/contracts/retry"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// Snooze returns an error with which a handler postpones a delivery: the message is
// redelivered after d. A snooze is not logged and is not an error in its trace. It
// counts as a delivery.
func Snooze(d time.Duration) error { return snooze(d) }

type snooze time.Duration

func (s snooze) Error() string { return fmt.Sprintf("snoozed for %v", time.Duration(s)) }

// Drop returns an error with which a handler terminates a message that has no
// outcome. The reason is logged.
func Drop(reason error) error { return &dropped{reason} }

type dropped struct{ reason error }

func (d *dropped) Error() string { return d.reason.Error() }
func (d *dropped) Unwrap() error { return d.reason }

// action is what the loop does with a delivery.
type action int

const (
	// ack acknowledges the message.
	ack action = iota
	// nak requests an immediate redelivery, because this process stops.
	nak
	// nakLater requests a redelivery after a delay.
	nakLater
	// nakSnooze requests a redelivery after a delay, and counts no failure.
	nakSnooze
	// fail publishes the problem as the outcome of the job and terminates the
	// message.
	fail
	// term terminates the message without an outcome.
	term
)

// actionFor is the only place that decides what the error of a handler does to a
// delivery. stopping reports whether the context of the handlers has ended, fails
// whether the consumer has outcomes for problems. The first matching row applies.
//
//	error                                 action
//	none                                  acknowledge
//	Drop                                  log, terminate
//	problem, consumer with outcomes       publish the outcome, terminate
//	problem, consumer without outcomes    log, terminate
//	any, when stopping or cancelled       redeliver immediately
//	Snooze                                redeliver after its delay, not logged
//	retry.Error, may wrap a problem       redeliver after its delay, or with back-off
//	any other                             redeliver with back-off
func actionFor(err error, stopping, fails bool) action {
	var d *dropped
	var p *v1.Problem
	var s snooze
	_, passes := retry.Delay(err)
	switch {
	case err == nil:
		return ack
	case errors.As(err, &d):
		return term
	case errors.As(err, &p) && !passes && fails:
		return fail
	case errors.As(err, &p) && !passes:
		return term
	case stopping, errors.Is(err, context.Canceled):
		return nak
	case errors.As(err, &s):
		return nakSnooze
	}
	return nakLater
}

// Outcome is how a delivery ended, for metrics and spans: the code of the problem
// with which its job failed, or one of the constants.
type Outcome string

// The outcomes that are not problem codes.
const (
	Done       Outcome = "done"
	Retried    Outcome = "retried"
	Snoozed    Outcome = "snoozed"
	HandedBack Outcome = "handed-back"
	Dropped    Outcome = "dropped"
	// Lost is the outcome of a delivery whose message was redelivered to another
	// process while this one was paused.
	Lost Outcome = "lost"
)
