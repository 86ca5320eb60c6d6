// Package webhooks sends webhooks when a job or report is done.
//
// Webhooks are messages in the stream CALLBACKS. Any replica of ingress retries a failed
// webhook for a day at increasing intervals. The stream JOBS has its state. A receiver may
// get the same webhook-id more than once.
package webhooks

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/sightmesh/sightmesh/contracts/retry"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/ingress/internal/fetch"
	"github.com/sightmesh/sightmesh/services/internal/bus"
	"github.com/sightmesh/sightmesh/services/internal/clock"
	"github.com/sightmesh/sightmesh/services/internal/consume"
	"github.com/sightmesh/sightmesh/services/internal/telemetry"
)

// Config is the configuration of a [Sender]. All fields are required.
type Config struct {
	JetStream jetstream.JetStream
	Clock     *clock.Clock
	Publisher *bus.Publisher
	// Transport must reject addresses that clients may not use.
	Transport http.RoundTripper
	// Secrets sign the webhooks. At least one is required.
	Secrets Secrets
	// PerHost is the maximum of concurrent webhooks to one host.
	PerHost int
	// MaxAge is how long a webhook is retried, more than 0 and at most [streams.WebhookAge].
	MaxAge  time.Duration
	Tracers trace.TracerProvider
	Logger  *slog.Logger
	Metrics prometheus.Registerer
}

// A Sender sends webhooks.
type Sender struct {
	js       jetstream.JetStream
	clock    *clock.Clock
	loop     *consume.Loop
	poster   *poster
	hosts    *fetch.HostLimiter
	maxAge   time.Duration
	tracer   trace.Tracer
	log      *slog.Logger
	attempts *prometheus.CounterVec
}

// New returns a Sender.
func New(cfg Config) *Sender {
	c := &Sender{
		js: cfg.JetStream, clock: cfg.Clock, poster: newPoster(cfg.Transport, cfg.Secrets),
		hosts: fetch.NewHostLimiter(cfg.PerHost), maxAge: cfg.MaxAge, log: cfg.Logger,
		tracer: cfg.Tracers.Tracer("github.com/sightmesh/sightmesh/services/ingress"),
		attempts: promauto.With(cfg.Metrics).NewCounterVec(prometheus.CounterOpts{
			Name: "sightmesh_callback_attempts_total",
			Help: "Attempts to deliver webhooks, by outcome: delivered, retried or failed.",
		}, []string{"outcome"}),
	}
	c.loop = consume.NewLoop(consume.Config{
		Open: parseDelivery, Timeout: timeout, Backoff: schedule, Clock: cfg.Clock, Publisher: cfg.Publisher,
		Tracer: c.tracer, Logger: cfg.Logger,
	})
	return c
}

// Run sends webhooks until ctx ends, and finishes the attempts in progress until hard ends.
func (c *Sender) Run(ctx, hard context.Context) {
	src := consume.Source{
		JetStream: c.js, Stream: streams.Callbacks, Consumer: streams.WebhooksConsumer, Width: width, Prefetch: 1,
	}
	c.loop.Run(ctx, hard, src, c.process)
}

// width is the maximum of concurrent webhooks. Each mostly waits for its receiver.
const width = 16

// timeout is the time limit for one delivery, including its state.
const timeout = sendTimeout + 10*time.Second

func parseDelivery(d *consume.Delivery) (err error) {
	d.Job.ID, err = subject.ParseCallbacks(d.Subject)
	return err
}

// process makes one attempt to send the webhook of a delivery.
func (c *Sender) process(ctx context.Context, d *consume.Delivery) ([]bus.Message, error) {
	to := d.Header.Get(v1.HeaderCallback)
	if to == "" {
		return nil, consume.Drop(errors.New("not a webhook: it has no URL"))
	}
	over := d.Stored.Add(c.maxAge)
	leave, err := c.hosts.TryAcquire(urlHost(to))
	if err != nil && c.clock.Now().Before(over) {
		return nil, consume.Snooze(busyBackoff.Delay(d.Deliveries)) // a slow receiver does not block others
	}
	if err == nil {
		defer leave()
	}
	before := c.readState(ctx, d)
	if before.State == v1.WebhookDelivered || before.State == v1.WebhookFailed {
		return nil, nil // it was published again after the duplicate window
	}
	ctx, span := c.tracer.Start(ctx, "callback", trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
		telemetry.AttrJob.String(d.Job.ID), telemetry.AttrDeliveries.Int(d.Deliveries),
		semconv.HTTPRequestMethodPost, semconv.ServerAddress(urlHost(to))))
	defer span.End()
	state := v1.Callback{State: v1.WebhookDelivered, Attempts: before.Attempts + 1}
	err = c.poster.post(ctx, to, d.Job.ID, d.Body)
	if err != nil && errors.Is(ctx.Err(), context.Canceled) {
		return nil, ctx.Err() // the process stops: this was no attempt
	}
	if err != nil {
		telemetry.Fail(span, err)
		state.Error = err.Error()
		state.State, state.Next, err = c.nextState(state.Attempts, over, err)
	}
	if err := bus.PublishLast(ctx, c.js, streams.Jobs, subject.CallbackState(d.Job.ID), state); err != nil {
		c.log.WarnContext(ctx, "cannot store the state of a webhook", "error", err)
	}
	c.attempts.WithLabelValues(attemptLabels[state.State]).Inc()
	return nil, err
}

// attemptLabels are the metric labels of attempts, by the resulting state.
var attemptLabels = map[v1.CallbackState]string{
	v1.WebhookDelivered: "delivered", v1.WebhookPending: "retried", v1.WebhookFailed: "failed",
}

// nextState returns the state after attempt n has failed with err: pending with the time of the next attempt,
// or failed.
func (c *Sender) nextState(n int, over time.Time, err error) (v1.CallbackState, time.Time, error) {
	retryAfter, passes := retry.Delay(err)
	wait := retryDelay(n, retryAfter)
	at := c.clock.Now().Add(wait).UTC()
	if !passes || at.After(over) {
		return v1.WebhookFailed, time.Time{}, consume.Drop(fmt.Errorf("webhook failed after %d attempts: %w", n, err))
	}
	return v1.WebhookPending, at, retry.After(err, wait)
}

// readState returns the stored state of a webhook. The number of deliveries is no substitute, because it
// includes snoozed ones.
func (c *Sender) readState(ctx context.Context, d *consume.Delivery) v1.Callback {
	var before v1.Callback
	if _, err := bus.ReadLast(ctx, c.js, streams.Jobs, subject.CallbackState(d.Job.ID), &before); err != nil {
		c.log.WarnContext(ctx, "cannot read the state of a webhook", "error", err)
		return v1.Callback{Attempts: d.Deliveries - 1}
	}
	return before
}

// busyBackoff is the delay when the receiver has no free permit. Many webhooks of one receiver are retried at
// increasing intervals.
var busyBackoff = retry.Exponential(2*time.Second, 30*time.Second, 2)

// urlHost returns the host of a URL, or "" when it has none.
func urlHost(to string) string {
	u, err := url.Parse(to)
	if err != nil {
		return ""
	}
	return u.Host
}
