// Package exit has the exit statuses of the command sightmesh, and the error
// that carries one from a package to main.
package exit

import (
	"errors"
	"fmt"
)

// Statuses of a command that did not succeed.
const (
	Failure     = 1
	Usage       = 2 // a wrong argument
	Partial     = 3 // some images failed
	Interrupted = 130
)

// Error is an end that is not success, with the status to exit with.
type Error struct {
	Status int
	Err    error
}

// Error says what went wrong.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the error inside.
func (e *Error) Unwrap() error { return e.Err }

// Usagef returns the error of a wrong argument.
func Usagef(format string, args ...any) error {
	return &Error{Usage, fmt.Errorf(format, args...)}
}

// Interruptedf returns the error of work that an interrupt ended.
func Interruptedf(format string, args ...any) error {
	return &Error{Interrupted, fmt.Errorf(format, args...)}
}

// Status returns the status to exit with: 0 for nil, and Failure for an error
// that carries none.
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
