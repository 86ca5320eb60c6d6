package lanetry

import (
	"context"
	"fmt"
	"io"
	"log/slog"
)

// outputHandler prints what a lane writes to its standard output and standard error, which
// its pool logs as the attribute output. Other records are left out: the error of the
// command says what happened.
type outputHandler struct{ out io.Writer }

// Enabled is true for every level: the pool logs the output as debug.
func (h outputHandler) Enabled(context.Context, slog.Level) bool { return true }

// Handle prints the output of a record that has some.
func (h outputHandler) Handle(_ context.Context, r slog.Record) (err error) {
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "output" {
			_, err = fmt.Fprintln(h.out, a.Value)
		}
		return true
	})
	return err
}

// WithAttrs leaves the attributes out: there is one lane.
func (h outputHandler) WithAttrs([]slog.Attr) slog.Handler { return h }

// WithGroup leaves the group out.
func (h outputHandler) WithGroup(string) slog.Handler { return h }
