package lanetry

import (
	"context"
	"fmt"
	"io"
	"log/slog"
)

// outputHandler prints the standard output and standard error of a lane, which the pool logs in the attribute output,
// and the fields of replies that the protocol does not have, which it logs in the attribute field. Other records are
// not printed, because the error of the command has their content.
type outputHandler struct{ out io.Writer }

// Enabled returns true for every level, because the pool logs the output with level debug.
func (h outputHandler) Enabled(context.Context, slog.Level) bool { return true }

// Handle prints the attribute output or field of a record.
func (h outputHandler) Handle(_ context.Context, r slog.Record) (err error) {
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "output":
			_, err = fmt.Fprintln(h.out, a.Value)
		case "field":
			_, err = fmt.Fprintf(h.out, "%s: %s\n", r.Message, a.Value)
		}
		return true
	})
	return err
}

// WithAttrs ignores the attributes.
func (h outputHandler) WithAttrs([]slog.Attr) slog.Handler { return h }

// WithGroup ignores the group.
func (h outputHandler) WithGroup(string) slog.Handler { return h }
