package worker

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/sightmesh/sightmesh/services/internal/bus"
	"github.com/sightmesh/sightmesh/services/internal/clock"
	"github.com/sightmesh/sightmesh/services/internal/consume"
	"github.com/sightmesh/sightmesh/services/internal/telemetry"
)

type metrics struct {
	clock          *clock.Clock
	messages       *prometheus.CounterVec
	queueWait      *prometheus.HistogramVec
	process        *prometheus.HistogramVec
	bytes          *prometheus.CounterVec
	avoided        *prometheus.CounterVec
	redeliveries   prometheus.Counter
	publishRetries prometheus.Counter
}

func newMetrics(c *clock.Clock, r prometheus.Registerer) metrics {
	f := promauto.With(r)
	return metrics{
		clock: c,
		messages: f.NewCounterVec(prometheus.CounterOpts{
			Name: "sightmesh_messages_total", Help: "Messages worked on, by outcome: done, a problem code, retried, snoozed, handed-back, dropped or lost.",
		}, []string{"pipeline", "priority", "outcome"}),
		queueWait: f.NewHistogramVec(prometheus.HistogramOpts{
			Name: "sightmesh_queue_wait_seconds", Help: "From stored in the stream to taken by a worker.", Buckets: telemetry.LatencyBuckets(),
		}, []string{"pipeline", "priority"}),
		process: f.NewHistogramVec(prometheus.HistogramOpts{
			Name: "sightmesh_process_seconds", Help: "From taken by a worker to its outcome stored.", Buckets: telemetry.LatencyBuckets(),
		}, []string{"pipeline"}),
		bytes: f.NewCounterVec(prometheus.CounterOpts{
			Name: "sightmesh_message_bytes_total", Help: "Bytes of message bodies taken (in) and published (out).",
		}, []string{"direction"}),
		avoided: f.NewCounterVec(prometheus.CounterOpts{
			Name: "sightmesh_work_avoided_total", Help: "Messages that never reached a lane, by reason.",
		}, []string{"reason"}),
		redeliveries: f.NewCounter(prometheus.CounterOpts{
			Name: "sightmesh_redeliveries_total", Help: "Messages that were delivered before.",
		}),
		publishRetries: f.NewCounter(prometheus.CounterOpts{
			Name: "sightmesh_publish_retries_total", Help: "Publishes that were repeated because a stream was full or away.",
		}),
	}
}

// began counts a delivery that has a lane.
func (m *metrics) began(ctx context.Context, d *consume.Delivery) {
	wait := m.queueWait.WithLabelValues(d.Job.Pipeline, string(d.Job.Priority))
	telemetry.Observe(ctx, wait, d.Received.Sub(d.Stored).Seconds())
	m.bytes.WithLabelValues("in").Add(float64(len(d.Body)))
	if d.Deliveries > 1 {
		m.redeliveries.Inc()
	}
}

func (m *metrics) published(msg bus.Message, retries int) {
	m.bytes.WithLabelValues("out").Add(float64(len(msg.Body)))
	m.publishRetries.Add(float64(retries))
}

func (m *metrics) ended(ctx context.Context, d *consume.Delivery, outcome consume.Outcome) {
	m.messages.WithLabelValues(d.Job.Pipeline, string(d.Job.Priority), string(outcome)).Inc()
	telemetry.Observe(ctx, m.process.WithLabelValues(d.Job.Pipeline), m.clock.Now().Sub(d.Received).Seconds())
}
