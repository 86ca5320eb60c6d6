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

// handlerFunc serves a request. When it returns an error, the response is the problem of the error.
type handlerFunc func(http.ResponseWriter, *http.Request) error

const (
	// writeGrace and writeRate, in bytes per second, are the time for a client to read a response:
	// writeGrace, and the time of its bytes at writeRate. A result of 100 KB has 36 s, and one of 8 MiB is
	// kept for up to 9 minutes.
	writeGrace = 30 * time.Second
	writeRate  = 16 << 10
	// discardBytes and discardTime allow a client to send the largest form of the default configuration at 4
	// MB/s.
	discardBytes = 64 << 20
	discardTime  = 16 * time.Second
)

// responder has what all handlers share.
type responder struct {
	tracer  trace.Tracer
	logger  *slog.Logger
	metrics *Metrics
	// The connection of a client is closed when the client has not read a response after writeGrace and the
	// time of its bytes at writeRate, in bytes per second.
	writeGrace time.Duration
	writeRate  int64
	// discardBytes and discardTime limit how much of the body of a rejected request is read and discarded.
	discardBytes int64
	discardTime  time.Duration
	// origins decides which web pages may use the mesh.
	origins *origins
	// draining ends when each response should be the last of its connection.
	draining context.Context //nolint:containedctx // it is the life of the process, not of a call
}

// handler returns an HTTP handler for h, with a server span that continues the trace of the client, with
// metrics, and with problems for errors.
func (re *responder) handler(route string, h handlerFunc) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w := &responseWriter{
			ResponseWriter: rw, conn: http.NewResponseController(rw), base: getForwarded(r).base,
			grace: re.writeGrace, rate: re.writeRate, draining: re.draining,
		}
		body := &trackedBody{ReadCloser: r.Body}
		r = r.WithContext(r.Context()) // a copy: the server checks the body of the original
		r.Body = body
		if !re.serve(route, h, w, r) && (body.started || r.Header.Get("Expect") == "") {
			re.discardBody(w, r)
		}
	})
}

// serve calls h, and reports whether h returned no error.
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
	defer func() { // a panic affects one request only
		if v := recover(); v != nil {
			re.logger.ErrorContext(ctx, "a request panicked", "route", route, "panic", v)
			re.writeProblem(ctx, w, v1.NewProblem(v1.Internal, "this is our mistake"))
		}
		status := w.status
		switch {
		case status == 0:
			status = 499 // not sent: the client has disconnected
			telemetry.Fail(span, context.Canceled)
		case w.cutOff:
			telemetry.Fail(span, errCutOff)
		}
		span.SetAttributes(semconv.HTTPResponseStatusCode(status), semconv.HTTPResponseBodySize(w.bytes))
		duration := re.metrics.duration.WithLabelValues(route, method, strconv.Itoa(status))
		telemetry.Observe(ctx, duration, time.Since(start).Seconds())
		if w.status == 0 || w.cutOff { // otherwise the server would send 200, or complete the response
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

// maxRequestID is the maximum length of an X-Request-Id that is returned, in bytes.
const maxRequestID = 128

// requestID returns the X-Request-Id of a request, or "" when it is too long or has characters that are not
// printable.
func requestID(r *http.Request) string {
	id := r.Header.Get("X-Request-Id")
	hidden := func(c rune) bool { return c <= ' ' || c > '~' }
	if len(id) > maxRequestID || strings.ContainsFunc(id, hidden) {
		return ""
	}
	return id
}

// discardBody reads the rest of the body of a rejected request. A proxy such as nginx that is still sending
// the body would otherwise see the connection end, and respond with 502 instead of the problem. A client that
// waits for 100 Continue sends no body.
func (re *responder) discardBody(w *responseWriter, r *http.Request) {
	if w.conn.Flush() != nil || w.conn.SetReadDeadline(time.Now().Add(re.discardTime)) != nil {
		return // the client has disconnected
	}
	_, _ = io.CopyN(io.Discard, r.Body, re.discardBytes) // an error ends the connection
}

// trackedBody records whether reading the body has started, which sends 100 Continue.
type trackedBody struct {
	io.ReadCloser
	started bool
}

func (b *trackedBody) Read(p []byte) (int, error) {
	b.started = true
	return b.ReadCloser.Read(p)
}

// errCutOff is the error of the span when a response has started and cannot be completed. The log has the
// reason.
var errCutOff = errors.New("the response was cut off")

// otherMethod is the name of unknown methods in the semantic conventions. It limits the number of label
// values.
const otherMethod = "_OTHER"

// spanName returns the name of the span of a request. There are few different names.
func spanName(method, route string) string {
	if method == otherMethod {
		method = "HTTP"
	}
	return method + " " + route
}

// requestAttributes returns the attributes of the span of a request by the semantic conventions of HTTP. It
// leaves out the query, because a callback in it may contain a secret of the client.
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

// writeProblem responds to a failed request with a problem as in RFC 9457.
func (re *responder) writeProblem(ctx context.Context, w *responseWriter, err error) {
	if w.status != 0 {
		// The response has already started.
		re.logger.WarnContext(ctx, "cannot complete a response", "error", err)
		w.cutOff = true
		return
	}
	if errors.Is(err, context.Canceled) {
		return // the client has disconnected
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

// recordProblem counts the problem of an error, and logs its reason, which the client does not get.
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

// retryAfter returns the header Retry-After of a transient problem.
func retryAfter(err error) string {
	return cmp.Or(retry.FormatAfter(err), retry.FormatAfter(retry.After(err, intake.RetryDelay)))
}

// writeJSON writes a JSON response.
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

// writeWithETag writes a response that never changes, with its ETag, or 304 when the client has it.
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
	r.Header.Del("Range") // a result is always returned whole
	// ServeContent implements the conditional requests of RFC 9110.
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(append(body, '\n')))
	return nil
}

// responseWriter records the status of a response, and limits the time for the client to read it, because the
// response is in memory until then.
type responseWriter struct {
	http.ResponseWriter
	conn   *http.ResponseController
	status int
	bytes  int  // of the body so far
	cutOff bool // the response has started and cannot be completed
	// base is the prefix of the addresses in the response.
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
	_ = r.extendDeadline(0) // on a closed connection, Write fails too
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

// start records the status of a response that starts. While the service drains, it sets Connection: close,
// because a next request on a connection that is being closed would be lost.
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

// extendDeadline extends the write deadline for n more bytes. The time of earlier bytes remains, because the
// kernel may still buffer them, and a client that reads fast enough must not lose its connection.
func (r *responseWriter) extendDeadline(n int) error {
	if r.ownDeadline {
		return nil
	}
	if soonest := time.Now().Add(r.grace); r.deadline.Before(soonest) {
		r.deadline = soonest
	}
	r.deadline = r.deadline.Add(time.Duration(float64(n) / float64(r.rate) * float64(time.Second)))
	err := r.conn.SetWriteDeadline(r.deadline)
	if err != nil && !errors.Is(err, http.ErrNotSupported) { // some writers in tests have no deadline
		return fmt.Errorf("set write deadline: %w", err)
	}
	return nil
}

// SetWriteDeadline is called by handlers that set their own deadlines, through [http.ResponseController].
// After that, the responseWriter sets none.
func (r *responseWriter) SetWriteDeadline(t time.Time) error {
	r.ownDeadline = true
	return r.conn.SetWriteDeadline(t)
}

// Unwrap gives http.ResponseController access to the connection.
func (r *responseWriter) Unwrap() http.ResponseWriter { return r.ResponseWriter }
