package body

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/iotest"
	"time"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// checkOverloaded fails the test unless err is an overloaded problem with this limit.
func checkOverloaded(t *testing.T, name string, err error, limit int64) {
	t.Helper()
	var p *v1.Problem
	if !errors.As(err, &p) {
		t.Errorf("%s: got %v, want a problem", name, err)
		return
	}
	if p.Code != v1.Overloaded {
		t.Errorf("%s: the code is %s, want %s", name, p.Code, v1.Overloaded)
	}
	if p.Limit != limit {
		t.Errorf("%s: the limit is %d, want %d", name, p.Limit, limit)
	}
}

func TestMemory_LimitsTotalAndEachClient(t *testing.T) {
	t.Parallel()
	m := NewMemory(100, 60)
	a, b, c := m.NewReservation("a"), m.NewReservation("a"), m.NewReservation("c")
	if err := errors.Join(a.Grow(40), b.Grow(20), c.Grow(30)); err != nil {
		t.Fatal(err)
	}
	checkOverloaded(t, "a client over its share", a.Grow(1), 60)
	checkOverloaded(t, "more than the memory has", c.Grow(11), 0)
	if n := c.Available(); n != 10 {
		t.Errorf("%d bytes are free, want 10", n)
	}
	a.ShrinkTo(10)
	a.ShrinkTo(10)
	if err := c.Grow(30); err != nil {
		t.Error(err)
	}
	for _, r := range []*Reservation{a, b, c, a} {
		r.Release()
	}
	if n := m.Used(); n != 0 {
		t.Errorf("%d bytes are reserved after the release, want 0", n)
	}
	if len(m.clients) != 0 {
		t.Errorf("clients have memory after the release: %v", m.clients)
	}
}

func TestReservation_GrowWait(t *testing.T) {
	t.Parallel()
	m := NewMemory(100, 100)
	first, second := m.NewReservation("a"), m.NewReservation("b")
	if err := first.Grow(100); err != nil {
		t.Fatal(err)
	}
	checkOverloaded(t, "a wait without free memory", second.GrowWait(t.Context(), 1, time.Millisecond), 0)
	if err := m.NewReservation("c").Grow(1); err == nil {
		t.Error("memory was reserved after the wait timed out")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := second.GrowWait(ended, 1, time.Minute); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the error of the context", err)
	}
	time.AfterFunc(10*time.Millisecond, first.Release)
	if err := second.GrowWait(t.Context(), 100, time.Minute); err != nil {
		t.Error(err)
	}
}

func TestReadAll_ReservesMemoryAsBytesArrive(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		length  int
		largest int64
		want    int64 // bytes that are reserved
	}{
		{0, 1 << 30, 0}, {5, 1 << 30, 64 << 10}, {5, 5, 5}, {64 << 10, 1 << 30, 64 << 10},
		{64<<10 + 1, 1 << 30, 128 << 10}, {300 << 10, 1 << 30, 512 << 10}, {300 << 10, 300 << 10, 300 << 10}, {10, 3, 10},
	} {
		content := bytes.Repeat([]byte("x"), c.length)
		reserved := int64(0)
		got, err := ReadAll(iotest.HalfReader(bytes.NewReader(content)), func(n int64) error {
			reserved += n
			return nil
		}, c.largest)
		if err != nil {
			t.Errorf("%d bytes: %v", c.length, err)
		}
		if !bytes.Equal(got, content) {
			t.Errorf("%d bytes: got %d bytes with other content", c.length, len(got))
		}
		if c.largest > 3 && reserved != c.want {
			t.Errorf("%d bytes of at most %d: %d are reserved, want %d", c.length, c.largest, reserved, c.want)
		}
		if int64(cap(got)) > reserved {
			t.Errorf("%d bytes: %d are allocated, but %d reserved", c.length, cap(got), reserved)
		}
	}
}

func TestReadAll_ReturnsTheFirstError(t *testing.T) {
	t.Parallel()
	broken, full := errors.New("broken"), errors.New("full")
	grow := func(int64) error { return nil }
	brokenReader := io.MultiReader(bytes.NewReader(make([]byte, 1000)), iotest.ErrReader(broken))
	if _, err := ReadAll(brokenReader, grow, 2000); !errors.Is(err, broken) {
		t.Errorf("got %v, want the error of the reader", err)
	}
	grow = func(int64) error { return full }
	if _, err := ReadAll(bytes.NewReader(make([]byte, 1000)), grow, 2000); !errors.Is(err, full) {
		t.Errorf("got %v, want the error of grow", err)
	}
}

func TestPace(t *testing.T) {
	t.Parallel()
	start := time.Unix(0, 0)
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	p := NewPace(Rate{BytesPerSecond: 100}, start)
	if !p.Deadline().Equal(at(15)) {
		t.Errorf("the first deadline is %v", p.Deadline())
	}
	if p.Add(999, at(14)) {
		t.Error("fewer bytes than those of a window move the deadline")
	}
	if !p.Add(1, at(14)) {
		t.Error("the bytes of a window do not move the deadline")
	}
	if !p.Deadline().Equal(at(24)) {
		t.Errorf("the deadline after a window is %v", p.Deadline())
	}
	p.Add(500, at(20))
	if p.Restart(at(40)); !p.Deadline().Equal(at(50)) {
		t.Errorf("the deadline after a pause is %v", p.Deadline())
	}
	if p.Add(999, at(41)) {
		t.Error("the bytes before a pause count for the window after it")
	}
}

func TestRate_Problem(t *testing.T) {
	t.Parallel()
	p := Rate{BytesPerSecond: 1024}.Problem("the body")
	want := "the body arrived at less than 1024 bytes per second, averaged over 10s: " +
		"use a faster connection, or send a smaller image"
	if p.Detail != want {
		t.Errorf("the detail is %q, want %q", p.Detail, want)
	}
	if p.Code != v1.TruncatedBody {
		t.Errorf("the code is %s, want %s", p.Code, v1.TruncatedBody)
	}
	if p.Limit != 1024 {
		t.Errorf("the limit is %d, want 1024", p.Limit)
	}
}
