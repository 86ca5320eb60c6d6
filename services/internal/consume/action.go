package consume

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sightmesh/sightmesh/contracts/retry"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// Snooze returns an error with which a handler puts a delivery off: nothing
// was tried, the message comes again after d, and it is neither logged nor an
// error in its trace. It is a delivery all the same.
func Snooze(d time.Duration) error { return snooze(d) }

type snooze time.Duration

func (s snooze) Error() string { return fmt.Sprintf("put off for %v", time.Duration(s)) }

// Drop returns an error with which a handler ends a message that has no
// outcome to give. The reason is logged.
func Drop(reason error) error { return &dropped{reason} }

type dropped struct{ reason error }

func (d *dropped) Error() string { return d.reason.Error() }
func (d *dropped) Unwrap() error { return d.reason }

// action is what becomes of a delivery.
type action int

const (
	// ack ends the message.
	ack action = iota
	// nak has it delivered again at once, to another process: this one stops.
	nak
	// nakLater has it delivered again after a delay.
	nakLater
	// putOff is nakLater without an attempt.
	putOff
	// fail publishes the problem as the outcome of the job and ends the
	// message.
	fail
	// term ends the message without an outcome.
	term
)

// actionFor is the one table that says what the error of a handler does to a
// delivery. stopping says whether the context of the handlers has ended, fails
// whether the consumer has outcomes for problems. The first row that fits
// counts.
//
//	error                               action
//	none                                acknowledge
//	Drop                                log, terminate
//	a problem, with outcomes            publish the outcome, terminate
//	a problem, without                  log, terminate
//	any, stopping or cancelled          hand back at once
//	Snooze                              deliver again after its delay; no attempt
//	retry.Error, a problem in it too    deliver again after its delay, or with back-off
//	any other                           deliver again with back-off
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
		return putOff
	}
	return nakLater
}

// Outcome says what became of a delivery, for metrics and spans: the code of
// the problem with which its job failed, or one of the constants.
type Outcome string

// The outcomes that are not problem codes.
const (
	Done       Outcome = "done"
	Retried    Outcome = "retried"
	Snoozed    Outcome = "snoozed"
	HandedBack Outcome = "handed-back"
	Dropped    Outcome = "dropped"
	// Lost is the work on a message that was delivered to another process
	// while this one was paused.
	Lost Outcome = "lost"
)
