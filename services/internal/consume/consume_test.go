package consume

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	"go.uber.org/goleak"

	"github.com/sightmesh/sightmesh/contracts/eventually"
	"github.com/sightmesh/sightmesh/contracts/retry"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/internal/bus"
	"github.com/sightmesh/sightmesh/services/internal/bustest"
	"github.com/sightmesh/sightmesh/services/internal/clock"
	"github.com/sightmesh/sightmesh/services/internal/spantest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testTimeout limits waits that only a test that hangs reaches.
const testTimeout = time.Minute

func TestActionFor(t *testing.T) {
	t.Parallel()
	damaged := v1.NewProblem(v1.Damaged, "")
	for _, tt := range []struct {
		name     string
		err      error
		stopping bool
		fails    bool
		want     action
	}{
		{"no error", nil, false, true, ack},
		{"no error while stopping", nil, true, true, ack},
		{"Drop", Drop(errors.New("no job")), false, true, term},
		{"Drop of a problem", Drop(damaged), false, true, term},
		{"problem", damaged, false, true, fail},
		{"wrapped problem", fmt.Errorf("work: %w", damaged), false, true, fail},
		{"problem while stopping", damaged, true, true, fail},
		{"problem without outcomes", damaged, false, false, term},
		{"cancelled", fmt.Errorf("lane: %w", context.Canceled), false, true, nak},
		{"any while stopping", bus.ErrFull, true, true, nak},
		{"Snooze while stopping", Snooze(time.Hour), true, true, nak},
		{"Snooze", Snooze(time.Hour), false, true, nakSnooze},
		{"passes", retry.After(errors.New("busy"), time.Second), false, true, nakLater},
		{"problem that passes", retry.After(damaged, time.Second), false, true, nakLater},
		{"problem that passes while stopping", retry.After(damaged, time.Second), true, true, nak},
		{"deadline of a context", context.DeadlineExceeded, false, true, nakLater},
		{"stream is full", bus.ErrFull, false, true, nakLater},
		{"connection is closed", nats.ErrConnectionClosed, false, true, nakLater},
	} {
		if got := actionFor(tt.err, tt.stopping, tt.fails); got != tt.want {
			t.Errorf("%s: action %v, want %v", tt.name, got, tt.want)
		}
	}
}

// log collects the lines of a loop.
type log struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *log) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.buf.String(), text)
}

// bench is a real server and a loop that reads FETCHES.
type bench struct {
	*bustest.Server
	js  jetstream.JetStream
	log *log
}

func newBench(t *testing.T) bench {
	t.Helper()
	s := bustest.Start(t, "text")
	js, err := jetstream.New(s.Connect(t))
	if err != nil {
		t.Fatal(err)
	}
	return bench{s, js, &log{}}
}

func (b bench) source(width int) Source {
	return Source{JetStream: b.js, Stream: streams.Fetches, Consumer: streams.FetchesConsumer, Width: width, Prefetch: 1}
}

// loop returns a loop whose deliveries are of a job; change may set more.
func (b bench) loop(change func(*Config)) *Loop {
	tp := noop.NewTracerProvider()
	cfg := Config{
		Open: func(d *Delivery) (err error) {
			d.Job, err = subject.ParseFetches(d.Subject)
			return err
		},
		Timeout: time.Minute, Backoff: retry.Backoff{10 * time.Millisecond}, Clock: clock.New(time.Now),
		Publisher: bus.NewPublisher(b.js, clock.New(time.Now), tp),
		Tracer:    tp.Tracer(""), Logger: slog.New(slog.NewJSONHandler(b.log, nil)),
	}
	if change != nil {
		change(&cfg)
	}
	return NewLoop(cfg)
}

func (b bench) publish(t *testing.T, jobs ...string) {
	t.Helper()
	for _, id := range jobs {
		if _, err := b.js.Publish(t.Context(), subject.Fetches("text", id), []byte(id)); err != nil {
			t.Fatal(err)
		}
	}
}

