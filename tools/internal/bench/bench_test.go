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
	"sync"
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

// runInBubble runs a load on the fake clock of a synctest bubble, so that the test does
// not depend on the speed of the machine.
func runInBubble(t *testing.T, send Sender, images []Image, load Load, expected map[string]v1.Result) (r Report) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var err error
		if r, err = Run(t.Context(), send, images, load, expected); err != nil {
			t.Fatal(err)
		}
	})
	return r
}

func TestRun_ClosedLoop(t *testing.T) {
	t.Parallel()
	var current, most atomic.Int64
	r := runInBubble(t, func(_ context.Context, p Image) (v1.Result, error) {
		n := current.Add(1)
		defer current.Add(-1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		time.Sleep(2 * time.Millisecond)
		return result(p.Name), nil
	}, images, Load{Concurrency: 3, WarmUp: 20 * time.Millisecond, Duration: 200 * time.Millisecond}, nil)
	if n := most.Load(); n != 3 {
		t.Errorf("at most %d requests at a time, want 3", n)
	}
	switch {
	case r.Done == 0:
		t.Fatal("no request is counted")
	case r.Mismatched != 0:
		t.Errorf("%d results are mismatched, want 0", r.Mismatched)
	case len(r.Errors) != 0:
		t.Errorf("errors %v, want none", r.Errors)
	case r.Latency.P50 < 2:
		t.Errorf("the median latency is %v ms, want at least 2", r.Latency.P50)
	case r.Latency.Max < r.Latency.P99:
		t.Errorf("the largest latency is %v ms, less than p99 with %v ms", r.Latency.Max, r.Latency.P99)
	case r.Hops["queue"].P50 < 1.9 || r.Hops["queue"].P50 > 2.1:
		t.Errorf("the median of the queue wait is %v ms, want 2", r.Hops["queue"].P50)
	}
	var text, js, svg bytes.Buffer
	if err := errors.Join(r.WriteText(&text), r.WriteJSON(&js), r.WritePlot(&svg)); err != nil {
		t.Fatal(err)
	}
	var decoded Report
	switch err := json.Unmarshal(js.Bytes(), &decoded); {
	case err != nil:
		t.Errorf("%v in\n%s", err, &js)
	case decoded.Done != r.Done:
		t.Errorf("the JSON report has %d requests, want %d", decoded.Done, r.Done)
	}
	if !strings.Contains(text.String(), "p99.9") {
		t.Errorf("the text report has no p99.9:\n%s", &text)
	}
	for d := xml.NewDecoder(&svg); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("the plot is not XML: %v", err)
		}
	}
}

// TestRun_ThroughputExcludesWarmUp checks that the wait for the last requests does not
// lower the throughput, and that results after the end do not raise it.
func TestRun_ThroughputExcludesWarmUp(t *testing.T) {
	for name, load := range map[string]Load{
		"closed loop":                {Concurrency: 3, WarmUp: time.Second, Duration: 3 * time.Second},
		"open loop, at its capacity": {Concurrency: 3, Rate: 100, WarmUp: time.Second, Duration: 3 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			r := runInBubble(t, func(_ context.Context, p Image) (v1.Result, error) {
				time.Sleep(300 * time.Millisecond)
				return result(p.Name), nil
			}, images, load, nil)
			// In the open loop a request that ends with a tick may free its place only for
			// the next tick, 10 ms later: three places do 27 images in 3 s at least.
			if r.PerSecond < 9 || r.PerSecond > 10.5 {
				t.Errorf("%v images per second, want 9 to 10.5", r.PerSecond)
			}
			if r.Seconds != 3 {
				t.Errorf("the report is of %v s, want 3", r.Seconds)
			}
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
			t.Error(err)
		case r.PerSecond != 0:
			t.Errorf("%v images per second, want 0", r.PerSecond)
		case r.Seconds != 0:
			t.Errorf("the report is of %v s, want 0", r.Seconds)
		}
	})
}

// TestRun_OpenLoopMeasuresStall checks that a stall counts for every request behind it:
// latency is measured from the time at which a request should have begun.
func TestRun_OpenLoopMeasuresStall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int64
		lane := make(chan struct{}, 1) // one request at a time, as a server with one lane
		r, err := Run(t.Context(), func(_ context.Context, p Image) (v1.Result, error) {
			lane <- struct{}{}
			defer func() { <-lane }()
			if n.Add(1) == 1 {
				time.Sleep(300 * time.Millisecond)
			}
			return result(p.Name), nil
		}, images, Load{Concurrency: 100, Rate: 100, Duration: 400 * time.Millisecond}, nil)
		switch {
		case err != nil:
			t.Fatal(err)
		case r.Done < 30:
			t.Fatalf("%d requests are counted, want at least 30", r.Done)
		case r.Latency.P50 < 50:
			t.Errorf("the median latency is %v ms, want at least 50 because of the stall", r.Latency.P50)
		}
	})
}

