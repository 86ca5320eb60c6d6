package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/tools/internal/exit"
)

// An Image is one of the images that a run sends in turn.
type Image struct {
	Name string
	Data []byte
}

// Sender sends one image to the mesh and waits for the result. The text of an
// error is one or two words, so that errors can be counted by text.
type Sender func(ctx context.Context, p Image) (v1.Result, error)

// Load is the configuration of a load.
type Load struct {
	// Concurrency is the number of requests in progress of a closed loop, and
	// their maximum in an open loop. 0 means 1 in a closed loop, and
	// maxOpenRequests in an open loop.
	Concurrency int
	// Rate is the rate of an open loop, in requests per second. 0 means a closed loop.
	Rate float64
	// WarmUp is the time before Duration. It is not measured.
	WarmUp   time.Duration
	Duration time.Duration
}

// maxOpenRequests bounds the requests in progress of an open loop without --concurrency.
// A request over HTTP that waits needs 40 KiB of memory in this process (measured), so
// that all of them need 400 MiB.
const maxOpenRequests = 10_000

// withDefaults checks the load and sets its defaults.
func (l Load) withDefaults() (Load, error) {
	if l.Concurrency < 0 {
		return l, exit.Usagef("concurrency: %d, want 0 or more", l.Concurrency)
	}
	if !(l.Rate >= 0) || math.IsInf(l.Rate, 0) { // NaN too
		return l, exit.Usagef("rate: %v, want 0 or more", l.Rate)
	}
	if l.Concurrency == 0 {
		l.Concurrency = 1
		if l.Rate > 0 {
			l.Concurrency = maxOpenRequests
		}
	}
	return l, nil
}

// Report is the result of a run. Times are in milliseconds.
type Report struct {
	Load       string         `json:"load"`
	Seconds    float64        `json:"seconds"`
	Done       int            `json:"done"`
	PerSecond  float64        `json:"per_second"`
	Latency    Percentiles    `json:"latency_ms"`
	Hops       map[string]Hop `json:"hops_ms,omitempty"`
	Errors     map[string]int `json:"errors,omitempty"`
	Mismatched int            `json:"mismatched"`
	// Missed counts the requests of an open loop that were not sent
	// because too many were in progress.
	Missed int `json:"missed,omitempty"`

	concurrency int
	histogram   *hdrhistogram.Histogram
}

// Percentiles are percentiles of a distribution, in milliseconds.
type Percentiles struct {
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p99.9"`
	Max  float64 `json:"max"`
}

// Hop has percentiles of the time of one step, from the timings of the results.
type Hop struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
}

// recorder collects the outcomes of requests. Latencies are those of all requests
// that began within the measured time. The throughput counts the responses that
// arrived within the measured time.
type recorder struct {
	count, end time.Time

	mu         sync.Mutex
	counted    int // responses between count and end
	latency    *hdrhistogram.Histogram
	hops       map[string]*hdrhistogram.Histogram
	errors     map[string]int
	first      map[string]v1.Result
	mismatched int
	missed     int
}

const maxLatencyMicroseconds = int64(10 * time.Minute / time.Microsecond)

func newHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(1, maxLatencyMicroseconds, 3) }

func newRecorder(expect map[string]v1.Result, count, end time.Time) *recorder {
	r := &recorder{
		count: count, end: end, latency: newHistogram(),
		hops: map[string]*hdrhistogram.Histogram{}, errors: map[string]int{}, first: map[string]v1.Result{},
	}
	for name, result := range expect {
		r.first[name] = comparable(result)
	}
	return r
}

// comparable returns the fields that must be equal in all results of an image.
func comparable(r v1.Result) v1.Result {
	return v1.Result{Pipeline: r.Pipeline, Status: r.Status, Image: r.Image, Regions: r.Regions, Text: r.Text}
}

// record records a request that began, or should have begun, at this time and has
// ended now.
func (r *recorder) record(p Image, result v1.Result, err error, at time.Time) {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil && now.After(r.count) && !now.After(r.end) {
		r.counted++
	}
	if err == nil {
		want, ok := r.first[p.Name]
		if !ok {
			r.first[p.Name] = comparable(result)
		} else if !reflect.DeepEqual(want, comparable(result)) {
			r.mismatched++
		}
	}
	if !at.After(r.count) {
		return
	}
	if err != nil {
		r.errors[err.Error()]++
		return
	}
	r.latency.RecordValue(min(now.Sub(at).Microseconds(), maxLatencyMicroseconds)) //nolint:errcheck // it is in range
	if t := result.Timings; t != nil {
		for name, ms := range map[string]float64{
			"queue": t.Queue, "decode": t.Decode, "detect": t.Detect,
			"classify": t.Classify, "join": t.Join, "reply": t.Reply,
		} {
			h := r.hops[name]
			if h == nil {
				h = newHistogram()
				r.hops[name] = h
			}
			h.RecordValue(int64(ms * 1000)) //nolint:errcheck // it is in range
		}
	}
}

