package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/sightmesh/sightmesh/contracts/connection"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

var images = []Image{{Name: "a"}, {Name: "b"}}

func result(text string) v1.Result {
	return v1.Result{Status: v1.Done, Text: &text, Regions: []v1.Region{}, Timings: &v1.Timings{Queue: 2}}
}

func TestRun_ClosedLoop(t *testing.T) {
	t.Parallel()
	var under, most atomic.Int64
	r, err := Run(t.Context(), func(_ context.Context, p Image) (v1.Result, error) {
		n := under.Add(1)
		defer under.Add(-1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		time.Sleep(2 * time.Millisecond)
		return result(p.Name), nil
	}, images, Load{Concurrency: 3, WarmUp: 20 * time.Millisecond, Duration: 200 * time.Millisecond}, nil)
	switch {
	case err != nil:
		t.Fatalf("%+v, %d at a time, %v", r, most.Load(), err)
	case most.Load() != 3:
		t.Fatalf("%+v, %d at a time, %v: most.Load() %v, want 3", r, most.Load(), err, most.Load())
	case r.Done == 0:
		t.Fatalf("%+v, %d at a time, %v: done %v, want not 0", r, most.Load(), err, r.Done)
	case r.Mismatched != 0:
		t.Fatalf("%+v, %d at a time, %v: mismatched %v, want 0", r, most.Load(), err, r.Mismatched)
	case len(r.Errors) != 0:
		t.Fatalf("%+v, %d at a time, %v: %d errors, want 0", r, most.Load(), err, len(r.Errors))
	}
	switch {
	case r.Latency.P50 < 2:
		t.Errorf("%+v: Latency.P50 %v, want at least 2", r, r.Latency.P50)
	case r.Latency.Max < r.Latency.P99:
		t.Errorf("%+v: Latency.Max %v, want at least r.Latency.P99", r, r.Latency.Max)
	case r.Hops["queue"].P50 < 1.9 || r.Hops["queue"].P50 > 2.1:
		t.Errorf(`%+v: r.Hops["queue"].P50 = %v`, r, r.Hops["queue"].P50)
	}
	var text, js, svg bytes.Buffer
	if err := errors.Join(r.WriteText(&text), r.WriteJSON(&js), r.WritePlot(&svg)); err != nil {
		t.Fatal(err)
	}
	var again Report
	switch err := json.Unmarshal(js.Bytes(), &again); {
	case err != nil:
		t.Errorf("%v\n%s\n%s", err, &js, &text)
	case again.Done != r.Done:
		t.Errorf("%v\n%s\n%s: again.Done %v, want %v", err, &js, &text, again.Done, r.Done)
	case !strings.Contains(text.String(), "p99.9"):
		t.Errorf("%v\n%s\n%s: want strings.Contains(text.String(), \"p99.9\")", err, &js, &text)
	}
	for d := xml.NewDecoder(&svg); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("the plot is not XML: %v", err)
		}
	}
}

// TestRun_OpenLoopMeasuresStall: one request that hangs delays none in a closed loop
// of its own, but in an open one those behind it count from when they should
// have begun.
// TestRun_ThroughputExcludesWarmUp: that the last requests are waited for
// makes it no smaller, and those that are answered later no larger.
func TestRun_ThroughputExcludesWarmUp(t *testing.T) {
	for name, load := range map[string]Load{
		"closed loop":                {Concurrency: 3, WarmUp: time.Second, Duration: 3 * time.Second},
		"open loop, at its capacity": {Concurrency: 3, Rate: 100, WarmUp: time.Second, Duration: 3 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, err := Run(t.Context(), func(_ context.Context, p Image) (v1.Result, error) {
					time.Sleep(300 * time.Millisecond)
					return result(p.Name), nil
				}, images, load, nil)
				switch {
				case err != nil:
					t.Errorf("%+v, %v, want 10 a second", r, err)
				case r.PerSecond < 9.2 || r.PerSecond > 10.5:
					t.Errorf("%+v, %v, want 10 a second: r.PerSecond = %v", r, err, r.PerSecond)
				case r.Seconds != 3:
					t.Errorf("%+v, %v, want 10 a second: seconds %v, want 3", r, err, r.Seconds)
				}
			})
		})
	}
}

func TestRun_CancelledDuringWarmUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		r, err := Run(ctx, func(_ context.Context, p Image) (v1.Result, error) {
			time.Sleep(300 * time.Millisecond)
			return result(p.Name), nil
		}, images, Load{Concurrency: 1, WarmUp: time.Minute, Duration: time.Minute}, nil)
		switch {
		case err != nil:
			t.Errorf("%+v, %v", r, err)
		case r.PerSecond != 0:
			t.Errorf("%+v, %v: per second %v, want 0", r, err, r.PerSecond)
		case r.Seconds != 0:
			t.Errorf("%+v, %v: seconds %v, want 0", r, err, r.Seconds)
		}
	})
}

