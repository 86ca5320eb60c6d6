package httpapi

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/sightmesh/sightmesh/contracts/retry"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/ingress/internal/intake"
	"github.com/sightmesh/sightmesh/services/internal/telemetry"
)

// handlerFunc serves a request. A request whose handler returns an error gets
// the problem of that error.
type handlerFunc func(http.ResponseWriter, *http.Request) error

const (
	// writeGrace is how long a client may take to read a response, besides the
	// time of its bytes at writeRate, in bytes per second. A slow client reads a
	// result of 100 KB in 36 s; one of 8 MiB is held for 9 minutes.
	writeGrace = 30 * time.Second
	writeRate  = 16 << 10
	// discardBytes and discardTime let a client send the largest form that is accepted by
	// default, at 4 MB/s.
	discardBytes = 64 << 20
	discardTime  = 16 * time.Second
)

// responder is what all handlers have in common.
type responder struct {
	tracer  trace.Tracer
	logger  *slog.Logger
	metrics *Metrics
	// A client that has not read a response after writeGrace and the time that
	// its bytes take at writeRate, in bytes per second, loses its connection.
	writeGrace time.Duration
	writeRate  int64
	// discardBytes and discardTime bound what is read, and discarded, of the body of a
	// request that was rejected.
	discardBytes int64
	discardTime  time.Duration
	// origins are the web pages that may use the mesh.
	origins *origins
	// draining ends when each response is to be the last of its connection.
	draining context.Context //nolint:containedctx // it is the life of the process, not of a call
}

// handler returns an HTTP handler for h with a server span that continues the
// trace of the caller, with metrics, and with problems for errors.
func (re *responder) handler(route string, h handlerFunc) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w := &responseWriter{
			ResponseWriter: rw, conn: http.NewResponseController(rw), base: getForwarded(r).base,
			grace: re.writeGrace, rate: re.writeRate, draining: re.draining,
		}
		body := &trackedBody{ReadCloser: r.Body}
		r = r.WithContext(r.Context()) // a copy: the server looks at the body of its own
		r.Body = body
		if !re.serve(route, h, w, r) && (body.started || r.Header.Get("Expect") == "") {
			re.discardBody(w, r)
		}
	})
}

// serve answers a request, and reports whether h did without an error.
func (re *responder) serve(route string, h handlerFunc, w *responseWriter, r *http.Request) bool {
	start := time.Now()
	ctx := telemetry.Propagator().Extract(r.Context(), propagation.HeaderCarrier(r.Header))
	method := knownMethod(r.Method)
	ctx, span := re.tracer.Start(ctx, spanName(method, route), trace.WithSpanKind(trace.SpanKindServer),
		trace.WithAttributes(requestAttributes(r, method, route)...))
	defer span.End()
	telemetry.Propagator().Inject(ctx, propagation.HeaderCarrier(w.Header()))
	if id := requestID(r); id != "" {
		w.Header().Set("X-Request-Id", id)
		span.SetAttributes(semconv.HTTPRequestHeader("x-request-id", id))
	}
	re.metrics.inFlight.Inc()
	defer re.metrics.inFlight.Dec()
	defer func() { // a panic is the bug of one request
		if v := recover(); v != nil {
			re.logger.ErrorContext(ctx, "a request panicked", "route", route, "panic", v)
			re.writeProblem(ctx, w, v1.NewProblem(v1.Internal, "this is our mistake"))
		}
		status := w.status
		switch {
		case status == 0:
			status = 499 // the client left; the number is only for us
			telemetry.Fail(span, context.Canceled)
		case w.cutOff:
			telemetry.Fail(span, errCutOff)
		}
		span.SetAttributes(semconv.HTTPResponseStatusCode(status), semconv.HTTPResponseBodySize(w.bytes))
		duration := re.metrics.duration.WithLabelValues(route, method, strconv.Itoa(status))
		telemetry.Observe(ctx, duration, time.Since(start).Seconds())
		if w.status == 0 || w.cutOff { // or the server would say 200, or that this was all
			panic(http.ErrAbortHandler)
		}
	}()
	err := re.origins.check(r)
	if err == nil {
		err = h(w, r.WithContext(ctx))
	}
	if err != nil {
		re.writeProblem(ctx, w, err)
	}
	return err == nil
}

// maxRequestID is the most bytes of an X-Request-Id that is returned.
const maxRequestID = 128