// run runs the loop until the test or stop ends it.
func (b bench) run(t *testing.T, l *Loop, width int, handle Handler) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.Run(ctx, context.Background(), b.source(width), handle)
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	t.Cleanup(stop)
	return stop
}

// awaitMessageCount waits until a stream has so many messages.
func (b bench) awaitMessageCount(t *testing.T, stream string, want uint64) {
	t.Helper()
	eventually.Succeeds(t, testTimeout, func() error {
		s, err := b.js.Stream(t.Context(), stream)
		if err != nil {
			return err
		}
		if got := s.CachedInfo().State.Msgs; got != want {
			return fmt.Errorf("%s has %d messages, want %d", stream, got, want)
		}
		return nil
	})
}

func message(id string) bus.Message {
	return bus.Message{Subject: subject.Results("text", id), Stream: streams.Results, ID: id, Body: []byte("{}")}
}

// TestLoop_PublishesThenAcks checks that the messages of a delivery are stored before its
// message is acknowledged.
func TestLoop_PublishesThenAcks(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	outcomes := make(chan Outcome, 1)
	b.run(t, b.loop(func(c *Config) {
		c.Hooks.Ended = func(_ context.Context, _ *Delivery, o Outcome) { outcomes <- o }
	}), 1, func(_ context.Context, d *Delivery) ([]bus.Message, error) {
		return []bus.Message{message(d.Job.ID + "-1"), message(d.Job.ID + "-2")}, nil
	})
	b.publish(t, "job")
	b.awaitMessageCount(t, streams.Fetches, 0)
	b.awaitMessageCount(t, streams.Results, 2)
	if o := <-outcomes; o != Done {
		t.Errorf("outcome %s, want %s", o, Done)
	}
}

// TestLoop_ProcessesAtMostItsWidth: as many messages at a time as there is room for, none delivered
// twice though one takes longer than AckWait, and what is left stays in the stream.
func TestLoop_ProcessesAtMostItsWidth(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	const width, n = 2, 6
	var now, handled atomic.Int64
	first, others := make(chan struct{}), make(chan struct{})
	b.publish(t, "a", "b", "c", "d", "e", "f")
	stop := b.run(t, b.loop(nil), width, func(context.Context, *Delivery) ([]bus.Message, error) {
		if got := now.Add(1); got > width {
			t.Errorf("handles %d at a time, want at most %d", got, width)
		}
		defer now.Add(-1)
		gate := others
		if handled.Add(1) == 1 {
			gate = first
		}
		select {
		case <-gate:
		case <-t.Context().Done(): // the test has failed
		}
		return nil, nil
	})
	eventually.Succeeds(t, testTimeout, func() error {
		if got := handled.Load(); got < width {
			return fmt.Errorf("%d handlers have begun, want %d", got, width)
		}
		return nil
	})
	time.Sleep(streams.AckWait + time.Second) // time for a redelivery, which must not happen
	c, err := b.js.Consumer(t.Context(), streams.Fetches, streams.FetchesConsumer)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.CachedInfo().NumPending; got != n-width {
		t.Errorf("%d messages are left in the stream, want %d", got, n-width)
	}
	close(others)
	b.awaitMessageCount(t, streams.Fetches, 1)
	close(first)
	b.awaitMessageCount(t, streams.Fetches, 0)
	stop()
	if got := handled.Load(); got != n {
		t.Errorf("handled %d, want %d", got, n)
	}
}

// TestLoop_PullsNothingWhileBusy checks that a full loop leaves new messages to other processes.
func TestLoop_PullsNothingWhileBusy(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	busy, release := make(chan struct{}), make(chan struct{})
	b.run(t, b.loop(nil), 1, func(context.Context, *Delivery) ([]bus.Message, error) {
		close(busy)
		<-release
		return nil, nil
	})
	b.publish(t, "first")
	<-busy
	other := make(chan string, 1)
	b.publish(t, "second")
	b.run(t, b.loop(nil), 1, func(_ context.Context, d *Delivery) ([]bus.Message, error) {
		other <- d.Job.ID
		return nil, nil
	})
	if id := <-other; id != "second" {
		t.Errorf("the other process got %s, want second", id)
	}
	close(release)
	b.awaitMessageCount(t, streams.Fetches, 0)
}

