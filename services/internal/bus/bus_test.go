package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/sightmesh/sightmesh/contracts/connection"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/internal/bustest"
	"github.com/sightmesh/sightmesh/services/internal/clock"
	"github.com/sightmesh/sightmesh/services/internal/spantest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testTimeout = time.Minute

func newQuietLogger() *slog.Logger { return slog.New(slog.DiscardHandler) }

func openJetStream(t *testing.T, nc *nats.Conn) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func connect(t *testing.T, url string) *nats.Conn {
	t.Helper()
	nc, err := Connect(t.Context(), connection.Config{URL: url}, "detect", "one", newQuietLogger())
	if err != nil {
		t.Fatal(err)
	}
	return nc
}

func imageMessage(id string) Message {
	job := subject.Job{Pipeline: "text", Priority: subject.Interactive, ID: id}
	return Message{Subject: subject.Images(job), Stream: streams.Images, ID: v1.MsgID(id, "images"), Body: []byte(id)}
}

func TestPublish_StoresOnceWithItsTrace(t *testing.T) {
	t.Parallel()
	js := openJetStream(t, bustest.Start(t, "text").Connect(t))
	spans := tracetest.NewSpanRecorder()
	p := NewPublisher(js, clock.New(time.Now), sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)))
	ctx := context.Background()
	for range 2 {
		if err := p.Publish(ctx, imageMessage("j1")); err != nil {
			t.Fatal(err)
		}
	}
	s, err := js.Stream(ctx, streams.Images)
	if err != nil {
		t.Fatal(err)
	}
	if n := s.CachedInfo().State.Msgs; n != 1 {
		t.Errorf("%d messages are stored, want 1", n)
	}
	m, err := s.GetMsg(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	first := spans.Ended()[0]
	if got, want := spantest.Attributes(first.Attributes()), map[attribute.Key]string{
		"messaging.system": "nats", "messaging.operation.name": "publish", "messaging.operation.type": "send",
		"messaging.destination.name": "IMAGES", "messaging.destination.template": subject.AllImages(),
		"messaging.message.id": "j1.images", "messaging.message.body.size": "2",
		"messaging.client.id": js.Conn().Opts.Name, "server.address": "127.0.0.1", "server.port": portOf(t, js.Conn()),
		"sightmesh.job": "j1", "sightmesh.pipeline": "text", "sightmesh.priority": "interactive", "sightmesh.part": "0",
	}; !maps.Equal(got, want) {
		t.Errorf("the span has the attributes\n%v, want\n%v", got, want)
	}
	if got := m.Header.Get("traceparent"); !strings.Contains(got, first.SpanContext().SpanID().String()) {
		t.Errorf("traceparent is %q, want that of the span that published", got)
	}
	if got, want := first.Name(), "publish IMAGES"; got != want {
		t.Errorf("the span is %q, want %q", got, want)
	}
	if got, want := first.SpanKind(), trace.SpanKindProducer; got != want {
		t.Errorf("the span is of kind %v, want %v", got, want)
	}
}

func portOf(t *testing.T, nc *nats.Conn) string {
	t.Helper()
	u, err := url.Parse(nc.ConnectedUrl())
	if err != nil {
		t.Fatal(err)
	}
	return u.Port()
}

// TestPublish_StartsATrace has a message in a trace of its own, which leads back to
// the one it comes from.
func TestPublish_StartsATrace(t *testing.T) {
	t.Parallel()
	js := openJetStream(t, bustest.Start(t, "text").Connect(t))
	spans := tracetest.NewSpanRecorder()
	tp := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	ctx, request := tp.Tracer("t").Start(t.Context(), "request")
	m := imageMessage("j1")
	m.NewTrace = true
	stored := 0
	m.Stored = func() { stored++ }
	p := NewPublisher(js, clock.New(time.Now), tp)
	for range 2 {
		if err := p.Publish(ctx, m); err != nil {
			t.Fatal(err)
		}
	}
	if stored != 1 {
		t.Errorf("Stored was called %d times for one message", stored)
	}
	span := spans.Ended()[0]
	if span.SpanContext().TraceID() == request.SpanContext().TraceID() {
		t.Error("the message is in the trace of the request")
	}
	if span.Parent().IsValid() {
		t.Errorf("the span has the parent %s, want none", span.Parent().SpanID())
	}
	links := span.Links()
	if len(links) != 1 {
		t.Fatalf("the span has the links %+v, want one", links)
	}
	if got, want := links[0].SpanContext.SpanID(), request.SpanContext().SpanID(); got != want {
		t.Errorf("the span is linked to %s, want %s, the request", got, want)
	}
}