// requestID returns what the client, or its proxy, calls the request. It returns "" for
// one that is no short visible text.
func requestID(r *http.Request) string {
	id := r.Header.Get("X-Request-Id")
	hidden := func(c rune) bool { return c <= ' ' || c > '~' }
	if len(id) > maxRequestID || strings.ContainsFunc(id, hidden) {
		return ""
	}
	return id
}

// discardBody reads the rest of the body of a request that has its problem. A proxy that
// sends it still, such as nginx, would see the connection end, and answer 502 in place of
// the problem. A client that still waits with its body for 100 Continue sends none.
func (re *responder) discardBody(w *responseWriter, r *http.Request) {
	if w.conn.Flush() != nil || w.conn.SetReadDeadline(time.Now().Add(re.discardTime)) != nil {
		return // the client left
	}
	_, _ = io.CopyN(io.Discard, r.Body, re.discardBytes) // whatever ends it ends the connection
}

// trackedBody remembers whether reading a body has begun, which sends 100 Continue.
type trackedBody struct {
	io.ReadCloser
	started bool
}

func (b *trackedBody) Read(p []byte) (int, error) {
	b.started = true
	return b.ReadCloser.Read(p)
}

// errCutOff is why the span of an answer failed that has begun and cannot be
// finished. The log has the reason.
var errCutOff = errors.New("the answer was cut off")

// otherMethod is how the semantic conventions call a method that is not known.
// It keeps labels few.
const otherMethod = "_OTHER"

// spanName returns the name of the span of a request, of few different ones.
func spanName(method, route string) string {
	if method == otherMethod {
		method = "HTTP"
	}
	return method + " " + route
}

// requestAttributes returns the attributes of the span of a request by the semantic
// conventions of HTTP. The query is not among them: a callback in it may hold a
// secret of the client.
func requestAttributes(r *http.Request, method, route string) []attribute.KeyValue {
	attrs := []attribute.KeyValue{
		semconv.HTTPRequestMethodKey.String(method), semconv.HTTPRoute(route),
		semconv.URLScheme(getForwarded(r).scheme), semconv.URLPath(r.URL.Path),
		semconv.NetworkProtocolVersion(fmt.Sprintf("%d.%d", r.ProtoMajor, r.ProtoMinor)),
	}
	if method == otherMethod {
		attrs = append(attrs, semconv.HTTPRequestMethodOriginal(r.Method))
	}
	if r.ContentLength >= 0 {
		attrs = append(attrs, semconv.HTTPRequestBodySize(int(r.ContentLength)))
	}
	if agent := r.UserAgent(); agent != "" {
		attrs = append(attrs, semconv.UserAgentOriginal(agent))
	}
	if client, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		attrs = append(attrs, semconv.ClientAddress(client.Addr().Unmap().String()))
	}
	host, port, err := net.SplitHostPort(r.Host)
	if err != nil {
		return append(attrs, semconv.ServerAddress(r.Host))
	}
	attrs = append(attrs, semconv.ServerAddress(host))
	if n, err := strconv.Atoi(port); err == nil {
		attrs = append(attrs, semconv.ServerPort(n))
	}
	return attrs
}

func knownMethod(m string) string {
	switch m {
	case http.MethodGet, http.MethodPost, http.MethodHead, http.MethodPut, http.MethodDelete, http.MethodOptions,
		http.MethodPatch:
		return m
	}
	return otherMethod
}

// writeProblem answers a request that failed, in the form of RFC 9457.
func (re *responder) writeProblem(ctx context.Context, w *responseWriter, err error) {
	if w.status != 0 {
		// Too late for a problem: the answer has begun.
		re.logger.WarnContext(ctx, "cannot finish an answer", "error", err)
		w.cutOff = true
		return
	}
	if errors.Is(err, context.Canceled) {
		return // the client left
	}
	var p *v1.Problem
	if !errors.As(err, &p) {
		re.logger.ErrorContext(ctx, "request failed", "error", err)
		p = v1.NewProblem(v1.Internal, "the log has the reason under this trace id")
	}
	re.recordProblem(ctx, p, err)
	out := *p
	span := trace.SpanFromContext(ctx)
	out.TraceID = span.SpanContext().TraceID().String()
	telemetry.Reject(span, &out)
	if out.Status == http.StatusTooManyRequests || out.Status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", retryAfter(err))
	}
	body, err := json.Marshal(out)
	if err != nil {
		re.logger.ErrorContext(ctx, "cannot encode a problem", "error", err)
		return
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)+1))
	w.WriteHeader(out.Status)
	if _, err := w.Write(append(body, '\n')); err != nil {
		re.logger.DebugContext(ctx, "cannot send a problem", "error", err)
	}
}

