package worker

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/sightmesh/sightmesh/lane/pool"
	"github.com/sightmesh/sightmesh/services/internal/telemetry"
)

// laneMetrics has the Prometheus metrics of the lanes of a worker. It implements
// [pool.Metrics].
type laneMetrics struct {
	restarts *prometheus.CounterVec
	jobs     *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	busy     prometheus.Gauge
}

func newLaneMetrics(r prometheus.Registerer, lanes int) *laneMetrics {
	f := promauto.With(r)
	f.NewGauge(prometheus.GaugeOpts{
		Name: "sightmesh_lane_count", Help: "Number of lanes of the worker.",
	}).Set(float64(lanes))
	return &laneMetrics{
		restarts: f.NewCounterVec(prometheus.CounterOpts{
			Name: "sightmesh_lane_restarts_total",
			Help: "Lane processes that ended or did not start, by lane program and reason: died, timeout, deadline, memory, " +
				"protocol, stopped or recycled.",
		}, []string{"program", "reason"}),
		jobs: f.NewCounterVec(prometheus.CounterOpts{
			Name: "sightmesh_lane_jobs_total",
			Help: "Requests that were sent to a lane, by outcome: done, a problem code or a reason of " +
				"sightmesh_lane_restarts_total.",
		}, []string{"pipeline", "outcome"}),
		seconds: f.NewHistogramVec(prometheus.HistogramOpts{
			Name: "sightmesh_lane_seconds", Help: "Service time of requests: how long a request held a lane.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"pipeline"}),
		busy: f.NewGauge(prometheus.GaugeOpts{Name: "sightmesh_lane_busy", Help: "Number of lanes that process a request."}),
	}
}

func (m *laneMetrics) SetBusy(lanes int) { m.busy.Set(float64(lanes)) }

func (m *laneMetrics) AddRequest(pipeline, outcome string, serviceTime time.Duration) {
	m.seconds.WithLabelValues(pipeline).Observe(serviceTime.Seconds())
	m.jobs.WithLabelValues(pipeline, outcome).Inc()
}

func (m *laneMetrics) AddRestart(program, reason string) {
	m.restarts.WithLabelValues(program, reason).Inc()
}

// laneTracer records OpenTelemetry spans of the requests to lanes. It implements
// [pool.Tracer].
type laneTracer struct{ tracer trace.Tracer }

// NewLaneTracer returns a tracer of requests to lanes.
func NewLaneTracer(p trace.TracerProvider) pool.Tracer {
	return laneTracer{p.Tracer("github.com/sightmesh/sightmesh/lane/pool")}
}

func (t laneTracer) StartSpan(
	ctx context.Context, name string, start time.Time, attrs ...slog.Attr,
) (context.Context, func(time.Time, error)) {
	ctx, span := t.tracer.Start(ctx, name, trace.WithTimestamp(start), spanAttributes(attrs))
	return ctx, func(at time.Time, err error) {
		if err != nil {
			telemetry.Fail(span, err)
		}
		span.End(trace.WithTimestamp(at))
	}
}

func (t laneTracer) AddEvent(ctx context.Context, name string, attrs ...slog.Attr) {
	trace.SpanFromContext(ctx).AddEvent(name, spanAttributes(attrs))
}

// spanAttributes returns attrs as attributes of spans and events, with the prefix
// "sightmesh.".
func spanAttributes(attrs []slog.Attr) trace.SpanStartEventOption {
	var all []attribute.KeyValue
	for _, a := range attrs {
		key := attribute.Key("sightmesh." + a.Key)
		if a.Value.Kind() == slog.KindInt64 {
			all = append(all, key.Int64(a.Value.Int64()))
		} else {
			all = append(all, key.String(a.Value.String()))
		}
	}
	return trace.WithAttributes(all...)
}
