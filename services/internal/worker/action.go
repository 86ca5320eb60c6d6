package worker

import (
	"context"
	"errors"
	"slices"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// action is what becomes of a message once the handler is done with it.
type action int

const (
	// retry hands it back, to be delivered again after a delay.
	retry action = iota
	// handBack gives it to another worker at once: this one is stopping.
	handBack
	// fail makes the problem the answer.
	fail
	// quarantine makes the problem the answer and keeps the message.
	quarantine
)

// quarantined are the problems after which somebody will want to see the
// message itself.
var quarantined = []v1.Code{v1.LaneDied, v1.TooSlow, v1.TooMuchMemory, v1.TooManyDeliveries, v1.InvalidMessage}

// actionFor is the one table that says what an error does to a message:
//
//	kind                                          action
//	the worker is stopping                        hand back at once
//	a problem that killed or could kill a lane    answer with it, quarantine
//	any other problem                             answer with it
//	everything else is transient                  hand back with a delay
func actionFor(err error) (action, *v1.Problem) {
	var p *v1.Problem
	switch {
	case errors.As(err, &p) && slices.Contains(quarantined, p.Code):
		return quarantine, p
	case errors.As(err, &p):
		return fail, p
	case errors.Is(err, context.Canceled):
		return handBack, nil
	default:
		return retry, nil
	}
}