// TestLoop_EndsDeliveriesByTheirError follows each kind of error to what became of its
// message.
func TestLoop_EndsDeliveriesByTheirError(t *testing.T) {
	t.Parallel()
	passing := errors.New("busy")
	for _, tt := range []struct {
		name     string
		first    error // of the first delivery; there is no error of the second
		want     []Outcome
		failures uint64 // outcomes stored in RESULTS
	}{
		{"passes", retry.After(passing, time.Millisecond), []Outcome{Retried, Done}, 0},
		{"unknown", passing, []Outcome{Retried, Done}, 0},
		{"Snooze", Snooze(time.Millisecond), []Outcome{Snoozed, Done}, 0},
		{"cancelled", context.Canceled, []Outcome{HandedBack, Done}, 0},
		{"Drop", Drop(passing), []Outcome{Dropped}, 0},
		{"problem", v1.NewProblem(v1.Damaged, "no image"), []Outcome{Outcome(v1.Damaged)}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			outcomes := make(chan Outcome, 4)
			l := b.loop(func(c *Config) {
				c.Hooks.Ended = func(_ context.Context, _ *Delivery, o Outcome) { outcomes <- o }
				c.Fail = func(_ context.Context, d *Delivery, p *v1.Problem) ([]bus.Message, error) {
					if p.Job != d.Job.ID {
						t.Errorf("the problem is of job %q, want %q", p.Job, d.Job.ID)
					}
					return []bus.Message{message(d.Job.ID)}, nil
				}
			})
			b.run(t, l, 1, func(_ context.Context, d *Delivery) ([]bus.Message, error) {
				if d.Deliveries == 1 {
					return nil, tt.first
				}
				return nil, nil
			})
			b.publish(t, "job")
			for i, want := range tt.want {
				if got := <-outcomes; got != want {
					t.Errorf("delivery %d: %s, want %s", i+1, got, want)
				}
			}
			b.awaitMessageCount(t, streams.Fetches, 0)
			b.awaitMessageCount(t, streams.Results, tt.failures)
		})
	}
}

// TestLoop_RetriesAPublish: what was computed waits for room in a full
// stream, and is not computed again.
func TestLoop_RetriesAPublish(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	results, err := b.js.Stream(t.Context(), streams.Results)
	if err != nil {
		t.Fatal(err)
	}
	limits := results.CachedInfo().Config
	limits.Discard, limits.MaxMsgs = jetstream.DiscardNew, 1
	if _, err := b.js.UpdateStream(t.Context(), limits); err != nil {
		t.Fatal(err)
	}
	if _, err := b.js.Publish(t.Context(), subject.Results("text", "other"), nil); err != nil {
		t.Fatal(err)
	}
	var calls, retries atomic.Int64
	published := make(chan struct{})
	l := b.loop(func(c *Config) {
		c.Hooks.Published = func(_ bus.Message, n int) {
			retries.Store(int64(n))
			close(published)
		}
	})
	nc := b.Connect(t)
	attempts, err := nc.SubscribeSync(subject.Results("text", "job"))
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	b.run(t, l, 1, func(_ context.Context, d *Delivery) ([]bus.Message, error) {
		calls.Add(1)
		return []bus.Message{message(d.Job.ID)}, nil
	})
	b.publish(t, "job")
	for range 2 { // the second attempt follows when the first was rejected
		if _, err := attempts.NextMsg(testTimeout); err != nil {
			t.Fatal(err)
		}
	}
	limits.MaxMsgs = 10
	if _, err := b.js.UpdateStream(t.Context(), limits); err != nil {
		t.Fatal(err)
	}
	<-published
	if calls.Load() != 1 {
		t.Errorf("handled %d times, want once", calls.Load())
	}
	if retries.Load() == 0 {
		t.Error("the publish was not repeated")
	}
}

