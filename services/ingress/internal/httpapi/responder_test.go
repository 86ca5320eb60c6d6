package httpapi

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/sightmesh/sightmesh/contracts/retry"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/ingress/internal/intake"
	"github.com/sightmesh/sightmesh/services/internal/spantest"
)

func newTestResponder() *responder {
	return &responder{
		tracer: sdktrace.NewTracerProvider().Tracer("test"), logger: slog.New(slog.DiscardHandler),
		metrics: NewMetrics(prometheus.NewRegistry()), writeGrace: writeGrace, writeRate: 1 << 10,
		origins: &origins{any: true}, draining: context.Background(),
	}
}

// dialServer returns a connection to a server of h.
func dialServer(t *testing.T, h http.Handler) net.Conn {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	c, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// dial returns a connection to a server of h on which a request was sent.
func dial(t *testing.T, h http.Handler) net.Conn {
	t.Helper()
	c := dialServer(t, h)
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
			case <-time.After(time.Minute):
				t.Fatal("the response is still held")
			}
			if n, _ := io.Copy(io.Discard, c); n >= int64(len(result)) {
				t.Errorf("the client got %d bytes, want that the connection was closed before", n)
			}
		})
	}
}

func TestResponder_ExtendsTheDeadlineForASlowClient(t *testing.T) {
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

// TestResponder_KeepsTheDeadlineOfAHandler checks the case of event streams, which set a deadline for each
// event.
func TestResponder_KeepsTheDeadlineOfAHandler(t *testing.T) {
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

// serve calls h with a request, and returns the span of the request.
func serve(t *testing.T, r *http.Request, h handlerFunc) sdktrace.ReadOnlySpan {
	t.Helper()
	re, spans := newTestResponder(), tracetest.NewSpanRecorder()
	re.tracer = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)).Tracer("test")
	func() {
		defer func() { recover() }() // the panic that makes the server close the connection
		re.handler("/v1/images/{id}", h).ServeHTTP(httptest.NewRecorder(), r)
	}()
	return spans.Ended()[0]
}

func TestResponder_SpanAttributes(t *testing.T) {
	t.Parallel()
	r := httptest.NewRequest("BREW", "http://mesh.example:8080/v1/images/1?callback=https://a:secret@b/",
		strings.NewReader("body"))
	r.RemoteAddr = "[2001:db8::1]:4711"
	r.Header.Set("User-Agent", "test/1")
	span := serve(t, r, func(w http.ResponseWriter, _ *http.Request) error {
		_, err := w.Write([]byte("result"))
		return err
	})
	if span.Name() != "HTTP /v1/images/{id}" {
		t.Errorf("the span of an unknown method is %q", span.Name())
	}
	want := map[attribute.Key]string{
		"http.request.method": "_OTHER", "http.request.method_original": "BREW", "http.route": "/v1/images/{id}",
		"url.scheme": "http", "url.path": "/v1/images/1", "server.address": "mesh.example", "server.port": "8080",
		"client.address": "2001:db8::1", "network.protocol.version": "1.1", "user_agent.original": "test/1",
		"http.request.body.size": "4", "http.response.body.size": "6", "http.response.status_code": "200",
	}
	if got := spantest.Attributes(span.Attributes()); !maps.Equal(got, want) {
		t.Errorf("the span has the attributes\n%v, want\n%v", got, want)
	}
}