func TestPublish_FailedSpanHasTheTypeOfTheError(t *testing.T) {
	t.Parallel()
	js := openJetStream(t, bustest.Start(t, "text").Connect(t))
	spans := tracetest.NewSpanRecorder()
	p := NewPublisher(js, clock.New(time.Now), sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)))
	m := imageMessage("j1")
	m.Subject = "no subject"
	if err := p.Publish(t.Context(), m); err == nil {
		t.Fatal("a message without a subject was stored")
	}
	if got := spantest.Attributes(spans.Ended()[0].Attributes())["error.type"]; got != string(v1.Internal) {
		t.Errorf("error.type is %q, want %s", got, v1.Internal)
	}
}

func TestPublishFirst_ReportsWhichMessageIsKept(t *testing.T) {
	t.Parallel()
	js := openJetStream(t, bustest.Start(t, "text").Connect(t))
	p := NewPublisher(js, clock.New(time.Now), sdktrace.NewTracerProvider())
	result := Message{Subject: subject.Results("text", "j1"), Stream: streams.Results, ID: "j1.results", Once: true}
	sameSubject := result
	sameSubject.ID = "another"
	for _, c := range []struct {
		name  string
		m     Message
		first bool
	}{{"the first", result, true}, {"the same ID", result, false}, {"the same subject", sameSubject, false}} {
		first, err := p.PublishFirst(t.Context(), c.m)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if first != c.first {
			t.Errorf("%s: it was first: %v, want %v", c.name, first, c.first)
		}
	}
}

func TestPublish_DistinguishesAFullStream(t *testing.T) {
	t.Parallel()
	js := openJetStream(t, bustest.Start(t, "text").Connect(t))
	ctx := context.Background()
	s, err := js.Stream(ctx, streams.Images)
	if err != nil {
		t.Fatal(err)
	}
	cfg := s.CachedInfo().Config
	cfg.MaxMsgs = 1
	if _, err := js.UpdateStream(ctx, cfg); err != nil {
		t.Fatal(err)
	}
	p := NewPublisher(js, clock.New(time.Now), sdktrace.NewTracerProvider())
	if err := p.Publish(ctx, imageMessage("j1")); err != nil {
		t.Fatal(err)
	}
	if err := p.Publish(ctx, imageMessage("j2")); !errors.Is(err, ErrFull) {
		t.Errorf("one more than the limit: %v, want ErrFull", err)
	}
	astray := imageMessage("j3")
	astray.Stream = streams.Crops
	if err := p.Publish(ctx, astray); err == nil || errors.Is(err, ErrFull) {
		t.Errorf("a subject of another stream: %v, want an error that is not ErrFull", err)
	}
}

func TestIsUnknown(t *testing.T) {
	t.Parallel()
	const storeFailed, duplicateInFlight = 10077, 10158
	rejected := func(code jetstream.ErrorCode) error {
		return fmt.Errorf("publish: %w", &jetstream.APIError{ErrorCode: code})
	}
	for _, c := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{fmt.Errorf("publish: %w", ErrFull), false},
		{v1.NewProblem(v1.Internal, "too large"), false},
		{jetstream.ErrNoStreamResponse, false},
		{nats.ErrReconnectBufExceeded, false},
		{nats.ErrMaxPayload, false},
		{rejected(storeFailed), false},
		{rejected(jetstream.JSErrCodeStreamWrongLastSequence), false},
		{fmt.Errorf("%w: %w", context.DeadlineExceeded, rejected(duplicateInFlight)), true},
		{context.DeadlineExceeded, true},
		{context.Canceled, true},
		{nats.ErrConnectionClosed, true},
		{nats.ErrDisconnected, true},
		{jetstream.ErrInvalidJSAck, true},
		{fmt.Errorf("%w: %w", streams.ErrUnknown, context.DeadlineExceeded), true},
	} {
		if got := IsUnknown(c.err); got != c.want {
			t.Errorf("%v: unknown is %v, want %v", c.err, got, c.want)
		}
	}
}

