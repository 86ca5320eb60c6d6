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

// TestOutputTail_LastLinesHaveTheErrorAboveAStack has the output of Node.js without the file of the program.
func TestOutputTail_LastLinesHaveTheErrorAboveAStack(t *testing.T) {
	t.Parallel()
	w := &outputTail{log: slog.New(slog.DiscardHandler)}
	if _, err := w.Write([]byte(`node:internal/modules/cjs/loader:1210
  throw err;
  ^

Error: Cannot find module '/src/lane.js'
    at Module._resolveFilename (node:internal/modules/cjs/loader:1207:15)
    at Module._load (node:internal/modules/cjs/loader:1038:27) {
  code: 'MODULE_NOT_FOUND',
  requireStack: []
}

Node.js v20.20.2
`)); err != nil {
		t.Fatal(err)
	}
	if got, want := w.lastLines(), "throw err; / ^ / / Error: Cannot find module '/src/lane.js'"; got != want {
		t.Errorf("the last lines are %q, want %q", got, want)
	}
}
