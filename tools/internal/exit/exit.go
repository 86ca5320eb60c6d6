// Package exit has the exit statuses of the command sightmesh, and an error with an
// exit status, which a package returns to main.
package exit

import (
	"errors"
	"fmt"
)

// Exit statuses of a command that fails.
const (
	Failure     = 1
	Usage       = 2 // a wrong argument
	Partial     = 3 // some images failed
	Interrupted = 130
)

// Error is an error with an exit status.
type Error struct {
	Status int
	Err    error
}

// Error returns the text of the error.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the wrapped error.
func (e *Error) Unwrap() error { return e.Err }

// Usagef returns the error of a wrong argument.
func Usagef(format string, args ...any) error {
	return &Error{Usage, fmt.Errorf(format, args...)}
}

// Interruptedf returns the error of a command that a signal interrupted.
func Interruptedf(format string, args ...any) error {
	return &Error{Interrupted, fmt.Errorf(format, args...)}
}

// Status returns the exit status of an error: 0 for nil, and Failure for an error
// without a status.
func Status(err error) int {
	var e *Error
	switch {
	case err == nil:
		return 0
	case errors.As(err, &e):
		return e.Status
	}
	return Failure
}
