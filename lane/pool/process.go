package pool

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/lane/internal/launch"
)

// process is one child process and the socket to it.
type process struct {
	cmd *exec.Cmd
	// conn blocks, see lane.Inherited: what ends a read that takes too long
	// is the end of the process.
	conn  *os.File
	r     *bufio.Reader
	words *lastWords
	jobs  atomic.Int64 // requests answered
	// working and measured are for watching its memory; measured belongs to
	// the watcher.
	working  atomic.Bool
	measured int64
	dead     chan struct{} // closed when the process is gone and reaped

	mu     sync.Mutex
	killed error // why we ended it
	exit   error // how it ended
}

// Why a process is ended by us.
var (
	errStopped  = errors.New("stopped")
	errRecycled = errors.New("recycled")
	errTimeout  = errors.New("timeout")
	errDeadline = errors.New("deadline")
	errMemory   = errors.New("memory")
	errProtocol = errors.New("protocol")
)

// errUnasked says that a process was gone before it had the whole request,
// which therefore is not to blame.
var errUnasked = errors.New("the process was gone before it was asked")

// startProcess starts the program.
func startProcess(prog Program, log *slog.Logger) (*process, error) {
	words := &lastWords{log: log}
	cmd, conn, err := launch.Start(prog.Argv, nil, words)
	if err != nil {
		return nil, fmt.Errorf("start lane program %s: %w", prog.Name, err)
	}
	p := &process{
		cmd: cmd, conn: conn, r: bufio.NewReaderSize(conn, 64<<10), words: words, dead: make(chan struct{}),
	}
	socket := int(conn.Fd())
	go func() { // ends with the process; who waits for it waits for dead
		// What it has started ends with it, also when it ends by itself. Its
		// number stays its own until it is waited for.
		awaitExit(p.pid())
		_ = syscall.Kill(-p.pid(), syscall.SIGKILL) // there may be nothing left
		err := p.cmd.Wait()
		p.mu.Lock()
		p.exit = err
		p.mu.Unlock()
		close(p.dead)
		// Somebody whom the process has started may hold its end open still.
		_ = unix.Shutdown(socket, unix.SHUT_RDWR) // it is our end, and open
		p.conn.Close()
	}()
	return p, nil
}

// awaitExit returns when a child process has ended, and leaves it to be waited
// for.
func awaitExit(pid int) {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) isDead() bool {
	select {
	case <-p.dead:
		return true
	default:
		return false
	}
}

// diedByItself reports whether the process is gone and was not ended by us.
func (p *process) diedByItself() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.isDead() && p.killed == nil
}

// kill ends the process and everything that it started. The first reason
// counts.
func (p *process) kill(why error) {
	p.mu.Lock()
	if p.killed == nil && !p.isDead() {
		p.killed = why
	}
	p.mu.Unlock()
	// dead is closed as soon as the group's leader is reaped: its number is
	// not given to somebody else so soon.
	if !p.isDead() {
		_ = syscall.Kill(-p.pid(), syscall.SIGKILL) // it may have ended by itself
	}
}

// cause says why a dead process ended.
func (p *process) cause() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	how := "exit status 0"
	if p.exit != nil {
		how = p.exit.Error()
	}
	if words := p.words.last(); words != "" {
		how += ", last words: " + words
	}
	if p.killed != nil {
		return fmt.Errorf("%w (pid %d, %s)", p.killed, p.pid(), how)
	}
	return fmt.Errorf("died (pid %d, %s)", p.pid(), how)
}

// reasonOf gives the label of a restart.
func reasonOf(err error) string {
	for _, e := range []error{errStopped, errRecycled, errTimeout, errDeadline, errMemory, errProtocol} {
		if errors.Is(err, e) {
			return e.Error()
		}
	}
	return "died"
}

// handshake has the process load its models.
func (p *process) handshake(cfg Config, prog Program) (map[string]lane.Loaded, error) {
	start := lane.Start{
		Type: lane.TypeStart, Protocol: lane.Protocol, Stage: string(cfg.Stage),
		Models: cfg.Models, ONNXRuntime: cfg.ONNXRuntime, Pipelines: map[string]lane.Setup{},
	}
	for name, pl := range prog.Pipelines {
		start.Pipelines[name] = pl.Setup
	}
	defer time.AfterFunc(cfg.StartTimeout, func() { p.kill(timeoutError{cfg.StartTimeout}) }).Stop()
	if err := lane.WriteFrame(p.conn, start); err != nil {
		return nil, p.broken(err)
	}
	facts, _, err := lane.ReadFrame(p.r)
	if err != nil {
		return nil, p.broken(err)
	}
	var ready lane.Ready
	if err := json.Unmarshal(facts, &ready); err != nil {
		return nil, fmt.Errorf("%w: answered start with %s", errProtocol, typeError(facts, err))
	}
	if ready.Type != lane.TypeReady || ready.Protocol != lane.Protocol {
		return nil, fmt.Errorf("%w: answered start with %q of protocol %d", errProtocol, ready.Type, ready.Protocol)
	}
	for name := range prog.Pipelines {
		if _, ok := ready.Pipelines[name]; !ok {
			return nil, fmt.Errorf("%w: ready says nothing of pipeline %s", errProtocol, name)
		}
	}
	return ready.Pipelines, nil
}

// broken says what a failed read or write means. A process that went away is
// waited for, so that its exit status is known.
func (p *process) broken(err error) error {
	if errors.Is(err, lane.ErrFrameTooLarge) {
		return fmt.Errorf("%w: %w", errProtocol, err)
	}
	t := time.NewTimer(time.Second)
	defer t.Stop()
	select {
	case <-p.dead:
		return p.cause()
	case <-t.C:
		return fmt.Errorf("%w: closed its socket and lives on", errProtocol)
	}
}

// lastWords keeps the end of what a process writes, and logs the lines.
type lastWords struct {
	log *slog.Logger
	mu  sync.Mutex
	buf []byte
}

// maxLastWords has to hold the dump of a Go program, which comes behind what
// one wants to know.
const maxLastWords = 64 << 10

// dump is how the Go runtime begins to say that the program has crashed.
var dump = regexp.MustCompile(`(?m)^(SIG[A-Z]+: |panic: |fatal error: |runtime: )`)

func (w *lastWords) Write(b []byte) (int, error) {
	w.log.Debug("lane says", "output", string(bytes.TrimSpace(b)))
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf = append(w.buf, b...)
	if over := len(w.buf) - maxLastWords; over > 0 {
		w.buf = append(w.buf[:0], w.buf[over:]...)
	}
	return len(b), nil
}

// last gives the last lines, or those before a crash was dumped, on one line.
func (w *lastWords) last() string {
	w.mu.Lock()
	text := string(w.buf)
	w.mu.Unlock()
	if at := dump.FindStringIndex(text); at != nil {
		line, _, _ := strings.Cut(text[at[0]:], "\n")
		text = text[:at[0]] + line
	}
	lines := strings.Split(strings.TrimSpace(text), "\n")
	lines = lines[max(0, len(lines)-4):]
	s := strings.Join(strings.Fields(strings.Join(lines, " / ")), " ")
	return s[max(0, len(s)-500):]
}
