package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/sightmesh/sightmesh/contracts/retry"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/ingress/internal/intake"
)

func newTestResponder() *responder {
	return &responder{
		tracer: sdktrace.NewTracerProvider().Tracer("test"), logger: slog.New(slog.DiscardHandler),
		metrics: NewMetrics(prometheus.NewRegistry()), writeGrace: writeGrace, writeRate: 1 << 10,
		draining: context.Background(),
	}
}

// dial returns a connection to a server of h whose client has sent a request and
// reads nothing.
func dial(t *testing.T, h http.Handler) net.Conn {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	c, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := c.Write([]byte("GET /x HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestResponder_ClosesTheConnectionOfAClientThatDoesNotRead(t *testing.T) {
	t.Parallel()
	for name, send := range map[string]func(http.ResponseWriter, []byte) error{
		"one write": func(w http.ResponseWriter, b []byte) error {
			_, err := w.Write(b)
			return err
		},
		"many writes": func(w http.ResponseWriter, b []byte) error {
			for part := range slices.Chunk(b, 32<<10) {
				if _, err := w.Write(part); err != nil {
					return err
				}
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			re := newTestResponder()
			re.writeGrace, re.writeRate = 100*time.Millisecond, 64<<20
			result := make([]byte, 32<<20) // more than the kernel holds
			sent := make(chan error, 1)
			c := dial(t, re.handler("/x", func(w http.ResponseWriter, _ *http.Request) error {
				err := send(w, result)
				sent <- err
				return err
			}))
			select {
			case err := <-sent:
				if !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("the response ended with %v, want %v", err, os.ErrDeadlineExceeded)
				}
			case <-time.After(20 * time.Second):
				t.Fatal("the response is still held")
			}
			if n, _ := io.Copy(io.Discard, c); n >= int64(len(result)) {
				t.Errorf("the client got %d bytes, want that the connection was closed before", n)
			}
		})
	}
}

func TestResponder_GivesASlowClientTheTimeOfItsBytes(t *testing.T) {
	t.Parallel()
	re := newTestResponder()
	re.writeGrace, re.writeRate = time.Nanosecond, 1<<10 // all of the time is for the bytes
	result := make([]byte, 1<<20)
	c := dial(t, re.handler("/x", func(w http.ResponseWriter, _ *http.Request) error {
		w.Header().Set("Connection", "close")
		_, err := w.Write(result)
		return err
	}))
	if n, err := io.Copy(io.Discard, c); n < int64(len(result)) {
		t.Errorf("the client got %d bytes (%v), want all", n, err)
	}
}

// TestResponder_LeavesTheDeadlineOfAHandler: event streams give each event its
// own time.
func TestResponder_LeavesTheDeadlineOfAHandler(t *testing.T) {
	t.Parallel()
	re := newTestResponder()
	re.writeGrace, re.writeRate = time.Nanosecond, 1<<40 // passes at once
	c := dial(t, re.handler("/x", func(w http.ResponseWriter, _ *http.Request) error {
		w.Header().Set("Connection", "close")
		w.WriteHeader(http.StatusOK)
		if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(time.Minute)); err != nil {
			return err
		}
		_, err := w.Write([]byte("an event"))
		return err
	}))
	got, err := io.ReadAll(c)
	if !strings.Contains(string(got), "an event") {
		t.Errorf("got %q (%v), want the event", got, err)
	}
}

func TestResponder_MakesAProblemOfEveryError(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		handler    handlerFunc
		status     int
		code       v1.Code
		retryAfter string
	}{
		"panic": {func(http.ResponseWriter, *http.Request) error { panic("bug") }, 500, v1.Internal, ""},
		"error": {func(http.ResponseWriter, *http.Request) error { return errors.New("secret") }, 500, v1.Internal, ""},
		"problem": {func(http.ResponseWriter, *http.Request) error {
			return fmt.Errorf("x: %w", v1.NewProblem(v1.Damaged, "bad"))
		}, 422, v1.Damaged, ""},
		"of the mesh": {func(http.ResponseWriter, *http.Request) error {
			err := &intake.ServerError{Problem: v1.NewProblem(v1.Overloaded, "full"), Err: errors.New("secret")}
			return retry.After(err, time.Second)
		}, 429, v1.Overloaded, "1"},
		"passes": {func(http.ResponseWriter, *http.Request) error {
			return retry.After(v1.NewProblem(v1.NoWorker, "none"), 6500*time.Millisecond)
		}, 503, v1.NoWorker, "7"},
		"passes, unknown when": {func(http.ResponseWriter, *http.Request) error {
			return v1.NewProblem(v1.Unavailable, "")
		}, 503, v1.Unavailable, "5"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := httptest.NewRecorder()
			newTestResponder().handler("/x", tt.handler).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/x", nil))
			var p v1.Problem
			if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
				t.Fatal(err)
			}
			if w.Code != tt.status || p.Status != tt.status || p.Code != tt.code || w.Header().Get("Content-Type") != "application/problem+json" {
				t.Errorf("got %d %v: %s, want %d %s", w.Code, w.Header(), w.Body, tt.status, tt.code)
			}
			if strings.Contains(w.Body.String(), "secret") || strings.Contains(w.Body.String(), "bug") {
				t.Errorf("the answer tells what is for the log: %s", w.Body)
			}
			if trace := w.Header().Get("traceparent"); p.TraceID == "" || !strings.Contains(trace, p.TraceID) {
				t.Errorf("trace id %q, traceparent %q", p.TraceID, trace)
			}
			if got := w.Header().Get("Retry-After"); got != tt.retryAfter {
				t.Errorf("Retry-After %q, want %q", got, tt.retryAfter)
			}
		})
	}
}
