package body

import (
	"time"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// Rate is the lowest rate at which a body may arrive. A body has Grace and
// Window for its first bytes, and Window for each time as many again.
type Rate struct {
	// BytesPerSecond is averaged over Window.
	BytesPerSecond int64
	// Window is how long the rate is averaged. 0 means 10 s.
	Window time.Duration
	// Grace is how much longer the first window is. 0 means 5 s.
	Grace time.Duration
}

// Defaults of a [Rate].
const (
	defaultWindow = 10 * time.Second
	defaultGrace  = 5 * time.Second
)

// WithDefaults returns r with the values that 0 means.
func (r Rate) WithDefaults() Rate {
	if r.Window == 0 {
		r.Window = defaultWindow
	}
	if r.Grace == 0 {
		r.Grace = defaultGrace
	}
	return r
}

// Problem returns the problem of something that arrived too slowly, such as "the body".
func (r Rate) Problem(what string) *v1.Problem {
	r = r.WithDefaults()
	return v1.NewProblem(v1.TruncatedBody, "%s arrived at less than %d bytes per second, averaged over %v: "+
		"use a faster connection, or send a smaller image", what, r.BytesPerSecond, r.Window).WithLimit(r.BytesPerSecond)
}

// bytesPerWindow is how many bytes have to arrive in a window.
func (r Rate) bytesPerWindow() int64 {
	return max(1, int64(float64(r.BytesPerSecond)*r.Window.Seconds()))
}

// Pace is how far one body is within its [Rate].
type Pace struct {
	rate     Rate
	got      int64 // in this window
	deadline time.Time
}

// NewPace returns the Pace of a body that begins now.
func NewPace(r Rate, now time.Time) *Pace {
	r = r.WithDefaults()
	return &Pace{rate: r, deadline: now.Add(r.Grace + r.Window)}
}

// Deadline returns when the body is too slow unless more arrives.
func (p *Pace) Deadline() time.Time { return p.deadline }

// Add notes that n bytes have arrived. It reports whether that moves the
// deadline.
func (p *Pace) Add(n int, now time.Time) bool {
	if p.got += int64(n); p.got < p.rate.bytesPerWindow() {
		return false
	}
	p.Restart(now)
	return true
}

// Restart begins a window, after a time that was not the client's.
func (p *Pace) Restart(now time.Time) { p.got, p.deadline = 0, now.Add(p.rate.Window) }
