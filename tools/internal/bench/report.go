package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// WriteJSON writes the report as one JSON object.
func (r Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	if err := e.Encode(r); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

// WriteText writes the report as text.
func (r Report) WriteText(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d results in %.1f s, %.1f/s\n", r.Load, r.Done, r.Seconds, r.PerSecond)
	l := r.Latency
	fmt.Fprintf(&b, "latency   p50 %.2f  p90 %.2f  p99 %.2f  p99.9 %.2f  max %.2f ms\n",
		l.P50, l.P90, l.P99, l.P999, l.Max)
	for _, name := range []string{"queue", "decode", "detect", "classify", "join", "reply"} {
		if h, ok := r.Hops[name]; ok {
			fmt.Fprintf(&b, "%-9s p50 %.2f  p99 %.2f ms\n", name, h.P50, h.P99)
		}
	}
	var errors []string
	for e, n := range r.Errors {
		errors = append(errors, fmt.Sprintf("%d x %s", n, e))
	}
	slices.Sort(errors)
	if len(errors) > 0 {
		fmt.Fprintf(&b, "errors    %s\n", strings.Join(errors, ", "))
	}
	if r.Mismatched > 0 {
		fmt.Fprintf(&b, "%d results differ from the expected one, or from the first for the same image\n", r.Mismatched)
	}
	if r.Missed > 0 {
		fmt.Fprintf(&b, "%d requests were not sent, because %d were in progress (--concurrency)\n", r.Missed, r.concurrency)
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

// WritePlot draws the latencies by percentile as SVG, with the axis of HdrHistogram:
// each step to the right has a tenth of the requests.
func (r Report) WritePlot(w io.Writer) error {
	const width, height, left, bottom, top = 720.0, 400.0, 70.0, 350.0, 30.0
	most := max(r.Latency.Max, 0.001)
	nines := max(1, math.Log10(float64(max(r.Done, 10))))
	x := func(q float64) float64 { // q from 0 to 100
		n := -math.Log10(max(1-q/100, math.Pow(10, -nines)))
		return left + (width-left-20)*n/nines
	}
	y := func(ms float64) float64 { return bottom - (bottom-top)*ms/most }
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%.0f" height="%.0f"`+
		` font-family="sans-serif" font-size="12">`+"\n", width, height)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="white"/>`+
		`<text x="%.0f" y="18">%s: %d results, %.1f/s</text>`+"\n", left, r.Load, r.Done, r.PerSecond)
	for i := range 5 {
		v := most * float64(i) / 4
		fmt.Fprintf(&b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#ddd"/>`, left, y(v), width-20, y(v))
		fmt.Fprintf(&b, `<text x="%.1f" y="%.1f" text-anchor="end">%.3g ms</text>`+"\n", left-6, y(v)+4, v)
	}
	for i := range int(nines) + 1 {
		q := 100 * (1 - math.Pow(10, -float64(i)))
		fmt.Fprintf(&b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#ddd"/>`, x(q), top, x(q), bottom)
		fmt.Fprintf(&b, `<text x="%.1f" y="%.1f" text-anchor="middle">%.6g%%</text>`+"\n", x(q), bottom+18, q)
	}
	var points []string
	for _, bar := range r.histogram.CumulativeDistribution() {
		points = append(points, fmt.Sprintf("%.1f,%.1f", x(bar.Quantile), y(milliseconds(bar.ValueAt))))
	}
	fmt.Fprintf(&b, `<polyline fill="none" stroke="#1565c0" stroke-width="2" points="%s"/>`+"\n</svg>\n",
		strings.Join(points, " "))
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write plot: %w", err)
	}
	return nil
}