func TestCopyHeaders_OmitsTraceContextAndOtherHeaders(t *testing.T) {
	t.Parallel()
	in := nats.Header{
		"Nats-Msg-Id": {"x"}, "Nats-Expected-Stream": {"IMAGES"}, "X-Other": {"y"}, "sight-reply": {"other spelling"},
		"traceparent": {"t"}, "tracestate": {"s"}, "baggage": {"b"},
		v1.HeaderReply: {"r"}, v1.HeaderDeadline: {"d"}, v1.HeaderAccepted: {"a"},
	}
	want := map[string]string{"baggage": "b", v1.HeaderReply: "r", v1.HeaderDeadline: "d", v1.HeaderAccepted: "a"}
	out := CopyHeaders(in)
	got := map[string]string{}
	for k := range out {
		got[k] = out.Get(k)
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	out.Set(v1.HeaderReply, "changed")
	if in.Get(v1.HeaderReply) != "r" {
		t.Error("the header that came was changed")
	}
}

func TestCopyHeaders_OmitsTheLongestOverTheLimit(t *testing.T) {
	t.Parallel()
	in := nats.Header{
		v1.HeaderMetadata: {strings.Repeat("m", maxCopied)}, "baggage": {strings.Repeat("b", maxCopied/2)},
		v1.HeaderReply: {"r"},
	}
	want := maps.Clone(in)
	delete(want, v1.HeaderMetadata)
	if got := CopyHeaders(in); !reflect.DeepEqual(got, want) {
		t.Errorf("copies %v, want all but the longest, %s", slices.Collect(maps.Keys(got)), v1.HeaderMetadata)
	}
}

func TestConnect_WaitsForTheServer(t *testing.T) {
	t.Parallel()
	type outcome struct {
		nc  *nats.Conn
		err error
	}
	done := make(chan outcome, 1)
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	s := bustest.StartCluster(t, 1).Servers[0] // on a random loopback address, where its port stays free
	s.RestartWith(t, func(*server.Options) {   // called while the server is stopped
		log, written := newLog()
		go func() {
			nc, err := Connect(ctx, connection.Config{URL: s.URL}, "detect", "one", log)
			done <- outcome{nc, err}
		}()
		written.await(t, "waiting for NATS")
	})
	o := <-done
	if o.err != nil {
		t.Fatal(o.err)
	}
	if inbox := o.nc.NewInbox(); !strings.HasPrefix(inbox, InboxPrefix("detect")+".") {
		t.Errorf("inbox %s, want one of the service", inbox)
	}
	if err := Drain(ctx, o.nc); err != nil {
		t.Error(err)
	}
}

func TestConnect_EndsWithItsContext(t *testing.T) {
	t.Parallel()
	const url = "nats://127.0.0.1:1" // no server
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_, err := Connect(ctx, connection.Config{URL: url}, "detect", "one", newQuietLogger())
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v, want %v", err, context.DeadlineExceeded)
	}
	if !strings.Contains(err.Error(), url) {
		t.Errorf("the error is %v, want %s in it", err, url)
	}
	broken := connection.Config{URL: "nats://[broken"}
	if _, err := Connect(context.Background(), broken, "detect", "one", newQuietLogger()); err == nil {
		t.Error("a broken URL was waited for")
	}
}

func TestDrain_WaitsForWorkInProgress(t *testing.T) {
	t.Parallel()
	s := bustest.StartEmpty(t)
	other := s.Connect(t)
	out, err := other.SubscribeSync("out")
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Flush(); err != nil {
		t.Fatal(err)
	}
	nc := connect(t, s.URL)
	holding, release := make(chan struct{}), make(chan struct{})
	if _, err := nc.Subscribe("in", func(m *nats.Msg) {
		holding <- struct{}{}
		<-release
		nc.Publish("out", m.Data)
	}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(nc.Flush(), other.Publish("in", []byte("work"))); err != nil {
		t.Fatal(err)
	}
	<-holding
	drained := make(chan error, 1)
	go func() { drained <- Drain(context.Background(), nc) }()
	select {
	case err := <-drained:
		t.Fatalf("drained while work is in progress: %v", err)
	case <-time.After(100 * time.Millisecond): // a short time in which Drain must not return
	}
	close(release)
	if err := <-drained; err != nil {
		t.Error(err)
	}
	m, err := out.NextMsg(testTimeout)
	if err != nil {
		t.Fatal(err)
	}
	if string(m.Data) != "work" {
		t.Errorf("the last message is %q, want work", m.Data)
	}
	if err := Drain(context.Background(), nc); err != nil {
		t.Errorf("drain a closed connection: %v", err)
	}
	checkClosed(t, nc)
}

func TestDrain_EndsWithItsContext(t *testing.T) {
	t.Parallel()
	s := bustest.StartEmpty(t)
	nc := connect(t, s.URL)
	holding, release := make(chan struct{}), make(chan struct{})
	defer close(release)
	if _, err := nc.Subscribe("in", func(*nats.Msg) {
		holding <- struct{}{}
		<-release
	}); err != nil {
		t.Fatal(err)
	}
	if err := nc.Publish("in", nil); err != nil {
		t.Fatal(err)
	}
	<-holding
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := Drain(ctx, nc); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want %v", err, context.DeadlineExceeded)
	}
	checkClosed(t, nc)
}

func TestDrain_WithoutAServer(t *testing.T) {
	t.Parallel()
	s := bustest.StartEmpty(t)
	nc := connect(t, s.URL)
	lost := nc.StatusChanged(nats.RECONNECTING)
	s.Stop()
	<-lost
	if err := nc.Publish("in", nil); !errors.Is(err, nats.ErrReconnectBufExceeded) {
		t.Errorf("publish without a server: %v, want it to fail at once", err)
	}
	if err := Drain(context.Background(), nc); err != nil {
		t.Error(err)
	}
	checkClosed(t, nc)
}

func checkClosed(t *testing.T, nc *nats.Conn) {
	t.Helper()
	if !nc.IsClosed() {
		t.Errorf("the connection is %v, want it closed", nc.Status())
	}
}
