package e2e

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A process is a child process. The kernel kills it when the test process ends.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when the child has ended and its output was read
	err  error         // the result of exec.Cmd.Wait; valid once done is closed
}

func startProcess(cmd *exec.Cmd) (*process, error) {
	// The kernel also sends SIGKILL when the thread that started the child
	// ends, so that thread is kept until the child ends (golang/go#27505).
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = 2 * time.Second // grandchildren may keep the output open
	p := &process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// signal sends s. It is no error when the process has already ended.
func (p *process) signal(t testing.TB, s syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("signal %s: %v", p.cmd.Path, err)
	}
}

// stop sends SIGTERM and waits at most a minute for the end of the process. It
// returns the error of the process.
func (p *process) stop(t testing.TB) error {
	t.Helper()
	p.signal(t, syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(time.Minute):
		t.Errorf("%s did not end within a minute", p.cmd.Path)
		p.kill(t)
	}
	return p.err
}

// kill sends SIGKILL and waits for the end of the process.
func (p *process) kill(t testing.TB) {
	t.Helper()
	p.signal(t, syscall.SIGKILL)
	<-p.done
}

// lines collects the output of processes line by line.
type lines struct {
	mu   sync.Mutex
	all  []string
	more chan struct{} // closed and replaced with each line
}

func newLines() *lines { return &lines{more: make(chan struct{})} }

func (l *lines) add(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, line)
	close(l.more)
	l.more = make(chan struct{})
}

// writer returns a writer for the output of one process.
func (l *lines) writer() io.Writer { return &lineWriter{to: l} }

// lineWriter passes whole lines on.
type lineWriter struct {
	to   *lines
	rest []byte // start of a line that has not ended
}

func (w *lineWriter) Write(b []byte) (int, error) {
	w.rest = append(w.rest, b...)
	for {
		line, rest, ok := bytes.Cut(w.rest, []byte("\n"))
		if !ok {
			return len(b), nil
		}
		w.to.add(string(line))
		w.rest = rest
	}
}

// search waits for a line that matches and returns its submatches. ok is false
// when no line matched in time.
func (l *lines) search(re *regexp.Regexp, within time.Duration) (found []string, ok bool) {
	timeout := time.After(within)
	for from := 0; ; {
		l.mu.Lock()
		all, more := l.all[from:], l.more
		from = len(l.all)
		l.mu.Unlock()
		for _, s := range all {
			if m := re.FindStringSubmatch(s); m != nil {
				return m, true
			}
		}
		select {
		case <-more:
		case <-timeout:
			return nil, false
		}
	}
}

// matchingLines returns all lines so far that match.
func (l *lines) matchingLines(re *regexp.Regexp) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for _, s := range l.all {
		if re.MatchString(s) {
			out = append(out, s)
		}
	}
	return out
}

// lastSubmatch returns the submatches of the last line so far that matches, or nil when
// no line matches.
func (l *lines) lastSubmatch(re *regexp.Regexp) []string {
	if all := l.matchingLines(re); len(all) > 0 {
		return re.FindStringSubmatch(all[len(all)-1])
	}
	return nil
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.all, "\n")
}

// warningLine matches log lines that can explain why a service failed.
var warningLine = regexp.MustCompile(`"level":"(WARN|ERROR)"|panic|goroutine`)