// TestLoad_RateAloneIsAnOpenLoop tests the row "sightmesh bench" of shared/cases: with a
// rate and without --concurrency, no request waits for another one.
func TestLoad_RateAloneIsAnOpenLoop(t *testing.T) {
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	var cfg Config
	cfg.Register(fs)
	if err := fs.Parse([]string{"--rate", "100", "--warmup", "1s", "--duration", "10s"}); err != nil {
		t.Fatal(err)
	}
	r := runInBubble(t, func(_ context.Context, p Image) (v1.Result, error) {
		time.Sleep(20 * time.Second) // all requests are in flight at the same time
		return result(p.Name), nil
	}, images, cfg.load, nil)
	if r.Missed != 0 {
		t.Errorf("%d requests were not sent, want 0", r.Missed)
	}
	if r.Done != 1000 {
		t.Errorf("%d requests are counted, want 1000", r.Done)
	}
}

// TestLoad_ConcurrencyBoundsAnOpenLoop checks that requests above the concurrency of an
// open loop count as missed.
func TestLoad_ConcurrencyBoundsAnOpenLoop(t *testing.T) {
	r := runInBubble(t, func(_ context.Context, p Image) (v1.Result, error) {
		time.Sleep(20 * time.Second)
		return result(p.Name), nil
	}, images, Load{Rate: 100, Concurrency: 7, Duration: 10 * time.Second}, nil)
	if r.Missed != 994 { // of 1001, with the first and the last
		t.Errorf("%d requests were not sent, want 994", r.Missed)
	}
	var text bytes.Buffer
	if err := r.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	if want := "were not sent, because 7 were in progress"; !strings.Contains(text.String(), want) {
		t.Errorf("the report has no %q:\n%s", want, &text)
	}
}

// TestRun_CountsMismatchesAndErrors sends 9 requests of 10 ms, of which every third one
// fails and the others return two different results.
func TestRun_CountsMismatchesAndErrors(t *testing.T) {
	t.Parallel()
	load := Load{Concurrency: 1, Duration: 85 * time.Millisecond}
	var n atomic.Int64
	r := runInBubble(t, func(context.Context, Image) (v1.Result, error) {
		time.Sleep(10 * time.Millisecond)
		switch n.Add(1) % 3 {
		case 0:
			return v1.Result{}, errors.New("503 no-worker")
		case 1:
			return result("one"), nil
		}
		return result("another"), nil
	}, images[:1], load, nil)
	if r.Mismatched != 3 {
		t.Errorf("%d results are mismatched, want 3", r.Mismatched)
	}
	if got := r.Errors["503 no-worker"]; got != 3 {
		t.Errorf("%d requests failed with 503 no-worker, want 3", got)
	}
	r = runInBubble(t, func(context.Context, Image) (v1.Result, error) {
		time.Sleep(10 * time.Millisecond)
		return result("one"), nil
	}, images[:1], load, map[string]v1.Result{"a": result("other")})
	if r.Mismatched != 9 {
		t.Errorf("%d results differ from the expected one, want 9", r.Mismatched)
	}
	if _, err := Run(t.Context(), nil, nil, load, nil); err == nil {
		t.Error("a run without images: no error")
	}
}

func TestFloor_Send(t *testing.T) {
	t.Parallel()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true,
		StoreDir: t.TempDir(), NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	defer s.WaitForShutdown()
	defer s.Shutdown()
	if !s.ReadyForConnections(time.Minute) {
		t.Fatal("the NATS server is not ready for connections")
	}
	f, err := StartFloor(t.Context(), FloorConfig{
		NATS: connection.Config{URL: s.ClientURL()}, Storage: jetstream.MemoryStorage, First: 1000, Second: 1000, Third: 100,
	})
	if err != nil {
		t.Fatal(err)
	}
	var senders sync.WaitGroup
	for range 4 {
		senders.Go(func() {
			for range 10 {
				if _, err := f.Send(t.Context(), Image{Name: "p", Data: make([]byte, 1000)}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	senders.Wait()
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
		t.Errorf("stream %s was not deleted", name)
	}
}