// TestLoop_FailsATooLargeMessageImmediately: no later publish can succeed, and
// the next job must not wait for one.
func TestLoop_FailsATooLargeMessageImmediately(t *testing.T) {
	t.Parallel()
	const maxPayload = streams.MaxMessage + streams.HeaderAllowance
	crops := func(part int) bus.Message {
		job := subject.Job{Pipeline: "text", Priority: subject.Bulk, ID: "large", Part: part}
		return bus.Message{Subject: subject.Crops(job), Stream: streams.Crops, ID: fmt.Sprint("crops.", part)}
	}
	job := subject.Job{Pipeline: "text", ID: "large"}
	part := bus.Message{Subject: subject.Parts(job), Stream: streams.Parts, ID: "parts"}
	for name, tt := range map[string]struct {
		messages []bus.Message // of which the last is too large
		size     int
		limit    int32 // of its stream
	}{
		"result over max_payload":    {[]bus.Message{message("large")}, maxPayload + 1, maxPayload},
		"crops over max_payload":     {[]bus.Message{crops(0), crops(1)}, maxPayload + 1, maxPayload},
		"part over max_payload":      {[]bus.Message{part}, maxPayload + 1, maxPayload},
		"result over max_msg_size":   {[]bus.Message{message("large")}, 2000, 1000},
		"crops over max_msg_size":    {[]bus.Message{crops(0), crops(1)}, 2000, 1000},
		"its headers over the limit": {[]bus.Message{part}, 900, 1000},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			large := &tt.messages[len(tt.messages)-1]
			large.Body = make([]byte, tt.size)
			s, err := b.js.Stream(t.Context(), large.Stream)
			if err != nil {
				t.Fatal(err)
			}
			cfg := s.CachedInfo().Config
			cfg.MaxMsgSize = tt.limit
			if _, err := b.js.UpdateStream(t.Context(), cfg); err != nil {
				t.Fatal(err)
			}
			if tt.size < int(tt.limit) {
				large.Header = nats.Header{v1.HeaderMetadata: {strings.Repeat("x", int(tt.limit)-tt.size)}}
			}
			outcomes, problems := make(chan Outcome, 4), make(chan *v1.Problem, 4)
			spans := tracetest.NewSpanRecorder()
			tp := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
			l := b.loop(func(c *Config) {
				c.Backoff = retry.Backoff{time.Hour}
				c.Publisher = bus.NewPublisher(b.js, clock.New(time.Now), tp)
				c.Hooks.Ended = func(_ context.Context, _ *Delivery, o Outcome) { outcomes <- o }
				c.Fail = func(_ context.Context, d *Delivery, p *v1.Problem) ([]bus.Message, error) {
					problems <- p
					return []bus.Message{message(d.Job.ID)}, nil
				}
			})
			b.run(t, l, 1, func(_ context.Context, d *Delivery) ([]bus.Message, error) {
				if d.Job.ID == "large" {
					return tt.messages, nil
				}
				return []bus.Message{message(d.Job.ID)}, nil
			})
			b.publish(t, "large", "small")
			for _, want := range []Outcome{Outcome(v1.Internal), Done} {
				select {
				case got := <-outcomes:
					if got != want {
						t.Fatalf("a job ended as %s, want %s", got, want)
					}
				case <-time.After(testTimeout):
					t.Fatalf("no job ends as %s", want)
				}
			}
			failed := 0
			for _, span := range spans.Ended() {
				if span.Status().Code == codes.Error {
					failed++
				}
			}
			if failed != 1 {
				t.Errorf("%d publishes failed, want one that was not repeated", failed)
			}
			if p := <-problems; !strings.Contains(p.Detail, large.ID) {
				t.Errorf("the detail is %q, want that it names %s", p.Detail, large.ID)
			}
			b.awaitMessageCount(t, streams.Fetches, 0)
			b.awaitMessageCount(t, streams.Results, 2)
		})
	}
}

