package results

import (
	"cmp"
	"maps"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane/pipeline"
	"github.com/sightmesh/sightmesh/services/internal/bustest"
)

// layout01 is what `sightmesh setup` of version 0.1.0 made: PARTS, RESULTS and
// REPORTS that discard the oldest, no time to live of a message, no consumer
// follow, an AckWait of its own for each consumer of results.
func layout01(t *testing.T, js jetstream.JetStream) {
	t.Helper()
	for _, s := range []struct {
		name, subjects string
		retention      jetstream.RetentionPolicy
		discard        jetstream.DiscardPolicy
		perSubject     int64
		age            time.Duration
	}{
		{streams.Images, subject.AllImages(), jetstream.WorkQueuePolicy, jetstream.DiscardNew, 0, 24 * time.Hour},
		{streams.Crops, subject.AllCrops(), jetstream.WorkQueuePolicy, jetstream.DiscardNew, 0, 24 * time.Hour},
		{streams.Parts, subject.AllParts(), jetstream.LimitsPolicy, jetstream.DiscardOld, 1, time.Hour},
		{streams.Results, subject.AllResults(), jetstream.LimitsPolicy, jetstream.DiscardOld, 1, time.Hour},
		{streams.Quarantine, subject.AllQuarantine(), jetstream.LimitsPolicy, jetstream.DiscardOld, 0, 7 * 24 * time.Hour},
		{streams.Jobs, subject.AllJobs(), jetstream.LimitsPolicy, jetstream.DiscardOld, 1, 48 * time.Hour},
		{streams.Callbacks, subject.AllCallbacks(), jetstream.WorkQueuePolicy, jetstream.DiscardNew, 0, 25 * time.Hour},
		{streams.Reports, subject.AllReports(), jetstream.LimitsPolicy, jetstream.DiscardOld, 1, 24 * time.Hour},
		{streams.Fetches, subject.AllFetches(), jetstream.WorkQueuePolicy, jetstream.DiscardNew, 0, 24 * time.Hour},
	} {
		cfg := jetstream.StreamConfig{
			Name: s.name, Subjects: []string{s.subjects}, Retention: s.retention, Discard: s.discard, MaxBytes: 64 << 20,
			MaxMsgsPerSubject: cmp.Or(s.perSubject, -1), MaxAge: s.age, Duplicates: 2 * time.Minute, Replicas: 1,
			MaxMsgSize: streams.MaxMessage + streams.HeaderAllowance,
		}
		if s.name == streams.Results {
			cfg.AllowMsgTTL, cfg.SubjectDeleteMarkerTTL = true, time.Hour
		}
		if _, err := js.CreateStream(t.Context(), cfg); err != nil {
			t.Fatalf("create %s: %v", s.name, err)
		}
	}
	consumers := []struct {
		stream, name, filter string
		ackWait              time.Duration
	}{
		{streams.Parts, streams.PartsConsumer, subject.AllParts(), 3 * time.Second},
		{streams.Results, streams.ResultsConsumer, subject.AllResults(), time.Second},
		{streams.Reports, streams.ReportsConsumer, subject.AllManifests(), 30 * time.Second},
		{streams.Callbacks, streams.WebhooksConsumer, subject.AllCallbacks(), 3 * time.Second},
		{streams.Fetches, streams.FetchesConsumer, subject.AllFetches(), 3 * time.Second},
	}
	for _, p := range []string{"text", "faces"} {
		for _, prio := range subject.Priorities() {
			consumers = append(consumers, []struct {
				stream, name, filter string
				ackWait              time.Duration
			}{
				{streams.Images, streams.WorkConsumer(subject.Detect, p, prio), subject.ImagesOf(p, prio), 3 * time.Second},
				{streams.Crops, streams.WorkConsumer(subject.Classify, p, prio), subject.CropsOf(p, prio), 3 * time.Second},
			}...)
		}
	}
	for _, c := range consumers {
		if _, err := js.CreateConsumer(t.Context(), c.stream, jetstream.ConsumerConfig{
			Durable: c.name, FilterSubject: c.filter, AckPolicy: jetstream.AckExplicitPolicy, AckWait: c.ackWait,
			MaxDeliver: -1, MaxAckPending: 4096, MaxWaiting: 4096, Replicas: 1,
		}); err != nil {
			t.Fatalf("create %s: %v", c.name, err)
		}
	}
}

