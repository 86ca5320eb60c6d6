package body

import (
	"time"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// Rate is the lowest rate at which a body may arrive. The first window of a body
// lasts Grace longer. In each window BytesPerSecond × Window bytes must arrive.
type Rate struct {
	// BytesPerSecond is averaged over Window. It is required.
	BytesPerSecond int64
	// Window is the time over which the rate is averaged. 0 means 10 s.
	Window time.Duration
	// Grace is added to the first window. 0 means 5 s.
	Grace time.Duration
}

// Defaults of a [Rate].
const (
	defaultWindow = 10 * time.Second
	defaultGrace  = 5 * time.Second
)

// WithDefaults returns r with default values in place of zeros.
func (r Rate) WithDefaults() Rate {
	if r.Window == 0 {
		r.Window = defaultWindow
	}
	if r.Grace == 0 {
		r.Grace = defaultGrace
	}
	return r
}

// Problem returns the problem of what arrived too slowly, such as "the body".
func (r Rate) Problem(what string) *v1.Problem {
	r = r.WithDefaults()
	return v1.NewProblem(v1.TruncatedBody, "%s arrived at less than %d bytes per second, averaged over %v: "+
		"use a faster connection, or send a smaller image", what, r.BytesPerSecond, r.Window).WithLimit(r.BytesPerSecond)
}

// bytesPerWindow returns how many bytes must arrive in a window.
func (r Rate) bytesPerWindow() int64 {
	return max(1, int64(float64(r.BytesPerSecond)*r.Window.Seconds()))
}

// Pace tracks the arrival of one body against its [Rate].
type Pace struct {
	rate     Rate
	got      int64 // in this window
	deadline time.Time
}

// NewPace returns the Pace of a body that starts now.
func NewPace(r Rate, now time.Time) *Pace {
	r = r.WithDefaults()
	return &Pace{rate: r, deadline: now.Add(r.Grace + r.Window)}
}

// Deadline returns the time at which the body is too slow, unless more bytes arrive.
func (p *Pace) Deadline() time.Time { return p.deadline }

// Add records the arrival of n bytes. It reports whether the deadline has moved.
func (p *Pace) Add(n int, now time.Time) bool {
	if p.got += int64(n); p.got < p.rate.bytesPerWindow() {
		return false
	}
	p.Restart(now)
	return true
}

// Restart starts a new window, such as after a wait that the client did not cause.
func (p *Pace) Restart(now time.Time) { p.got, p.deadline = 0, now.Add(p.rate.Window) }