// TestLoop_WaitsForADeletedConsumer checks that the loop logs a deleted consumer, and
// continues when the consumer exists again, also when it was busy at the deletion.
func TestLoop_WaitsForADeletedConsumer(t *testing.T) {
	t.Parallel()
	for name, release := range map[string]bool{"idle": true, "busy": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testConsumerIsRemoved(t, release)
		})
	}
}

func testConsumerIsRemoved(t *testing.T, idle bool) {
	b := newBench(t)
	got, release := make(chan string, 1), make(chan struct{})
	free := sync.OnceFunc(func() { close(release) })
	t.Cleanup(free)
	b.run(t, b.loop(nil), 1, func(_ context.Context, d *Delivery) ([]bus.Message, error) {
		got <- d.Job.ID
		<-release
		return nil, nil
	})
	b.publish(t, "one")
	<-got
	if idle {
		free()
		b.awaitMessageCount(t, streams.Fetches, 0)
	}
	c, err := b.js.Consumer(t.Context(), streams.Fetches, streams.FetchesConsumer)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.js.DeleteConsumer(t.Context(), streams.Fetches, streams.FetchesConsumer); err != nil {
		t.Fatal(err)
	}
	free()
	eventually.Succeeds(t, testTimeout, func() error {
		if !b.log.has("cannot pull messages") {
			return errors.New("the loop does not log that its consumer is gone")
		}
		return nil
	})
	if _, err := b.js.CreateConsumer(t.Context(), streams.Fetches, c.CachedInfo().Config); err != nil {
		t.Fatal(err)
	}
	b.publish(t, "two")
	for id := range got { // one may come again: its acknowledgement found no consumer
		if id == "two" {
			return
		}
	}
}

// TestLoop_DeadlineWithAWrongClock checks that a machine whose clock is ahead or behind neither ends a job too early
// nor waits too long.
func TestLoop_DeadlineWithAWrongClock(t *testing.T) {
	t.Parallel()
	for _, shift := range []time.Duration{time.Hour, -time.Hour} {
		b := newBench(t)
		c := clock.New(func() time.Time { return time.Now().Add(shift) })
		if err := c.Measure(t.Context(), b.js); err != nil {
			t.Fatal(err)
		}
		left, waits := make(chan time.Duration, 1), make(chan float64, 1)
		b.run(t, b.loop(func(cfg *Config) {
			cfg.Clock = c
			cfg.Open = func(d *Delivery) (err error) {
				if d.Job, err = subject.ParseFetches(d.Subject); err != nil {
					return err
				}
				return d.ReadDeadline(time.Minute)
			}
		}), 1, func(ctx context.Context, d *Delivery) ([]bus.Message, error) {
			until, _ := ctx.Deadline()
			left <- time.Until(until)
			waits <- d.QueueMS()
			return nil, nil
		})
		b.publish(t, "job")
		if d := <-left; d < 50*time.Second || d > 70*time.Second {
			t.Errorf("clock off by %v: the handler has %v, want about a minute", shift, d)
		}
		if ms := <-waits; ms > 10_000 {
			t.Errorf("clock off by %v: the message waited %v ms", shift, ms)
		}
	}
}

// TestLoop_DropsAMessageWithoutAJob checks that the message is dropped and that no handler is called.
func TestLoop_DropsAMessageWithoutAJob(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.run(t, b.loop(nil), 1, func(_ context.Context, d *Delivery) ([]bus.Message, error) {
		t.Errorf("handled %s", d.Subject)
		return nil, nil
	})
	if _, err := b.js.Publish(t.Context(), subject.Prefix+"fetches.text.j$b", nil); err != nil {
		t.Fatal(err)
	}
	b.awaitMessageCount(t, streams.Fetches, 0)
	if !b.log.has("a message does not belong to a job, and is dropped") {
		t.Error("the log does not say so")
	}
}

