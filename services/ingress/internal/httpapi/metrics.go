package httpapi

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/sightmesh/sightmesh/services/internal/telemetry"
)

// Metrics are the metrics of the HTTP API.
type Metrics struct {
	duration *prometheus.HistogramVec
	inFlight prometheus.Gauge
	problems *prometheus.CounterVec
	sessions []prometheus.Gauge // under the current and the former name
	frames   *prometheus.CounterVec
}

// NewMetrics registers the metrics.
func NewMetrics(r prometheus.Registerer) *Metrics {
	f := promauto.With(r)
	return &Metrics{
		duration: f.NewHistogramVec(prometheus.HistogramOpts{
			Name: "sightmesh_http_request_duration_seconds",
			Help: "Duration of HTTP requests; status 499: the client disconnected.", Buckets: telemetry.LatencyBuckets(),
		}, []string{"route", "method", "status"}),
		inFlight: f.NewGauge(prometheus.GaugeOpts{
			Name: "sightmesh_http_requests_in_flight", Help: "Number of HTTP requests in progress.",
		}),
		problems: f.NewCounterVec(prometheus.CounterOpts{
			Name: "sightmesh_problems_total", Help: "HTTP responses with a problem, by its code.",
		}, []string{"code"}),
		sessions: []prometheus.Gauge{
			f.NewGauge(prometheus.GaugeOpts{Name: "sightmesh_sessions", Help: "Number of open sessions."}),
			f.NewGauge(prometheus.GaugeOpts{Name: "sightmesh_streams",
				Help: "Former name of sightmesh_sessions; will be removed."}),
		},
		frames: f.NewCounterVec(prometheus.CounterOpts{
			Name: "sightmesh_frames_total", Help: "Frames of sessions that ended, by outcome: done, failed or dropped.",
		}, []string{"outcome"}),
	}
}

// addSessions adds n to the number of open sessions.
func (m *Metrics) addSessions(n float64) {
	for _, g := range m.sessions {
		g.Add(n)
	}
}