// TestEnsure_BringsVersion01ToTheNewLayout: a mesh of version 0.1.0 with jobs in
// every stream loses none, and does nothing twice.
func TestEnsure_BringsVersion01ToTheNewLayout(t *testing.T) {
	s := bustest.StartEmpty(t)
	nc := s.Connect(t)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	layout01(t, js)
	b := bench{nc, js, s.URL}

	// Jobs in every stream, some of them in the hands of a process.
	callback := nats.Header{v1.HeaderCallback: {"https://client.example/done"}}
	for _, id := range []string{"told", "untold"} {
		b.publish(t, subject.Results("text", id), callback, v1.Result{ID: id, Pipeline: "text", Status: v1.Done})
	}
	reply, err := js.Consumer(t.Context(), streams.Results, streams.ResultsConsumer)
	if err != nil {
		t.Fatal(err)
	}
	told, err := reply.Next()
	if err != nil {
		t.Fatal(err)
	}
	b.publish(t, subject.Callbacks("told"), callback, []byte("{}")) // as version 0.1.0 does, and then acknowledges
	if err := told.DoubleAck(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.publish(t, subject.Images(subject.Job{Pipeline: "text", Priority: subject.Interactive, ID: "image"}),
		nil, []byte("image"))
	b.publish(t, subject.Crops(subject.Job{Pipeline: "text", Priority: subject.Bulk, ID: "crops"}), nil, []byte("{}\n"))
	for _, id := range []string{"inhand", "joins"} {
		for i := range 2 {
			b.publish(t, subject.Parts(subject.Job{Pipeline: "text", ID: id, Part: i}), nil, part(i, 2))
		}
	}
	join, err := js.Consumer(t.Context(), streams.Parts, streams.PartsConsumer)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := join.Next(); err != nil { // by a process that dies
		t.Fatal(err)
	}
	now := time.Now().UTC()
	b.publish(t, subject.Report("r1"), nil, v1.Manifest{
		ID: "r1", Pipeline: "text", Accepted: now, Deadline: now.Add(time.Hour),
		Images: []v1.ReportSource{{URL: "https://client.example/0.jpg"}},
	})
	b.publish(t, subject.Fetches("text", "r0-0"), nil,
		v1.Fetch{URL: "https://client.example/1.jpg", Deadline: now.Add(time.Hour)})
	b.publish(t, subject.CallbackState("told"), nil, v1.Callback{State: v1.WebhookPending, Attempts: 1})

	for range 2 { // and again, as an upgrade of a chart does
		if err := streams.Ensure(t.Context(), js, streams.Config{Pipelines: pipeline.BuiltInNames()}); err != nil {
			t.Fatal(err)
		}
	}
	if err := streams.Check(t.Context(), js, streams.Config{Pipelines: pipeline.BuiltInNames()}); err != nil {
		t.Fatal(err)
	}
	startReplica(t, s.URL, "--sweep", "1h")

	for _, id := range []string{"inhand", "joins"} {
		b.awaitStatus(t, id, v1.Done)
	}
	for id, want := range map[string]v1.Status{
		"image": v1.Queued, "crops": v1.Running, "r0-0": v1.Queued, "told": v1.Done, "untold": v1.Done,
	} {
		if r := b.lookup(t, id); r.Status != want {
			t.Errorf("%s is %s, want %s", id, r.Status, want)
		}
	}
	r := b.lookup(t, "told")
	if r.Callback == nil {
		t.Fatal("the result has no state of the webhook")
	}
	if n := r.Callback.Attempts; n != 1 {
		t.Errorf("the webhook was called %d times, want once", n)
	}
	b.waitForMessages(t, streams.Fetches, 2) // that of the report, too
	calls := map[string]int{}
	for _, m := range b.waitForMessages(t, streams.Callbacks, 2) {
		calls[m.Subject]++
	}
	want := map[string]int{subject.Callbacks("told"): 1, subject.Callbacks("untold"): 1}
	if !maps.Equal(calls, want) {
		t.Errorf("callbacks %v, want %v", calls, want)
	}
}

// TestEnsure_RecreatedConsumerSkipsNothing deletes the consumer notify and sets it up again,
// after the consumer reply has processed more messages.
func TestEnsure_RecreatedConsumerSkipsNothing(t *testing.T) {
	b := newBench(t, 1)
	callback := nats.Header{v1.HeaderCallback: {"https://client.example/done"}}
	if err := b.js.DeleteConsumer(t.Context(), streams.Results, streams.NotifyConsumer); err != nil {
		t.Fatal(err)
	}
	b.publish(t, subject.Results("text", "j"), callback, v1.Result{ID: "j", Pipeline: "text", Status: v1.Done})
	b.awaitAcknowledged(t, streams.Results, streams.ResultsConsumer)
	if err := streams.Ensure(t.Context(), b.js, streams.Config{Pipelines: pipeline.BuiltInNames()}); err != nil {
		t.Fatal(err)
	}
	b.waitForMessages(t, streams.Callbacks, 1)
}

// TestEnsure_KeepsTheRetentionOfResults runs a later set-up that knows neither the pipelines nor their longest
// deadline.
func TestEnsure_KeepsTheRetentionOfResults(t *testing.T) {
	b := newBench(t, 0)
	for _, cfg := range []streams.Config{{LongestDeadline: 24 * time.Hour}, {}} {
		if err := streams.Ensure(t.Context(), b.js, cfg); err != nil {
			t.Fatal(err)
		}
	}
	s, err := b.js.Stream(t.Context(), streams.Results)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := s.CachedInfo().Config.SubjectDeleteMarkerTTL, 24*time.Hour+streams.DeadlineMargin; got != want {
		t.Errorf("RESULTS remembers results for %v, want %v", got, want)
	}
}