// TestLoop_FinishesReceivedMessages: a handler that is at work when the loop is
// stopped finishes, and its message is acknowledged.
func TestLoop_FinishesReceivedMessages(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	const n = 20
	for i := range n {
		b.publish(t, fmt.Sprint("job", i))
	}
	ctx, cancel := context.WithCancel(t.Context())
	var handled atomic.Int64
	src := b.source(n)
	src.Prefetch = n
	stopped := make(chan struct{})
	context.AfterFunc(ctx, func() { close(stopped) })
	b.loop(nil).Run(ctx, t.Context(), src, func(context.Context, *Delivery) ([]bus.Message, error) {
		if handled.Add(1) == n {
			cancel()
		}
		<-stopped
		return nil, nil
	})
	b.awaitMessageCount(t, streams.Fetches, 0)
}

func TestLoop_RecordsTheQueueWaitBesideTheWork(t *testing.T) {
	t.Parallel()
	spans := tracetest.NewSpanRecorder()
	tp := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	b := newBench(t)
	l := b.loop(func(c *Config) { c.Tracer = tp.Tracer("test") })
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	stored := time.Now().Add(-time.Second)
	d := &Delivery{
		Stream: "IMAGES", Consumer: "detect-text-bulk",
		Header: nats.Header{
			"traceparent": {parent}, "tracestate": {"sightmesh=00f067aa0ba902b7"}, nats.MsgIdHdr: {"j1.images"},
		},
		Body:   []byte("image"),
		Job:    subject.Job{Pipeline: "text", Priority: subject.Bulk, ID: "j1"},
		Stored: stored, Received: stored.Add(300 * time.Millisecond), Deliveries: 2,
	}
	_, span := l.startSpan(t.Context(), d)
	span.End()
	d.Received = stored.Add(-time.Millisecond) // by a clock that is behind
	_, span = l.startSpan(t.Context(), d)
	span.End()

	ended := spans.Ended()
	if len(ended) != 3 {
		t.Fatalf("%d spans, want queue and process, and only process when the clocks disagree", len(ended))
	}
	for i, name := range []string{"queue IMAGES", "process IMAGES", "process IMAGES"} {
		if got := ended[i].Name(); got != name {
			t.Errorf("span %d is %q, want %q", i, got, name)
		}
		if got := ended[i].Parent().SpanID().String(); got != "b7ad6b7169203331" {
			t.Errorf("span %d is under %s, want the request", i, got)
		}
		links := ended[i].Links()
		if len(links) != 1 {
			t.Fatalf("span %d has the links %+v, want one", i, links)
		}
		if got := links[0].SpanContext.SpanID().String(); got != "00f067aa0ba902b7" {
			t.Errorf("span %d is linked to %s, want 00f067aa0ba902b7, the publisher", i, got)
		}
	}
	queued := map[attribute.Key]string{
		"messaging.system": "nats", "messaging.destination.name": "IMAGES",
		"messaging.destination.template": subject.AllImages(),
		"sightmesh.job":                  "j1", "sightmesh.pipeline": "text", "sightmesh.priority": "bulk",
		"sightmesh.part": "0", "sightmesh.deliveries": "2",
	}
	if got := spantest.Attributes(ended[0].Attributes()); !maps.Equal(got, queued) {
		t.Errorf("the queue wait has the attributes\n%v, want\n%v", got, queued)
	}
	processed := spantest.Attributes(ended[1].Attributes())
	for key, want := range map[attribute.Key]string{
		"messaging.operation.name": "process", "messaging.operation.type": "process", "messaging.message.id": "j1.images",
		"messaging.message.body.size": "5", "messaging.consumer.group.name": "detect-text-bulk",
		"server.address": "127.0.0.1", "sightmesh.job": "j1", "sightmesh.priority": "bulk", "sightmesh.deliveries": "2",
	} {
		if got := processed[key]; got != want {
			t.Errorf("the work has %s %q, want %q", key, got, want)
		}
	}
	if wait := ended[0].EndTime().Sub(ended[0].StartTime()); wait != 300*time.Millisecond-spanGap {
		t.Errorf("the queue wait takes %v", wait)
	}
	if !ended[0].EndTime().Add(spanGap).Equal(ended[1].StartTime()) {
		t.Errorf("the queue wait ends at %v, the work begins at %v", ended[0].EndTime(), ended[1].StartTime())
	}
}

