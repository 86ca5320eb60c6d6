package e2e

import (
	"errors"
	"fmt"
	"io"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/sightmesh/sightmesh/tools/internal/up"
)

// supervised is a service that is restarted when it ends, until stop or kill. It
// keeps its HTTP address.
type supervised struct {
	name string
	log  *lines // log of the mesh

	stopping chan struct{} // closed by stop and kill
	done     chan struct{} // closed when the last process has ended
	err      error         // result of the last process; valid once done is closed

	mu      sync.Mutex
	process *process // nil while no process runs
	own     *lines   // log of the process
}

// restartDelay limits the CPU time of a service that ends right after its start.
const restartDelay = 100 * time.Millisecond

func supervise(name, path string, args, env []string, log *lines) *supervised {
	s := &supervised{name: name, log: log, stopping: make(chan struct{}), done: make(chan struct{}), own: newLines()}
	go s.run(path, args, append(up.Environ(), env...))
	return s
}

func (s *supervised) run(path string, args, env []string) {
	defer close(s.done)
	for {
		p, own, err := s.begin(path, args, env)
		if err == nil {
			<-p.done
			err = p.err
		}
		s.mu.Lock()
		s.process = nil
		s.mu.Unlock()
		if s.isStoppedWithin(0) {
			s.err = err
			return
		}
		s.log.add(fmt.Sprintf(`{"level":"ERROR","msg":"service died and is restarted","name":%q,"error":%q}`,
			s.name, fmt.Sprint(err)))
		if addr := own.lastSubmatch(httpLine); addr != nil {
			args = append(args[:len(args):len(args)], "--http", addr[1])
		}
		if s.isStoppedWithin(restartDelay) {
			return
		}
	}
}

// isStoppedWithin waits at most d and reports whether stop or kill was called.
func (s *supervised) isStoppedWithin(d time.Duration) bool {
	select {
	case <-s.stopping:
		return true
	default:
	}
	select {
	case <-s.stopping:
		return true
	case <-time.After(d):
		return false
	}
}

// begin starts a process.
func (s *supervised) begin(path string, args, env []string) (*process, *lines, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isStoppedWithin(0) {
		return nil, s.own, errors.New("stopped before it was started")
	}
	s.own = newLines()
	cmd := exec.Command(path, args...)
	cmd.Env = env
	cmd.Stderr = io.MultiWriter(s.own.writer(), s.log.writer())
	var err error
	s.process, err = startProcess(cmd)
	return s.process, s.own, err
}

// current returns the process, or nil while none runs, and its log.
func (s *supervised) current() (*process, *lines) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.process, s.own
}

func (s *supervised) pid() int {
	if p, _ := s.current(); p != nil {
		return p.cmd.Process.Pid
	}
	return 0
}

func (s *supervised) ready() error {
	_, own := s.current()
	if err := ready(own); err != nil {
		return fmt.Errorf("%s: %w\n%s", s.name, err, own)
	}
	return nil
}

// http returns the HTTP address, or "" for a service without HTTP.
func (s *supervised) http() string {
	_, own := s.current()
	if addr := own.lastSubmatch(httpLine); addr != nil {
		return addr[1]
	}
	return ""
}

// stop ends the service with SIGTERM and returns the error of its process.
func (s *supervised) stop(t testing.TB) error {
	t.Helper()
	s.end(func(p *process) { p.stop(t) })
	return s.err
}

// kill ends the service with SIGKILL.
func (s *supervised) kill(t testing.TB) {
	t.Helper()
	s.end(func(p *process) { p.kill(t) })
}

// end stops further restarts, ends the current process with f and waits for its
// end.
func (s *supervised) end(f func(*process)) {
	s.mu.Lock()
	close(s.stopping)
	p := s.process
	s.mu.Unlock()
	if p != nil {
		f(p)
	}
	<-s.done
}
