package pool

import (
	"log/slog"
	"strings"
	"testing"
)

// TestOutputTail_LogsWholeLines writes lines in pieces, as Python writes a stack trace.
func TestOutputTail_LogsWholeLines(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	w := &outputTail{log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	for _, piece := range []string{"Traceback:\n  Fi", "le\n\nKeyError", ": 'a'\n", "the", " end"} {
		if _, err := w.Write([]byte(piece)); err != nil {
			t.Fatal(err)
		}
	}
	w.logRest()
	var got []string
	for line := range strings.Lines(log.String()) {
		_, output, _ := strings.Cut(strings.TrimSpace(line), " output=")
		got = append(got, strings.Trim(output, `"`))
	}
	if got, want := strings.Join(got, "|"), "Traceback:|  File|KeyError: 'a'|the end"; got != want {
		t.Errorf("the logged lines are %q, want %q", got, want)
	}
}
