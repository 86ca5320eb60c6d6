package up

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/sightmesh/sightmesh/contracts/retry"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// child runs a service as a child process, and restarts it when it ends.
type child struct {
	name string
	argv []string
	env  []string // in addition to the environment of this process
	log  *slog.Logger
	out  *printer
	// pinned has flags with addresses that the service has logged. They follow argv and override its flags, so that
	// a restarted service listens on the same address.
	pinned map[string]string

	mu         sync.Mutex
	cmd        *exec.Cmd
	addr       map[string]string // by name: http, admin
	changed    chan struct{}     // closed and replaced when addr changes
	lastOutput []string          // the last lines that are not log records; logged when the child dies
	stopped    bool
	done       chan struct{} // closed when run has returned
	// ctx ends when the child is stopped.
	ctx    context.Context //nolint:containedctx // the lifetime of the child
	cancel context.CancelFunc
}

// restartBackoff is the delay before a child is restarted. It grows while the child dies within stableAfter.
var restartBackoff = retry.Exponential(100*time.Millisecond, 10*time.Second, 2)

const (
	stableAfter   = 10 * time.Second // a child that ran this long is restarted after the first delay
	maxLastOutput = 10               // lines
)

func newChild(name string, argv, env []string, log *slog.Logger, out *printer) *child {
	ctx, cancel := context.WithCancel(context.Background())
	return &child{
		ctx: ctx, cancel: cancel, name: name, argv: argv, env: env, log: log, out: out, pinned: map[string]string{},
		addr: map[string]string{}, changed: make(chan struct{}), done: make(chan struct{}),
	}
}

// run keeps the child running until stop or kill is called.
func (c *child) run() {
	defer close(c.done)
	for failures := 1; ; failures++ {
		began := time.Now()
		err := c.runOnce()
		c.mu.Lock()
		stopped, last := c.stopped, c.lastOutput
		c.mu.Unlock()
		if stopped {
			if err != nil {
				c.log.Warn("service ended with an error", "name", c.name, "error", err)
			}
			return
		}
		if time.Since(began) > stableAfter {
			failures = 1
		}
		delay := restartBackoff.Delay(failures)
		c.log.Error("service died and is restarted", "name", c.name, "error", err, "delay", delay.String(),
			"output", strings.Join(last, " / "))
		if retry.Sleep(c.ctx, delay) != nil {
			return
		}
	}
}

// runOnce runs the process from start to end.
func (c *child) runOnce() error {
	// The kernel kills the child when the thread that started it ends, so this thread must live as long as the child
	// (golang/go#27505).
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	c.mu.Lock()
	if c.stopped {
		c.mu.Unlock()
		return nil
	}
	argv := append([]string{}, c.argv...)
	for flag, value := range c.pinned {
		argv = append(argv, flag, value)
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(Environ(), c.env...)
	// The child has its own process group, so that Ctrl-C on the terminal only signals up, which stops the children
	// in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = 2 * time.Second
	r, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		c.mu.Unlock()
		return fmt.Errorf("start %s: %w", c.name, err)
	}
	c.cmd, c.lastOutput, c.addr = cmd, nil, map[string]string{}
	c.mu.Unlock()

	read := make(chan struct{})
	go func() {
		defer close(read)
		c.readOutput(r)
	}()
	err := cmd.Wait()
	w.Close()
	<-read
	c.mu.Lock()
	c.cmd = nil
	c.addr = map[string]string{}
	c.mu.Unlock()
	if err != nil {
		return fmt.Errorf("run %s: %w", c.name, err)
	}
	return nil
}

// readOutput prints the output of the child and records its addresses.
func (c *child) readOutput(r io.Reader) {
	s := bufio.NewReader(r)
	for {
		line, err := s.ReadString('\n')
		if line != "" {
			c.handleLine(line)
		}
		if err != nil {
			return
		}
	}
}

// handleLine prints a line of the child, and records its address or keeps it as last output.
func (c *child) handleLine(line string) {
	c.out.line(c.name, line)
	c.mu.Lock()
	defer c.mu.Unlock()
	if !json.Valid([]byte(line)) { // log records are printed already
		if c.lastOutput = append(c.lastOutput, strings.TrimRight(line, "\n")); len(c.lastOutput) > maxLastOutput {
			c.lastOutput = c.lastOutput[1:]
		}
	}
	if l, ok := v1.ParseListening([]byte(line)); ok {
		c.addr[l.Name] = l.Addr
		if l.Name == "http" {
			c.pinned["--http"] = l.Addr
		}
		c.notify()
	}
}

// notify wakes the goroutines that wait for a change. The caller holds the lock.
func (c *child) notify() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// awaitAddress waits until the child has logged the address of its listener name, and returns the address.
func (c *child) awaitAddress(ctx context.Context, name string) (string, error) {
	for {
		c.mu.Lock()
		addr, changed := c.addr[name], c.changed
		c.mu.Unlock()
		if addr != "" {
			return addr, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
}

// awaitReady waits until the child is ready. The child may be restarted meanwhile. awaitReady logs from time
// to time why the child is not ready.
func (c *child) awaitReady(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	late := time.NewTicker(latePeriod)
	defer late.Stop()
	var reason error
	for {
		err := c.probe(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil || reason == nil {
			reason = err
		}
		select {
		case <-tick.C:
		case <-late.C:
			c.log.Info("waiting until the service is ready", "name", c.name, "reason", reason.Error())
		case <-ctx.Done():
			return fmt.Errorf("wait for %s to be ready: %w: %w", c.name, ctx.Err(), reason)
		}
	}
}

// latePeriod is how often a service that is not ready is logged.
const latePeriod = 5 * time.Second

// stop sends SIGTERM to the child and waits for its end. When ctx ends first, stop kills the child.
func (c *child) stop(ctx context.Context) {
	c.mu.Lock()
	c.stopped = true
	c.cancel()
	c.notify()
	c.signal(syscall.SIGTERM)
	c.mu.Unlock()
	select {
	case <-c.done:
	case <-ctx.Done():
		c.log.Warn("service did not end in time", "name", c.name)
		c.mu.Lock()
		c.signal(syscall.SIGKILL)
		c.mu.Unlock()
		<-c.done
	}
}

// signal sends s to the process if it runs. The caller holds the lock, so that the process ID is not reused.
func (c *child) signal(s syscall.Signal) {
	if c.cmd == nil {
		return
	}
	if err := c.cmd.Process.Signal(s); err != nil && !errors.Is(err, syscall.ESRCH) {
		c.log.Debug("cannot signal service", "name", c.name, "error", err)
	}
}

// Environ returns the environment of a service on the machine of the whole mesh. It sets GOMAXPROCS to half of the
// CPUs, because idle threads of Go that look for work use CPU time that lanes need (ADR 0006). A GOMAXPROCS in the
// environment takes precedence.
func Environ() []string {
	env := os.Environ()
	if os.Getenv("GOMAXPROCS") == "" {
		env = append(env, fmt.Sprint("GOMAXPROCS=", max(1, runtime.NumCPU()/2)))
	}
	return env
}
