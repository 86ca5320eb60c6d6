package models

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// progress prints a line when a transfer begins and, on a terminal, a bar.
type progress struct {
	out      io.Writer
	terminal bool
}

func newProgress(out io.Writer) progress {
	f, ok := out.(*os.File)
	return progress{out: out, terminal: ok && term.IsTerminal(int(f.Fd()))}
}

// begin prints the start of a transfer of total bytes, of which the first offset bytes were transferred before. A
// transfer of unknown length has the total -1 and no bar. The caller writes the transferred bytes to w, and calls end
// at the end.
func (p progress) begin(what string, offset, total int64) (w io.Writer, end func()) {
	if total > 0 {
		what += ", " + megabytes(total)
	}
	if offset > 0 {
		what += fmt.Sprintf(", resumed after %s", megabytes(offset))
	}
	fmt.Fprintln(p.out, what) // not in the bar: a URL is often longer than a line
	if !p.terminal || total < 0 {
		return io.Discard, func() {}
	}
	bar := progressbar.NewOptions64(total, progressbar.OptionSetWriter(p.out), progressbar.OptionShowBytes(true),
		progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionSetPredictTime(true))
	_ = bar.Add64(offset) // it fails only beyond the end
	return barWriter{bar}, func() {
		_ = bar.Exit()
		fmt.Fprintln(p.out)
	}
}

// barWriter advances a bar. A write beyond the end of the bar is not an error.
type barWriter struct{ bar *progressbar.ProgressBar }

func (w barWriter) Write(b []byte) (int, error) {
	_ = w.bar.Add(len(b))
	return len(b), nil
}