func (r *recorder) report(load Load, elapsed time.Duration) Report {
	out := Report{
		Load: load.String(), Seconds: elapsed.Seconds(), Done: int(r.latency.TotalCount()),
		Latency: percentiles(r.latency), Hops: map[string]Hop{},
		Errors: r.errors, Mismatched: r.mismatched, Missed: r.missed,
		concurrency: load.Concurrency, histogram: r.latency,
	}
	if elapsed > 0 { // 0 when the run ended during the warm-up
		out.PerSecond = float64(r.counted) / elapsed.Seconds()
	}
	for name, h := range r.hops {
		out.Hops[name] = Hop{P50: milliseconds(h.ValueAtQuantile(50)), P99: milliseconds(h.ValueAtQuantile(99))}
	}
	return out
}

func percentiles(h *hdrhistogram.Histogram) Percentiles {
	return Percentiles{
		P50:  milliseconds(h.ValueAtQuantile(50)),
		P90:  milliseconds(h.ValueAtQuantile(90)),
		P99:  milliseconds(h.ValueAtQuantile(99)),
		P999: milliseconds(h.ValueAtQuantile(99.9)),
		Max:  milliseconds(h.Max()),
	}
}

func milliseconds(us int64) float64 { return float64(us) / 1000 }

// String describes the load.
func (l Load) String() string {
	if l.Rate > 0 {
		return fmt.Sprintf("open loop, %g/s", l.Rate)
	}
	return fmt.Sprintf("closed loop, %d at a time", l.Concurrency)
}

// Run sends images in turn until the duration is over or ctx ends, waits for
// the requests in flight, and returns the report. expect has the results to
// compare with; nil means the first result for each image.
func Run(ctx context.Context, send Sender, images []Image, load Load, expect map[string]v1.Result) (Report, error) {
	if len(images) == 0 {
		return Report{}, errors.New("no images to send")
	}
	load, err := load.withDefaults()
	if err != nil {
		return Report{}, err
	}
	count := time.Now().Add(load.WarmUp)
	rec := newRecorder(expect, count, count.Add(load.Duration))
	// The run waits for the requests that are in progress at its end, so that it counts slow requests.
	run := closedLoop
	if load.Rate > 0 {
		run = openLoop
	}
	run(ctx, send, images, load, rec)
	elapsed := load.Duration
	if ctx.Err() != nil {
		elapsed = max(0, min(elapsed, time.Since(count)))
	}
	return rec.report(load, elapsed), nil
}

func closedLoop(ctx context.Context, send Sender, images []Image, load Load, rec *recorder) {
	var wg sync.WaitGroup
	for c := range load.Concurrency {
		wg.Go(func() {
			for i := c; ctx.Err() == nil && time.Now().Before(rec.end); i++ {
				p := images[i%len(images)]
				at := time.Now()
				result, err := send(ctx, p)
				if ctx.Err() == nil {
					rec.record(p, result, err, at)
				}
			}
		})
	}
	wg.Wait()
}

func openLoop(ctx context.Context, send Sender, images []Image, load Load, rec *recorder) {
	began := rec.count.Add(-load.WarmUp)
	var wg sync.WaitGroup
	free := make(chan struct{}, load.Concurrency)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for i := 0; ; i++ {
		at := began.Add(time.Duration(float64(i) / load.Rate * float64(time.Second)))
		if at.After(rec.end) {
			break
		}
		timer.Reset(time.Until(at))
		select {
		case <-timer.C:
		case <-ctx.Done():
			wg.Wait()
			return
		}
		select {
		case free <- struct{}{}:
		default:
			if at.After(rec.count) {
				rec.mu.Lock()
				rec.missed++
				rec.mu.Unlock()
			}
			continue
		}
		p := images[i%len(images)]
		wg.Go(func() {
			defer func() { <-free }()
			result, err := send(ctx, p)
			if ctx.Err() == nil {
				rec.record(p, result, err, at)
			}
		})
	}
	wg.Wait()
}
