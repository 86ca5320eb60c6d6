package pool

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/lane/internal/jsonerror"
	"github.com/sightmesh/sightmesh/lane/internal/launch"
)

// process is a child process and the socket to it.
type process struct {
	cmd *exec.Cmd
	// conn is in blocking mode, see lane.Inherited. A read that takes too long ends when the
	// process is killed.
	conn   *os.File
	r      *bufio.Reader
	output *outputTail
	jobs   atomic.Int64 // requests with a reply
	// unknown are the fields of replies that were logged because the protocol does not have them. It is used by the
	// request that the process works on.
	unknown map[string]bool
	// working and measured are used by checkMemory; only its goroutine uses measured.
	working  atomic.Bool
	measured int64
	dead     chan struct{} // closed when the process has ended and was reaped

	mu         sync.Mutex
	killReason error // reason of the pool for killing it, nil if it ended by itself
	exitErr    error // error of cmd.Wait
}

// Reasons of the pool for killing a process.
var (
	errStopped  = errors.New("stopped")
	errRecycled = errors.New("recycled")
	errTimeout  = errors.New("timeout")
	errDeadline = errors.New("deadline")
	errMemory   = errors.New("memory")
	errProtocol = errors.New("protocol")
)

// errNotSent is the error of a process that ended before it had the whole request, which
// therefore is not the cause.
var errNotSent = errors.New("the process ended before it received the request")

// startProcess starts a process of a program.
func startProcess(prog Program, log *slog.Logger) (*process, error) {
	words := &outputTail{log: log}
	cmd, conn, err := launch.Start(prog.Argv, nil, words)
	if err != nil {
		return nil, fmt.Errorf("start lane program %s: %w", prog.Name, err)
	}
	p := &process{
		cmd: cmd, conn: conn, r: bufio.NewReaderSize(conn, 64<<10), output: words,
		unknown: map[string]bool{}, dead: make(chan struct{}),
	}
	socket := int(conn.Fd())
	go func() { // ends with the process; callers wait for p.dead
		// Kill the processes that it has started too, also when it ends by itself. No
		// other process group can get its number before it is reaped.
		awaitExit(p.pid())
		_ = syscall.Kill(-p.pid(), syscall.SIGKILL) // there may be nothing left
		err := p.cmd.Wait()
		words.logRest()
		p.mu.Lock()
		p.exitErr = err
		p.mu.Unlock()
		close(p.dead)
		// A process outside of the group may still hold the other end open.
		_ = unix.Shutdown(socket, unix.SHUT_RDWR) // does not fail: our end is open
		p.conn.Close()
	}()
	return p, nil
}

// awaitExit waits until a child process has ended, and does not reap it.
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

// diedByItself reports whether the process has ended without being killed by the pool.
func (p *process) diedByItself() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.isDead() && p.killReason == nil
}

// kill kills the process and its process group. The reason of the first call is kept.
func (p *process) kill(reason error) {
	p.mu.Lock()
	if p.killReason == nil && !p.isDead() {
		p.killReason = reason
	}
	p.mu.Unlock()
	// dead is closed as soon as the process is reaped, so another process is very unlikely
	// to have its number.
	if !p.isDead() {
		_ = syscall.Kill(-p.pid(), syscall.SIGKILL) // it may have ended by itself
	}
}

// endReason returns why a process has ended.
func (p *process) endReason() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	how := "exit status 0"
	if p.exitErr != nil {
		how = p.exitErr.Error()
	}
	if words := p.output.lastLines(); words != "" {
		how += ", last output: " + words
	}
	if p.killReason != nil {
		return fmt.Errorf("%w (pid %d, %s)", p.killReason, p.pid(), how)
	}
	return fmt.Errorf("died (pid %d, %s)", p.pid(), how)
}

// restartReason returns the reason of a restart for metrics and logs.
func restartReason(err error) string {
	for _, e := range []error{errStopped, errRecycled, errTimeout, errDeadline, errMemory, errProtocol} {
		if errors.Is(err, e) {
			return e.Error()
		}
	}
	return "died"
}

