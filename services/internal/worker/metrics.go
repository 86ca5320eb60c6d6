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
			Name: "sightmesh_messages_total",
			Help: "Deliveries that were processed, by outcome: done, a problem code, retried, snoozed, handed-back, dropped " +
				"or lost.",
		}, []string{"pipeline", "priority", "outcome"}),
		queueWait: f.NewHistogramVec(prometheus.HistogramOpts{
			Name: "sightmesh_queue_wait_seconds", Buckets: telemetry.LatencyBuckets(),
			Help: "Queue wait: time between the storage of a message in the stream and its receipt by a worker.",
		}, []string{"pipeline", "priority"}),
		process: f.NewHistogramVec(prometheus.HistogramOpts{
			Name: "sightmesh_process_seconds", Buckets: telemetry.LatencyBuckets(),
			Help: "Time between the receipt of a message by a worker and the storage of its outcome.",
		}, []string{"pipeline"}),
		bytes: f.NewCounterVec(prometheus.CounterOpts{
			Name: "sightmesh_message_bytes_total",
			Help: "Bytes of message bodies, by direction: in (received) or out (published).",
		}, []string{"direction"}),
		avoided: f.NewCounterVec(prometheus.CounterOpts{
			Name: "sightmesh_work_avoided_total", Help: "Messages that ended without a lane, by reason: cancelled or deadline.",
		}, []string{"reason"}),
		redeliveries: f.NewCounter(prometheus.CounterOpts{
			Name: "sightmesh_redeliveries_total", Help: "Deliveries of messages that were delivered before.",
		}),
		publishRetries: f.NewCounter(prometheus.CounterOpts{
			Name: "sightmesh_publish_retries_total",
			Help: "Publishes that were retried because a stream was full or not available.",
		}),
	}
}

// recordStart counts a delivery that has been assigned a lane.
func (m *metrics) recordStart(ctx context.Context, d *consume.Delivery) {
	wait := m.queueWait.WithLabelValues(d.Job.Pipeline, string(d.Job.Priority))
	telemetry.Observe(ctx, wait, d.Received.Sub(d.Stored).Seconds())
	m.bytes.WithLabelValues("in").Add(float64(len(d.Body)))
	if d.Deliveries > 1 {
		m.redeliveries.Inc()
	}
}

func (m *metrics) recordPublish(msg bus.Message, retries int) {
	m.bytes.WithLabelValues("out").Add(float64(len(msg.Body)))
	m.publishRetries.Add(float64(retries))
}

func (m *metrics) recordEnd(ctx context.Context, d *consume.Delivery, outcome consume.Outcome) {
	m.messages.WithLabelValues(d.Job.Pipeline, string(d.Job.Priority), string(outcome)).Inc()
	telemetry.Observe(ctx, m.process.WithLabelValues(d.Job.Pipeline), m.clock.Now().Sub(d.Received).Seconds())
}
