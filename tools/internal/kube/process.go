package kube

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// process is a child process. Its output goes to a log file in the state folder.
type process struct {
	name string
	log  string
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
}

// Run starts a program, which Close stops. Its environment is that of this process,
// with env added.
func (c *Cluster) Run(name string, env []string, program string, args ...string) error {
	_, err := c.run(name, env, program, args...)
	return err
}

func (c *Cluster) run(name string, env []string, program string, args ...string) (*process, error) {
	p := &process{name: name, log: c.file(name + ".log"), done: make(chan struct{})}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	defer log.Close() // the process has a copy
	p.cmd = exec.Command(program, args...)
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // the log says why
	}()
	c.processes = append(c.processes, p)
	return p, nil
}

// stopTimeout is the time for a process to end after SIGTERM, before it is killed.
const stopTimeout = 10 * time.Second

func (p *process) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", p.name, err)
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(stopTimeout):
	}
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", p.name, err)
	}
	<-p.done
	return nil
}

// startTimeout is the time for a process to become ready.
const startTimeout = 2 * time.Minute

// await waits until isReady returns nil. It returns an error when the process ends, and after startTimeout.
func (p *process) await(ctx context.Context, isReady func(context.Context) error) error {
	if err := await(ctx, p.done, isReady); err != nil {
		return fmt.Errorf("%s is not ready: %w\n%s", p.name, err, p.tail())
	}
	return nil
}

// await waits until isReady returns nil. It returns an error when a process ends, and after startTimeout.
func await(ctx context.Context, ended <-chan struct{}, isReady func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		err := isReady(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ended:
			return fmt.Errorf("the process has ended: %w", err)
		case <-ctx.Done():
			return err
		}
	}
}

// tail returns the last lines of the log.
func (p *process) tail() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-10):], "\n")
}

// file returns the path of a file in the state folder.
func (c *Cluster) file(name string) string { return filepath.Join(c.config.State, name) }

// program returns the path of a program in the folder of programs.
func (c *Cluster) program(name string) string { return filepath.Join(c.config.Programs, name) }
