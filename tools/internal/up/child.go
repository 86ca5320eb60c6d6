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

// child is one service, kept running as a child process.
type child struct {
	name string
	argv []string
	env  []string // besides that of this process
	log  *slog.Logger
	out  *printer
	// pinned holds the arguments that replace those of argv once an address is
	// known, so that a restarted service listens on the same address.
	pinned map[string]string

	mu      sync.Mutex
	cmd     *exec.Cmd
	addr    map[string]string // by name: http, admin
	changed chan struct{}     // closed and replaced when addr changes
	last    []string          // lines that are not log records, for when it dies
	stopped bool
	done    chan struct{} // closed when run has returned
	// life ends when the child is stopped.
	life    context.Context //nolint:containedctx // of the child
	endLife context.CancelFunc
}

// restartBackoff is the delay before a child is started again that did not stay
// up.
var restartBackoff = retry.Exponential(100*time.Millisecond, 10*time.Second, 2)

const (
	stayedUp  = 10 * time.Second
	lastLines = 10
)

func newChild(name string, argv, env []string, log *slog.Logger, out *printer) *child {
	life, end := context.WithCancel(context.Background())
	return &child{
		life: life, endLife: end, name: name, argv: argv, env: env, log: log, out: out, pinned: map[string]string{},
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
		stopped, last := c.stopped, c.last
		c.mu.Unlock()
		if stopped {
			if err != nil {
				c.log.Warn("service ended with an error", "name", c.name, "error", err)
			}
			return
		}
		if time.Since(began) > stayedUp {
			failures = 1
		}
		delay := restartBackoff.Delay(failures)
		c.log.Error("service died and is restarted", "name", c.name, "error", err, "delay", delay.String(),
			"output", strings.Join(last, " / "))
		if retry.Sleep(c.life, delay) != nil {
			return
		}
	}
}

// runOnce runs the process from start to end.
func (c *child) runOnce() error {
	// The kernel ends the child when the thread that started it ends, so that
	// thread must live as long as the child does (golang/go#27505).
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
	// A group of its own: Ctrl-C on the terminal is for up, which stops its
	// children in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = 2 * time.Second
	r, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		c.mu.Unlock()
		return fmt.Errorf("start %s: %w", c.name, err)
	}
	c.cmd, c.last, c.addr = cmd, nil, map[string]string{}
	c.mu.Unlock()

	read := make(chan struct{})
	go func() {
		defer close(read)
		c.read(r)
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

// read prints what the child says and picks up where it listens.
func (c *child) read(r io.Reader) {
	s := bufio.NewReader(r)
	for {
		line, err := s.ReadString('\n')
		if line != "" {
			c.line(line)
		}
		if err != nil {
			return
		}
	}
}

func (c *child) line(line string) {
	c.out.line(c.name, line)
	c.mu.Lock()
	defer c.mu.Unlock()
	if !json.Valid([]byte(line)) { // records of the log are printed on their own
		if c.last = append(c.last, strings.TrimRight(line, "\n")); len(c.last) > lastLines {
			c.last = c.last[1:]
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

// notify wakes who waits for a change; the lock is held.
func (c *child) notify() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// address waits until the child has said where its server name listens.
func (c *child) address(ctx context.Context, name string) (string, error) {
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

// ready waits until the child says that it is ready, through restarts.
func (c *child) ready(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := c.address(ctx, "admin"); err == nil && c.probe(ctx) == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for %s to be ready: %w", c.name, ctx.Err())
		}
	}
}

// stop asks the child to end and waits for it until ctx ends, then kills it.
func (c *child) stop(ctx context.Context) {
	c.mu.Lock()
	c.stopped = true
	c.endLife()
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

// signal sends s to the process, if there is one; the lock is held, so that it
// is still ours.
func (c *child) signal(s syscall.Signal) {
	if c.cmd == nil {
		return
	}
	if err := c.cmd.Process.Signal(s); err != nil && !errors.Is(err, syscall.ESRCH) {
		c.log.Debug("cannot signal service", "name", c.name, "error", err)
	}
}

// Environ is the environment of a service that shares its machine with the
// whole mesh: half of the CPUs at most, since threads that look for work to do
// take them from lanes (ADR 0006). A GOMAXPROCS in the environment takes precedence.
func Environ() []string {
	env := os.Environ()
	if os.Getenv("GOMAXPROCS") == "" {
		env = append(env, fmt.Sprint("GOMAXPROCS=", max(1, runtime.NumCPU()/2)))
	}
	return env
}