// TestLoop_MessageWithoutATraceHasOneTree: a client publishes without a traceparent.
func TestLoop_MessageWithoutATraceHasOneTree(t *testing.T) {
	t.Parallel()
	spans := tracetest.NewSpanRecorder()
	tp := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	b := newBench(t)
	l := b.loop(func(c *Config) {
		c.Tracer = tp.Tracer("test")
		c.Publisher = bus.NewPublisher(b.js, clock.New(time.Now), tp)
	})
	stop := b.run(t, l, 1, func(_ context.Context, d *Delivery) ([]bus.Message, error) {
		return []bus.Message{message(d.Job.ID)}, nil
	})
	b.publish(t, "j1")
	b.awaitMessageCount(t, streams.Fetches, 0)
	b.awaitMessageCount(t, streams.Results, 1)
	stop() // the span of the work ends after the acknowledgement
	roots, traces := 0, map[trace.TraceID]bool{}
	for _, s := range spans.Ended() {
		traces[s.SpanContext().TraceID()] = true
		if !s.Parent().IsValid() {
			roots++
		}
	}
	if len(traces) != 1 {
		t.Errorf("the message has %d traces, want 1", len(traces))
	}
	if roots != 1 {
		t.Errorf("the trace has %d roots, want 1", roots)
	}
}

// TestLoop_SpanHasTheErrorOfAFailure for each kind of error.
func TestLoop_SpanHasTheErrorOfAFailure(t *testing.T) {
	t.Parallel()
	for want, err := range map[string]error{
		"":        nil,
		"damaged": v1.NewProblem(v1.Damaged, "not an image"),
		"retried": errors.New("busy"),
		"dropped": Drop(errors.New("no job")),
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			spans := tracetest.NewSpanRecorder()
			tracer := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)).Tracer("test")
			b := newBench(t)
			ended := make(chan struct{}, 9)
			l := b.loop(func(c *Config) {
				c.Tracer, c.Backoff = tracer, retry.Backoff{time.Hour}
				c.Fail = func(_ context.Context, d *Delivery, _ *v1.Problem) ([]bus.Message, error) {
					return []bus.Message{message(d.Job.ID)}, nil
				}
				c.Hooks.Ended = func(context.Context, *Delivery, Outcome) { ended <- struct{}{} }
			})
			stop := b.run(t, l, 1, func(context.Context, *Delivery) ([]bus.Message, error) { return nil, err })
			b.publish(t, "j1")
			select {
			case <-ended:
			case <-time.After(testTimeout):
				t.Fatal("the delivery does not end")
			}
			stop()
			processed := 0
			for _, s := range spans.Ended() {
				if s.SpanKind() != trace.SpanKindConsumer {
					continue
				}
				processed++
				if got := spantest.Attributes(s.Attributes())["error.type"]; got != want {
					t.Errorf("error.type is %q, want %q", got, want)
				}
				if isError := s.Status().Code == codes.Error; isError != (err != nil) {
					t.Errorf("the status is %v after %v", s.Status().Code, err)
				}
				if recorded := len(s.Events()) > 0; recorded != (err != nil) {
					t.Errorf("the events are %v after %v", s.Events(), err)
				}
			}
			if processed != 1 {
				t.Errorf("%d consumer spans, want 1", processed)
			}
		})
	}
}