// handshake sends start to the process and waits until it is ready.
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
		return nil, p.connError(err)
	}
	facts, _, err := lane.ReadFrame(p.r)
	if err != nil {
		return nil, p.connError(err)
	}
	var ready lane.Ready
	if err := json.Unmarshal(facts, &ready); err != nil {
		return nil, fmt.Errorf("%w: the reply to start is invalid: %s", errProtocol, jsonerror.Describe("", facts, err))
	}
	p.logUnknownField(facts, lane.TypeReady)
	if ready.Type != lane.TypeReady || ready.Protocol != lane.Protocol {
		return nil, fmt.Errorf("%w: the reply to start has the type %q and the protocol %d, want %q and %d",
			errProtocol, ready.Type, ready.Protocol, lane.TypeReady, lane.Protocol)
	}
	for name := range prog.Pipelines {
		if _, ok := ready.Pipelines[name]; !ok {
			return nil, fmt.Errorf("%w: the reply to start has the pipelines %q, want also %q", errProtocol,
				slices.Sorted(maps.Keys(ready.Pipelines)), name)
		}
	}
	return ready.Pipelines, nil
}

// fieldChecks is how many replies of a process are searched for unknown fields. The search takes about as long as the
// decoding of the reply.
const fieldChecks = 100

// listIndex matches the number of an entry in the path of a field.
var listIndex = regexp.MustCompile(`\.\d+`)

// logUnknownField logs a field of a reply that the protocol does not have, once for all entries of a list. It is
// ignored, and it is often misspelt.
func (p *process) logUnknownField(facts []byte, reply lane.Type) {
	field := lane.UnknownField(facts, reply)
	name := listIndex.ReplaceAllString(field, "")
	if field == "" || p.unknown[name] {
		return
	}
	p.unknown[name] = true
	p.output.log.Warn("a reply has a field that the protocol of lanes does not have; the field is ignored",
		"reply", reply, "field", strings.ToValidUTF8(field[:min(len(field), 200)], ""))
}

// connError returns the error of a process after a failed read or write. It waits for a process
// that is ending, so that its exit status is known.
func (p *process) connError(err error) error {
	if errors.Is(err, lane.ErrFrameTooLarge) {
		return fmt.Errorf("%w: %w", errProtocol, err)
	}
	t := time.NewTimer(time.Second)
	defer t.Stop()
	select {
	case <-p.dead:
		return p.endReason()
	case <-t.C:
		return fmt.Errorf("%w: it closed its socket and did not exit", errProtocol)
	}
}

// outputTail keeps the end of the output of a process, and logs all of it.
type outputTail struct {
	log  *slog.Logger
	mu   sync.Mutex
	buf  []byte
	line []byte // line that is not complete
}

// maxOutputTail is how many bytes are kept: enough for the stack traces of a Go program,
// which follow the message of a crash.
const maxOutputTail = 64 << 10

// crashDump matches the first line that the Go runtime writes when the program crashes.
var crashDump = regexp.MustCompile(`(?m)^(SIG[A-Z]+: |panic: |fatal error: |runtime: )`)

// stackBelow matches the message of an error and the first line of its stack, which Node.js and Java write below it.
var stackBelow = regexp.MustCompile(`(?m)^(.*(?:Error|Exception)\b.*)\n\s+at `)

func (w *outputTail) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.line = append(w.line, b...)
	for {
		line, rest, complete := bytes.Cut(w.line, []byte("\n"))
		if !complete {
			break
		}
		w.logLine(line)
		w.line = rest
	}
	if len(w.line) > maxOutputTail {
		w.logLine(w.line)
		w.line = nil
	}
	w.buf = append(w.buf, b...)
	if over := len(w.buf) - maxOutputTail; over > 0 {
		w.buf = append(w.buf[:0], w.buf[over:]...)
	}
	return len(b), nil
}

// logRest logs the line that is not complete.
func (w *outputTail) logRest() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.logLine(w.line)
	w.line = nil
}

func (w *outputTail) logLine(line []byte) {
	if line = bytes.TrimRight(line, " \t\r\n"); len(line) > 0 {
		w.log.Debug("lane output", "output", string(line))
	}
}

// lastLines returns the last lines, without the stack traces of a crash, joined into one line.
func (w *outputTail) lastLines() string {
	w.mu.Lock()
	text := string(w.buf)
	w.mu.Unlock()
	if at := crashDump.FindStringIndex(text); at != nil {
		line, _, _ := strings.Cut(text[at[0]:], "\n")
		text = text[:at[0]] + line
	} else if all := stackBelow.FindAllStringSubmatchIndex(text, -1); len(all) > 0 {
		text = text[:all[len(all)-1][3]] // up to the end of the message
	}
	lines := strings.Split(strings.TrimSpace(text), "\n")
	lines = lines[max(0, len(lines)-4):]
	s := strings.Join(strings.Fields(strings.Join(lines, " / ")), " ")
	return s[max(0, len(s)-500):]
}
