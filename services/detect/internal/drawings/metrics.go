package drawings

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics counts requests, and implements [pool.Metrics] for the lanes.
type metrics struct {
	requests *prometheus.CounterVec
	restarts *prometheus.CounterVec
	seconds  prometheus.Histogram
}

func newMetrics(r prometheus.Registerer) *metrics {
	f := promauto.With(r)
	return &metrics{
		requests: f.NewCounterVec(prometheus.CounterOpts{
			Name: "sightmesh_draw_requests_total",
			Help: "Requests to draw an image, by outcome: done, lost (the client did not receive the image) or a problem code.",
		}, []string{"outcome"}),
		restarts: f.NewCounterVec(prometheus.CounterOpts{
			Name: "sightmesh_draw_lane_restarts_total",
			Help: "Lane processes for drawing that ended, by reason, as in sightmesh_lane_restarts_total.",
		}, []string{"reason"}),
		seconds: f.NewHistogram(prometheus.HistogramOpts{
			Name: "sightmesh_draw_lane_seconds", Help: "Service time of requests to draw an image.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}),
	}
}

// SetBusy does nothing: there is no metric of busy lanes.
func (m *metrics) SetBusy(int) {}

// AddRequest observes the service time of a request.
func (m *metrics) AddRequest(_, _ string, serviceTime time.Duration) {
	m.seconds.Observe(serviceTime.Seconds())
}

// AddRestart counts a lane process that was replaced.
func (m *metrics) AddRestart(_, reason string) { m.restarts.WithLabelValues(reason).Inc() }
