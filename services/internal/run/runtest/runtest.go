// Package runtest runs a service in the process of its test, from its flags to the
// last line of its log. Services do not link it.
package runtest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sightmesh/sightmesh/contracts/eventually"
	"github.com/sightmesh/sightmesh/services/internal/run"
)

// testTimeout limits waits that only a test that hangs reaches.
const testTimeout = time.Minute

// Service is a running service. It stops at the end of its test.
type Service struct {
	stop  context.CancelFunc
	ended chan struct{}
	err   error // after ended

	mu      sync.Mutex
	log     []Line
	read    int           // lines of the log that AwaitLine has returned or passed
	written chan struct{} // closed at the next line
}

// Line has the attributes of a log line.
type Line map[string]any

// Start runs a service with the flags args.
func Start(t testing.TB, spec run.Spec, args ...string) *Service {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s := &Service{stop: cancel, ended: make(chan struct{}), written: make(chan struct{})}
	go func() {
		defer close(s.ended)
		s.err = run.Run(ctx, spec, args, func(string) string { return "" }, logWriter{s, t.Output()})
	}()
	t.Cleanup(func() {
		cancel()
		<-s.ended
	})
	return s
}

// Stop stops the service as a signal does.
func (s *Service) Stop() { s.stop() }

// Wait waits until the service has ended, and returns its error.
func (s *Service) Wait(t testing.TB) error {
	t.Helper()
	select {
	case <-s.ended:
		return s.err
	case <-time.After(testTimeout):
		t.Fatal("the service does not end")
		return nil
	}
}

// AwaitLine waits for the next line of the log with the message msg.
func (s *Service) AwaitLine(t testing.TB, msg string) Line {
	t.Helper()
	timeout := time.After(testTimeout)
	for {
		s.mu.Lock()
		lines, written := s.log[s.read:], s.written
		i := slices.IndexFunc(lines, func(l Line) bool { return l["msg"] == msg })
		if i < 0 {
			s.read = len(s.log)
		} else {
			s.read += i + 1
		}
		s.mu.Unlock()
		if i >= 0 {
			return lines[i]
		}
		select {
		case <-written:
		case <-s.ended:
			t.Fatalf("the service ended without a line %q: %v", msg, s.err)
		case <-timeout:
			t.Fatalf("the log has no line %q", msg)
		}
	}
}

// Count returns how many lines of the log have the message msg.
func (s *Service) Count(msg string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.log {
		if l["msg"] == msg {
			n++
		}
	}
	return n
}

// admin returns the address of the admin server, or "" before it listens.
func (s *Service) admin() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.log {
		if l["msg"] == "listening" && l["name"] == "admin" {
			addr, _ := l["addr"].(string)
			return addr
		}
	}
	return ""
}

// Probe returns the response of a path of the admin server, which must be listening.
func (s *Service) Probe(t testing.TB, path string) (status int, body string) {
	t.Helper()
	client := &http.Client{Timeout: testTimeout, Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Get("http://" + s.admin() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(text)
}

// AwaitReady waits until /readyz responds with 200.
func (s *Service) AwaitReady(t testing.TB) {
	t.Helper()
	s.await(t, http.StatusOK, "")
}

// AwaitNotReady waits until /readyz responds with 503 and a reason that contains
// reason.
func (s *Service) AwaitNotReady(t testing.TB, reason string) {
	t.Helper()
	s.await(t, http.StatusServiceUnavailable, reason)
}

func (s *Service) await(t testing.TB, want int, text string) {
	t.Helper()
	s.awaitAdmin(t)
	eventually.Succeeds(t, testTimeout, func() error {
		status, body := s.Probe(t, "/readyz")
		if status != want || !strings.Contains(body, text) {
			return fmt.Errorf("/readyz is %d %q, want %d with %q", status, body, want, text)
		}
		return nil
	})
}

// awaitAdmin waits until the admin server listens.
func (s *Service) awaitAdmin(t testing.TB) {
	t.Helper()
	timeout := time.After(testTimeout)
	for {
		s.mu.Lock()
		written := s.written
		s.mu.Unlock()
		if s.admin() != "" {
			return
		}
		select {
		case <-written:
		case <-s.ended:
			t.Fatalf("the service ended before it listened: %v", s.err)
		case <-timeout:
			t.Fatal("the service does not listen")
		}
	}
}

// logWriter keeps the lines of a log. A logger writes each with one call.
type logWriter struct {
	*Service
	out io.Writer
}

func (w logWriter) Write(b []byte) (int, error) {
	var l Line
	if json.Unmarshal(b, &l) == nil {
		w.mu.Lock()
		w.log = append(w.log, l)
		close(w.written)
		w.written = make(chan struct{})
		w.mu.Unlock()
	}
	return w.out.Write(b)
}
