// Package webhooks calls the clients that wanted to be called when a job or
// report is done.
//
// Callbacks wait in the stream CALLBACKS. One that is not taken is tried again
// for a day, later and later, by whichever replica is there; how it goes is
// kept beside the job. A receiver may be called more than once with the same
// webhook-id, and must be ready for it.
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

// Config of a caller. All fields are needed.
type Config struct {
	JetStream jetstream.JetStream
	Clock     *clock.Clock
	Publisher *bus.Publisher
	// Transport must refuse the addresses that clients may not name.
	Transport http.RoundTripper
	// Secrets sign what is sent; there is one at least.
	Secrets []string
	// PerHost bounds the callbacks that are sent to one host at a time.
	PerHost int
	// MaxAge is for how long a callback is tried, at most
	// [streams.CallbackAge].
	MaxAge  time.Duration
	Tracers trace.TracerProvider
	Logger  *slog.Logger
	Metrics prometheus.Registerer
}

// Sender sends callbacks.
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

// New returns a caller, or says which secret cannot be used.
func New(cfg Config) (*Sender, error) {
	s, err := newPoster(cfg.Transport, cfg.Secrets)
	if err != nil {
		return nil, err
	}
	if cfg.MaxAge <= 0 || cfg.MaxAge > streams.CallbackAge {
		return nil, fmt.Errorf("callbacks are given up after %v, want at most %v", cfg.MaxAge, streams.CallbackAge)
	}
	c := &Sender{
		js: cfg.JetStream, clock: cfg.Clock, poster: s, hosts: fetch.NewHostLimiter(cfg.PerHost), maxAge: cfg.MaxAge, log: cfg.Logger,
		tracer: cfg.Tracers.Tracer("github.com/sightmesh/sightmesh/services/ingress"),
		attempts: promauto.With(cfg.Metrics).NewCounterVec(prometheus.CounterOpts{
			Name: "sightmesh_callback_attempts_total", Help: "Attempts to deliver webhooks, by outcome: delivered, retried or failed.",
		}, []string{"outcome"}),
	}
	c.loop = consume.NewLoop(consume.Config{
		Open: parseDelivery, Timeout: timeout, Backoff: schedule, Clock: cfg.Clock, Publisher: cfg.Publisher, Tracer: c.tracer, Logger: cfg.Logger,
	})
	return c, nil
}

// Run sends callbacks until ctx ends, and finishes the attempts that are under
// way until hard ends.
func (c *Sender) Run(ctx, hard context.Context) {
	src := consume.Source{
		JetStream: c.js, Stream: streams.Callbacks, Consumer: streams.CallbacksConsumer, Width: width, Prefetch: 1,
	}
	c.loop.Run(ctx, hard, src, c.process)
}

// width is how many callbacks are sent at a time: most of the time of each is
// spent waiting for its receiver.
const width = 16

// timeout is how long one callback may take, its state included.
const timeout = sendTimeout + 10*time.Second

func parseDelivery(d *consume.Delivery) (err error) {
	d.Job.ID, err = subject.ParseCallbacks(d.Subject)
	return err
}

// process makes one attempt.
func (c *Sender) process(ctx context.Context, d *consume.Delivery) ([]bus.Message, error) {
	to := d.Header.Get(v1.HeaderCallback)
	if to == "" {
		return nil, consume.Drop(errors.New("not a callback: it has no URL"))
	}
	over := d.Stored.Add(c.maxAge)
	leave, err := c.hosts.TryAcquire(urlHost(to))
	if err != nil && c.clock.Now().Before(over) {
		return nil, consume.Snooze(busyBackoff.Delay(d.Deliveries)) // a receiver that is slow to answer takes nothing from others
	}
	if err == nil {
		defer leave()
	}
	before := c.readState(ctx, d)
	if before.State == v1.CallbackDelivered || before.State == v1.CallbackFailed {
		return nil, nil // it was queued again, later than the stream knows its ID
	}
	ctx, span := c.tracer.Start(ctx, "callback", trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
		telemetry.AttrJob.String(d.Job.ID), telemetry.AttrDeliveries.Int(d.Deliveries),
		semconv.HTTPRequestMethodPost, semconv.ServerAddress(urlHost(to))))
	defer span.End()
	state := v1.Callback{State: v1.CallbackDelivered, Attempts: before.Attempts + 1}
	err = c.poster.post(ctx, to, d.Job.ID, d.Body)
	if err != nil && errors.Is(ctx.Err(), context.Canceled) {
		return nil, ctx.Err() // this process stops: it was no attempt
	}
	if err != nil {
		telemetry.Fail(span, err)
		state.Error = err.Error()
		state.State, state.Next, err = c.nextState(state.Attempts, over, err)
	}
	if err := bus.PublishLast(ctx, c.js, streams.Jobs, subject.CallbackState(d.Job.ID), state); err != nil {
		c.log.WarnContext(ctx, "cannot store the state of a callback", "error", err)
	}
	c.attempts.WithLabelValues(attemptLabels[state.State]).Inc()
	return nil, err
}

// attemptLabels are the labels of attempts by the state that they lead to.
var attemptLabels = map[v1.CallbackState]string{
	v1.CallbackDelivered: "delivered", v1.CallbackPending: "retried", v1.CallbackFailed: "failed",
}

// nextState says what follows after attempt n has failed with err: another attempt
// at a time, or the end of the callback.
func (c *Sender) nextState(n int, over time.Time, err error) (v1.CallbackState, time.Time, error) {
	retryAfter, passes := retry.Delay(err)
	wait := retryDelay(n, retryAfter)
	at := c.clock.Now().Add(wait).UTC()
	if !passes || at.After(over) {
		return v1.CallbackFailed, time.Time{}, consume.Drop(fmt.Errorf("callback given up after %d attempts: %w", n, err))
	}
	return v1.CallbackPending, at, retry.After(err, wait)
}

// readState returns what is known of a callback. Deliveries do not tell how
// many attempts there were: a callback may have been put off.
func (c *Sender) readState(ctx context.Context, d *consume.Delivery) v1.Callback {
	var before v1.Callback
	if _, err := bus.Last(ctx, c.js, streams.Jobs, subject.CallbackState(d.Job.ID), &before); err != nil {
		c.log.WarnContext(ctx, "cannot read the state of a callback", "error", err)
		return v1.Callback{Attempts: d.Deliveries - 1}
	}
	return before
}

// busyBackoff is how long a callback waits when its receiver is busy with
// others. Many of one receiver are tried less and less often.
var busyBackoff = retry.Exponential(2*time.Second, 30*time.Second, 2)

// urlHost returns the host of an address, or nothing when it has none.
func urlHost(to string) string {
	u, err := url.Parse(to)
	if err != nil {
		return ""
	}
	return u.Host
}