// recordProblem counts the problem that a client is told of an error, and logs what it
// is not told.
func (re *responder) recordProblem(ctx context.Context, p *v1.Problem, err error) {
	re.metrics.problems.WithLabelValues(string(p.Code)).Inc()
	re.logReason(ctx, err)
}

// logReason logs the reason of an error of the mesh.
func (re *responder) logReason(ctx context.Context, err error) {
	var s *intake.ServerError
	if errors.As(err, &s) {
		re.logger.ErrorContext(ctx, "the mesh cannot serve a request", "error", s.Err)
	}
}

// retryAfter returns the Retry-After header of a problem that passes.
func retryAfter(err error) string {
	return cmp.Or(retry.FormatAfter(err), retry.FormatAfter(retry.After(err, intake.RetryDelay)))
}

// writeJSON writes an answer.
func writeJSON(w http.ResponseWriter, status int, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)+1))
	w.WriteHeader(status)
	_, err = w.Write(append(body, '\n'))
	return err
}

// writeWithETag writes what does not change any more with its ETag, or that the
// client has it already.
func writeWithETag(w http.ResponseWriter, r *http.Request, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(body)
	w.Header().Set("Etag", `"`+hex.EncodeToString(sum[:16])+`"`)
	w.Header().Set("Content-Type", "application/json")
	r = r.WithContext(r.Context())
	r.Header = r.Header.Clone()
	r.Header.Del("Range") // of a result nobody wants a part
	// ServeContent knows the conditions of RFC 9110.
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(append(body, '\n')))
	return nil
}

// responseWriter remembers the status of an answer, and bounds how long the client may
// take to read it: until then the answer is in memory.
type responseWriter struct {
	http.ResponseWriter
	conn   *http.ResponseController
	status int
	bytes  int  // of the body, so far
	cutOff bool // the answer has begun and cannot be finished
	// base is what addresses in the response begin with.
	base string

	grace    time.Duration
	rate     int64
	draining context.Context //nolint:containedctx // as in responder
	deadline time.Time
	// ownDeadline is whether the handler sets the deadlines.
	ownDeadline bool
}

func (r *responseWriter) WriteHeader(status int) {
	r.start(status)
	_ = r.extendDeadline(0) // on a connection that is closed, Write fails too
	r.ResponseWriter.WriteHeader(status)
}

func (r *responseWriter) Write(b []byte) (int, error) {
	r.start(http.StatusOK)
	if err := r.extendDeadline(len(b)); err != nil {
		return 0, err
	}
	n, err := r.ResponseWriter.Write(b)
	r.bytes += n
	return n, err
}

// start notes the status of an answer that begins. While the service drains, the
// client is told that it needs another connection for its next request: one that
// it sends just when this one is closed would be lost.
func (r *responseWriter) start(status int) {
	if r.status != 0 {
		return
	}
	r.status = status
	for _, header := range []string{"Location", "Content-Location"} {
		if path := r.Header().Get(header); strings.HasPrefix(path, "/") {
			r.Header().Set(header, r.base+path)
		}
	}
	if status != http.StatusSwitchingProtocols && r.draining.Err() != nil {
		r.Header().Set("Connection", "close")
	}
}

// extendDeadline moves the write deadline for n more bytes. What the client has not read
// of those before keeps its time: the kernel may hold all of it, and a client
// that reads fast enough must not lose its connection.
func (r *responseWriter) extendDeadline(n int) error {
	if r.ownDeadline {
		return nil
	}
	if soonest := time.Now().Add(r.grace); r.deadline.Before(soonest) {
		r.deadline = soonest
	}
	r.deadline = r.deadline.Add(time.Duration(float64(n) / float64(r.rate) * float64(time.Second)))
	err := r.conn.SetWriteDeadline(r.deadline)
	if err != nil && !errors.Is(err, http.ErrNotSupported) { // not every writer in tests has a deadline
		return fmt.Errorf("set write deadline: %w", err)
	}
	return nil
}

// SetWriteDeadline is for a handler that sets the deadlines itself, through
// [http.ResponseController]. Those of the recorder end with it.
func (r *responseWriter) SetWriteDeadline(t time.Time) error {
	r.ownDeadline = true
	return r.conn.SetWriteDeadline(t)
}

// Unwrap lets http.ResponseController reach the connection.
func (r *responseWriter) Unwrap() http.ResponseWriter { return r.ResponseWriter }