func TestResponder_SpanStatus(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		err                 error
		code, problem, kind string
	}{
		"a problem of the client":        {v1.NewProblem(v1.Damaged, ""), "422", "damaged", ""},
		"a problem of the server":        {v1.NewProblem(v1.Unavailable, ""), "503", "unavailable", "unavailable"},
		"an error":                       {errors.New("a bug"), "500", "internal", "internal"},
		"a client that has disconnected": {context.Canceled, "499", "", "cancelled"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			span := serve(t, httptest.NewRequest(http.MethodGet, "/", nil),
				func(http.ResponseWriter, *http.Request) error { return tt.err })
			attrs := spantest.Attributes(span.Attributes())
			if got := attrs["http.response.status_code"]; got != tt.code {
				t.Errorf("the status code is %s, want %s", got, tt.code)
			}
			if got := attrs["sightmesh.problem"]; got != tt.problem {
				t.Errorf("the problem is %q, want %q", got, tt.problem)
			}
			if got := attrs["error.type"]; got != tt.kind {
				t.Errorf("error.type is %q, want %q", got, tt.kind)
			}
			if failed := span.Status().Code == codes.Error; failed != (tt.kind != "") {
				t.Errorf("the status of the span is %v", span.Status().Code)
			}
		})
	}
}

func TestResponder_WritesAProblemForEveryError(t *testing.T) {
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
			if w.Code != tt.status {
				t.Errorf("the status is %d, want %d", w.Code, tt.status)
			}
			if p.Status != tt.status {
				t.Errorf("the status in the problem is %d, want %d", p.Status, tt.status)
			}
			if p.Code != tt.code {
				t.Errorf("the code is %s, want %s", p.Code, tt.code)
			}
			if got := w.Header().Get("Content-Type"); got != "application/problem+json" {
				t.Errorf("the content type is %s, want application/problem+json", got)
			}
			for _, reason := range []string{"secret", "bug"} {
				if strings.Contains(w.Body.String(), reason) {
					t.Errorf("the response contains the reason %q, which is for the log: %s", reason, w.Body)
				}
			}
			if p.TraceID == "" {
				t.Error("the problem has no trace ID")
			}
			if trace := w.Header().Get("traceparent"); !strings.Contains(trace, p.TraceID) {
				t.Errorf("traceparent is %q, want the trace %s", trace, p.TraceID)
			}
			if got := w.Header().Get("Retry-After"); got != tt.retryAfter {
				t.Errorf("Retry-After %q, want %q", got, tt.retryAfter)
			}
		})
	}
}

// TestResponder_DiscardsTheBodyOfAProblem checks that a client such as a proxy, which sends all of its
// body before it reads, gets the problem. The discarded bytes have a limit in size and in time.
func TestResponder_DiscardsTheBodyOfAProblem(t *testing.T) {
	t.Parallel()
	const size = 8 << 20 // more than the kernel holds of a connection
	for name, tt := range map[string]struct {
		bytes    int64
		time     time.Duration
		complete bool   // whether the client can send all
		expect   string // a header of the request
	}{
		"all":                {size, time.Minute, true, ""},
		"a part of it":       {size / 8, time.Minute, false, ""},
		"for a short time":   {size, time.Nanosecond, false, ""},
		"after 100 Continue": {size, time.Minute, true, "Expect: 100-continue\r\n"},
	} {
		re := newTestResponder()
		re.discardBytes, re.discardTime = tt.bytes, tt.time
		c := dialServer(t, re.handler("/x", func(w http.ResponseWriter, r *http.Request) error {
			if _, err := io.ReadFull(r.Body, make([]byte, 1)); err != nil {
				return err
			}
			w.Header().Set("Connection", "close")
			return v1.NewProblem(v1.TooLarge, "too large")
		}))
		if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		_, err := fmt.Fprintf(c, "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n%s\r\n", size, tt.expect)
		if err != nil {
			t.Fatal(err)
		}
		if _, err = c.Write(make([]byte, size)); (err == nil) != tt.complete {
			t.Errorf("%s: sending the body: %v, want it sent: %v", name, err, tt.complete)
		}
		if !tt.complete {
			continue
		}
		in := bufio.NewReader(c)
		res, err := http.ReadResponse(in, nil)
		if err == nil && res.StatusCode == http.StatusContinue {
			res, err = http.ReadResponse(in, nil)
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		res.Body.Close()
		if res.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("%s: %s, want 413", name, res.Status)
		}
	}
}