func TestRun_OpenLoopMeasuresStall(t *testing.T) {
	t.Parallel()
	var n atomic.Int64
	gate := make(chan struct{}, 1) // one at a time, as a server with one lane
	r, err := Run(t.Context(), func(_ context.Context, p Image) (v1.Result, error) {
		gate <- struct{}{}
		defer func() { <-gate }()
		if n.Add(1) == 1 {
			time.Sleep(300 * time.Millisecond)
		}
		return result(p.Name), nil
	}, images, Load{Concurrency: 100, Rate: 100, Duration: 400 * time.Millisecond}, nil)
	switch {
	case err != nil:
		t.Fatalf("%+v, %v", r, err)
	case r.Done < 30:
		t.Fatalf("%+v, %v: done %v, want at least 30", r, err, r.Done)
	}
	if r.Latency.P50 < 50 {
		t.Errorf("p50 %v ms: the stall was seen by one request only", r.Latency.P50)
	}
}

// TestLoad_RateAloneIsAnOpenLoop is of the row "sightmesh bench" of
// shared/cases: without --concurrency, requests of a rate wait for no other.
func TestLoad_RateAloneIsAnOpenLoop(t *testing.T) {
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	var cfg Config
	cfg.Register(fs)
	if err := fs.Parse([]string{"--rate", "100", "--warmup", "1s", "--duration", "10s"}); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		r, err := Run(t.Context(), func(_ context.Context, p Image) (v1.Result, error) {
			time.Sleep(20 * time.Second) // so that all of them are under way together
			return result(p.Name), nil
		}, images, cfg.load, nil)
		if err != nil {
			t.Fatal(err)
		}
		if r.Missed != 0 {
			t.Errorf("%d requests could not begin, want 0", r.Missed)
		}
		if r.Done != 1000 {
			t.Errorf("%d requests are counted, want 1000", r.Done)
		}
	})
}

// TestLoad_ConcurrencyBoundsAnOpenLoop counts what could not begin.
func TestLoad_ConcurrencyBoundsAnOpenLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, err := Run(t.Context(), func(_ context.Context, p Image) (v1.Result, error) {
			time.Sleep(20 * time.Second)
			return result(p.Name), nil
		}, images, Load{Rate: 100, Concurrency: 7, Duration: 10 * time.Second}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if r.Missed != 994 { // of 1001, the first and the last included
			t.Errorf("%d requests could not begin, want 994", r.Missed)
		}
		var text bytes.Buffer
		if err := r.WriteText(&text); err != nil {
			t.Fatal(err)
		}
		if want := "could not begin: 7 were under way"; !strings.Contains(text.String(), want) {
			t.Errorf("the report has no %q:\n%s", want, &text)
		}
	})
}

func TestRun_CountsMismatchesAndErrors(t *testing.T) {
	t.Parallel()
	var n atomic.Int64
	load := Load{Concurrency: 1, Duration: 50 * time.Millisecond}
	r, err := Run(t.Context(), func(context.Context, Image) (v1.Result, error) {
		switch n.Add(1) % 3 {
		case 0:
			return v1.Result{}, errors.New("503 no-worker")
		case 1:
			return result("one"), nil
		}
		return result("another"), nil
	}, images[:1], load, nil)
	switch {
	case err != nil:
		t.Errorf("%+v, %v", r, err)
	case r.Mismatched == 0:
		t.Errorf("%+v, %v: mismatched %v, want not 0", r, err, r.Mismatched)
	case r.Errors["503 no-worker"] == 0:
		t.Errorf(`%+v, %v: Errors["503 no-worker"] %v, want not 0`, r, err, r.Errors["503 no-worker"])
	}
	r, err = Run(t.Context(), func(context.Context, Image) (v1.Result, error) { return result("one"), nil }, images[:1], load, map[string]v1.Result{"a": result("other")})
	switch {
	case err != nil:
		t.Errorf("against what was expected: %+v, %v", r, err)
	case r.Mismatched != r.Done:
		t.Errorf("against what was expected: %+v, %v: mismatched %v, want %v", r, err, r.Mismatched, r.Done)
	}
	if _, err := Run(t.Context(), nil, nil, load, nil); err == nil {
		t.Error("no images were accepted")
	}
}

func TestFloor_Send(t *testing.T) {
	t.Parallel()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	defer s.WaitForShutdown()
	defer s.Shutdown()
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("no server")
	}
	f, err := StartFloor(t.Context(), FloorConfig{NATS: connection.Config{URL: s.ClientURL()}, Storage: jetstream.MemoryStorage, First: 1000, Second: 1000, Third: 100})
	if err != nil {
		t.Fatal(err)
	}
	r, err := Run(t.Context(), f.Send, []Image{{Name: "p", Data: make([]byte, 1000)}}, Load{Concurrency: 4, Duration: 300 * time.Millisecond}, nil)
	switch {
	case err != nil:
		t.Errorf("%+v, %v", r, err)
	case r.Done == 0:
		t.Errorf("%+v, %v: done %v, want not 0", r, err, r.Done)
	case len(r.Errors) != 0:
		t.Errorf("%+v, %v: %d errors, want 0", r, err, len(r.Errors))
	}
	if err := f.Close(t.Context()); err != nil {
		t.Error(err)
	}
	nc, err := nats.Connect(s.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	for name := range js.StreamNames(t.Context()).Name() {
		t.Errorf("stream %s is left", name)
	}
}
