package models

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// progress prints the progress of a run: a line when a transfer begins, and a bar on a terminal.
type progress struct {
	out      io.Writer
	terminal bool
}

func newProgress(out io.Writer) progress {
	f, ok := out.(*os.File)
	return progress{out: out, terminal: ok && term.IsTerminal(int(f.Fd()))}
}

// begin prints the start of a transfer of total bytes, of which some are there already. A transfer of unknown
// length has a total of -1 and no bar. The caller writes the transferred bytes to w, and calls end at the end.
func (p progress) begin(what string, there, total int64) (w io.Writer, end func()) {
	if total > 0 {
		what += ", " + megabytes(total)
	}
	if there > 0 {
		what += fmt.Sprintf(", of which %s are there", megabytes(there))
	}
	fmt.Fprintln(p.out, what) // an address is often longer than a line with a bar
	if !p.terminal || total < 0 {
		return io.Discard, func() {}
	}
	bar := progressbar.NewOptions64(total, progressbar.OptionSetWriter(p.out), progressbar.OptionShowBytes(true),
		progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionSetPredictTime(true))
	_ = bar.Add64(there) // fails only past its end
	return barWriter{bar}, func() {
		_ = bar.Exit()
		fmt.Fprintln(p.out)
	}
}

// barWriter advances a bar. Writes past its end are no error.
type barWriter struct{ bar *progressbar.ProgressBar }

func (w barWriter) Write(b []byte) (int, error) {
	_ = w.bar.Add(len(b))
	return len(b), nil
}