// TestBatches_EndsEachMessageByItsError: one call handles many, and each message ends by
// its own error.
func TestBatches_EndsEachMessageByItsError(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.publish(t, "a", "b", "c")
	ctx, cancel := context.WithCancel(t.Context())
	var seen []string
	err := b.batches(t).Run(ctx, func(context.Context) {}, func(_ context.Context, batch []*Delivery) ([]error, error) {
		each := make([]error, len(batch))
		for i, d := range batch {
			seen = append(seen, string(d.Body))
			if string(d.Body) == "b" && d.Deliveries == 1 {
				each[i] = errors.New("busy")
			}
		}
		if len(seen) == 4 {
			cancel()
		}
		return each, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(seen, ""); got != "abcb" {
		t.Errorf("handled %s, want abcb", got)
	}
	b.awaitMessageCount(t, streams.Fetches, 0)
}

// TestBatches_RedeliversAllAfterAnErrorOfTheBatch ends Run, and every message comes again.
func TestBatches_RedeliversAllAfterAnErrorOfTheBatch(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.publish(t, "a", "b")
	away := errors.New("the database is away")
	handle := func(context.Context, []*Delivery) ([]error, error) { return nil, away }
	if err := b.batches(t).Run(t.Context(), func(context.Context) {}, handle); !errors.Is(err, away) {
		t.Fatalf("Run = %v, want %v", err, away)
	}
	ctx, cancel := context.WithCancel(t.Context())
	again := 0
	if err := b.batches(t).Run(ctx, func(context.Context) {}, func(_ context.Context, batch []*Delivery) ([]error, error) {
		if again += len(batch); again == 2 {
			cancel()
		}
		return make([]error, len(batch)), nil
	}); err != nil {
		t.Fatal(err)
	}
	b.awaitMessageCount(t, streams.Fetches, 0)
}

func (b bench) batches(t *testing.T) Batches {
	t.Helper()
	c, err := b.js.Consumer(t.Context(), streams.Fetches, streams.FetchesConsumer)
	if err != nil {
		t.Fatal(err)
	}
	return Batches{
		Consumer: c, Size: 10, Timeout: time.Minute, Backoff: retry.Backoff{10 * time.Millisecond},
		Clock: clock.New(time.Now), Tracer: noop.NewTracerProvider().Tracer(""),
		Logger: slog.New(slog.NewJSONHandler(b.log, nil)),
	}
}

// TestBatches_SpanIsLinkedToEachMessage of the batch.
func TestBatches_SpanIsLinkedToEachMessage(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	spans := tracetest.NewSpanRecorder()
	tp := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	want := map[trace.SpanID]bool{}
	publisher := bus.NewPublisher(b.js, clock.New(time.Now), tp)
	for _, id := range []string{"a", "b"} {
		m := bus.Message{Subject: subject.Fetches("text", id), Stream: streams.Fetches, ID: id}
		if err := publisher.Publish(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	b.publish(t, "untraced")
	for _, s := range spans.Ended() {
		want[s.SpanContext().SpanID()] = true
	}
	batches := b.batches(t)
	batches.Tracer = tp.Tracer("test")
	ctx, cancel := context.WithCancel(t.Context())
	err := batches.Run(ctx, func(context.Context) {}, func(_ context.Context, batch []*Delivery) ([]error, error) {
		cancel()
		return make([]error, len(batch)), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	span := spans.Ended()[len(want)]
	if got := spantest.Attributes(span.Attributes())["messaging.batch.message_count"]; got != "3" {
		t.Errorf("the batch has %s messages, want 3", got)
	}
	if span.Parent().IsValid() {
		t.Errorf("the batch is in the trace of %s", span.Parent().SpanID())
	}
	got := map[trace.SpanID]bool{}
	for _, l := range span.Links() {
		got[l.SpanContext.SpanID()] = true
	}
	if !maps.Equal(got, want) {
		t.Errorf("the batch is linked to %v, want what published its messages: %v", got, want)
	}
}
