package lanes

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	restarts *prometheus.CounterVec
	jobs     *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	busy     prometheus.Gauge
}

func newMetrics(r prometheus.Registerer, lanes int) metrics {
	f := promauto.With(r)
	f.NewGauge(prometheus.GaugeOpts{Name: "sightmesh_lane_count", Help: "Lanes of this process."}).Set(float64(lanes))
	return metrics{
		restarts: f.NewCounterVec(prometheus.CounterOpts{
			Name: "sightmesh_lane_restarts_total",
			Help: "Lane processes that ended and were replaced, by reason: died, timeout, deadline, memory, protocol, stopped, recycled.",
		}, []string{"program", "reason"}),
		jobs: f.NewCounterVec(prometheus.CounterOpts{
			Name: "sightmesh_lane_jobs_total", Help: "Requests put to a lane, by outcome: done, or the code of the problem.",
		}, []string{"pipeline", "outcome"}),
		seconds: f.NewHistogramVec(prometheus.HistogramOpts{
			Name: "sightmesh_lane_seconds", Help: "How long a request held a lane.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"pipeline"}),
		busy: f.NewGauge(prometheus.GaugeOpts{Name: "sightmesh_lane_busy", Help: "Lanes at work."}),
	}
}
