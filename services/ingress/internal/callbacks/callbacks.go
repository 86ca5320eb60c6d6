// Package callbacks calls the clients that wanted to be called when a job or
// report is done.
//
// Callbacks wait in the stream CALLBACKS. One that is not taken is tried again
// for a day, later and later, by whichever replica is there; how it goes is
// kept beside the job. A receiver may be called more than once with the same
// webhook-id, and must be ready for it.
package callbacks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/ingress/internal/fetch"
	"github.com/sightmesh/sightmesh/services/internal/bus"
	"github.com/sightmesh/sightmesh/services/internal/telemetry"
)

// Config of a caller. All fields are needed.
type Config struct {
	JetStream jetstream.JetStream
	// Transport must refuse the addresses that clients may not name.
	Transport http.RoundTripper
	// Secrets sign what is sent; there is one at least.
	Secrets []string
	// PerHost bounds the callbacks that are sent to one host at a time.
	PerHost int
	// GiveUp is for how long a callback is tried, at most
	// [streams.CallbackAge].
	GiveUp  time.Duration
	Tracers trace.TracerProvider
	Logger  *slog.Logger
	Metrics prometheus.Registerer
}

// Caller sends callbacks.
type Caller struct {
	js       jetstream.JetStream
	sender   *sender
	hosts    *fetch.Hosts
	giveUp   time.Duration
	tracer   trace.Tracer
	log      *slog.Logger
	attempts *prometheus.CounterVec
}

// New returns a caller, or says which secret cannot be used.
func New(cfg Config) (*Caller, error) {
	s, err := newSender(cfg.Transport, cfg.Secrets)
	if err != nil {
		return nil, err
	}
	if cfg.GiveUp <= 0 || cfg.GiveUp > streams.CallbackAge {
		return nil, fmt.Errorf("callbacks are given up after %v, want at most %v", cfg.GiveUp, streams.CallbackAge)
	}
	return &Caller{
		js: cfg.JetStream, sender: s, hosts: fetch.NewHosts(cfg.PerHost), giveUp: cfg.GiveUp, log: cfg.Logger,
		tracer: cfg.Tracers.Tracer("github.com/sightmesh/sightmesh/services/ingress"),
		attempts: promauto.With(cfg.Metrics).NewCounterVec(prometheus.CounterOpts{
			Name: "sightmesh_callback_attempts_total", Help: "Attempts to call a client back, by outcome: delivered, retried or failed.",
		}, []string{"outcome"}),
	}, nil
}

// Call makes one attempt for a message of CALLBACKS, and ends the message or
// lets it come back.
func (c *Caller) Call(ctx context.Context, m jetstream.Msg) {
	meta, err := m.Metadata()
	id, err2 := subject.ParseCallbacks(m.Subject())
	to := m.Headers().Get(v1.HeaderCallback)
	if err := errors.Join(err, err2); err != nil || to == "" {
		c.log.Error("drop a message that is not a callback", "subject", m.Subject(), "error", err)
		c.last(m, m.TermWithReason("not a callback"))
		return
	}
	ctx = telemetry.WithJob(telemetry.Extract(ctx, m.Headers()), id)
	over := meta.Timestamp.Add(c.giveUp)
	leave, err := c.hosts.TryEnter(hostOf(to))
	if err != nil && time.Now().Before(over) {
		// A receiver that is slow to answer takes nothing from others.
		c.last(m, m.NakWithDelay(putOff/2+rand.N(putOff))) //nolint:gosec // not a secret
		return
	}
	if err == nil {
		defer leave()
	}
	ctx, span := c.tracer.Start(ctx, "callback", trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
		telemetry.AttrJob.String(id), attribute.Int64("messaging.nats.deliveries", int64(meta.NumDelivered))))
	defer span.End()
	var before v1.Callback
	if meta.NumDelivered > 1 { // which does not tell the attempts: it may have been put off
		if _, err := bus.Last(ctx, c.js, streams.Jobs, subject.CallbackState(id), &before); err != nil {
			c.log.WarnContext(ctx, "cannot read how a callback went", "error", err)
			before.Attempts = int(meta.NumDelivered) - 1
		}
	}
	state := v1.Callback{State: v1.CallbackDelivered, Attempts: before.Attempts + 1}
	wait := time.Duration(0)
	err = c.sender.send(ctx, to, id, m.Data())
	var no *refusal
	if errors.As(err, &no) {
		span.SetStatus(codes.Error, no.why)
		wait = delay(state.Attempts, no.retryAfter)
		state.State, state.Error, state.Next = v1.CallbackPending, no.why, time.Now().Add(wait).UTC()
		if no.never || state.Next.After(over) {
			state.State, state.Next = v1.CallbackFailed, time.Time{}
		}
	}
	if err := c.keep(ctx, id, state); err != nil {
		c.log.WarnContext(ctx, "cannot keep how a callback goes", "error", err)
	}
	switch state.State {
	case v1.CallbackPending:
		c.attempts.WithLabelValues("retried").Inc()
		c.last(m, m.NakWithDelay(wait))
	case v1.CallbackFailed:
		c.attempts.WithLabelValues("failed").Inc()
		c.log.WarnContext(ctx, "callback given up", "attempts", state.Attempts, "error", state.Error)
		c.last(m, m.TermWithReason(state.Error))
	default:
		c.attempts.WithLabelValues("delivered").Inc()
		c.last(m, m.Ack())
	}
}

// putOff is about how long a callback waits when its receiver is busy with
// others.
const putOff = 2 * time.Second

// hostOf gives the host of an address; one that is none is said when it is
// tried.
func hostOf(to string) string {
	u, err := url.Parse(to)
	if err != nil {
		return ""
	}
	return u.Host
}

func (c *Caller) keep(ctx context.Context, id string, s v1.Callback) error {
	body, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	_, err = c.js.Publish(ctx, subject.CallbackState(id), body, jetstream.WithExpectStream(streams.Jobs))
	return err
}

// last sends the last word on a message. When it is lost the receiver is
// called once more.
func (c *Caller) last(m jetstream.Msg, err error) {
	if err != nil {
		c.log.Warn("cannot acknowledge", "subject", m.Subject(), "error", err)
	}
}
