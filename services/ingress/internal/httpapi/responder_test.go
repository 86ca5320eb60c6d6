package httpapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
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
		metrics: NewMetrics(prometheus.NewRegistry()),
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
