package send

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// progress prints the progress of a run: a bar on a terminal, otherwise a line
// every progressInterval.
type progress struct {
	out   io.Writer
	bar   *progressbar.ProgressBar // nil without a terminal
	total int
	limit *limit

	mu       sync.Mutex
	begun    time.Time
	done     int
	failed   int
	lastLine time.Time
}

const progressInterval = 5 * time.Second

func newProgress(out io.Writer, total int, l *limit) *progress {
	p := &progress{out: out, total: total, limit: l, begun: time.Now(), lastLine: time.Now()}
	if f, ok := out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.bar = progressbar.NewOptions(total, progressbar.OptionSetWriter(out), progressbar.OptionShowCount(),
			progressbar.OptionShowIts(), progressbar.OptionSetPredictTime(true), progressbar.OptionSetItsString("images"),
			progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionOnCompletion(func() { fmt.Fprintln(out) }))
	}
	return p
}

func (p *progress) add(failed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done++
	if failed {
		p.failed++
	}
	if p.bar != nil {
		p.bar.Describe(fmt.Sprintf("%d failed, %d at a time", p.failed, p.limit.current()))
		_ = p.bar.Add(1) // fails only after the last image
		return
	}
	if now := time.Now(); now.Sub(p.lastLine) >= progressInterval {
		p.lastLine = now
		fmt.Fprintln(p.out, p.line(now))
	}
}

// line returns the progress as one line.
func (p *progress) line(now time.Time) string {
	elapsed := now.Sub(p.begun)
	rate := float64(p.done) / max(elapsed.Seconds(), 1e-9)
	left := time.Duration(float64(p.total-p.done) / max(rate, 1e-9) * float64(time.Second))
	return fmt.Sprintf("%d of %d images, %.1f/s, %d failed, %d at a time, %s left",
		p.done, p.total, rate, p.failed, p.limit.current(), left.Round(time.Second))
}

// print prints a line above the progress.
func (p *progress) print(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bar != nil {
		_ = p.bar.Clear() // the next image draws the bar again
	}
	fmt.Fprintln(p.out, line)
}

// end prints the totals of the run.
func (p *progress) end(skipped int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bar != nil {
		_ = p.bar.Exit() // ends the line of the bar
	}
	elapsed := time.Since(p.begun)
	fmt.Fprintf(p.out, "%d of %d images sent in %s (%.1f/s), %d failed, %d were done before\n",
		p.done, p.total, elapsed.Round(10*time.Millisecond), float64(p.done)/max(elapsed.Seconds(), 1e-9), p.failed, skipped)
}
