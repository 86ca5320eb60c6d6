// Package streams holds the JetStream streams and consumers of the mesh as
// data, and the two things done with them: the set-up step calls [Ensure],
// every service calls [Check] before it starts and creates nothing.
package streams

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/sightmesh/sightmesh/contracts/subject"
)

// Names of the streams.
const (
	Images     = "IMAGES"
	Crops      = "CROPS"
	Parts      = "PARTS"
	Results    = "RESULTS"
	Quarantine = "QUARANTINE"
	Jobs       = "JOBS"
	Callbacks  = "CALLBACKS"
	Reports    = "REPORTS"
	Fetches    = "FETCHES"
)

// Names of the consumers of the results service.
const (
	PartsConsumer   = "join"
	ResultsConsumer = "reply"
	FollowConsumer  = "follow"
	NotifyConsumer  = "notify"
	ReportsConsumer = "expand"
	SinkConsumer    = "sink" // only in a mesh with a database
)

// Names of the consumers of ingress.
const (
	CallbacksConsumer = "callback"
	FetchesConsumer   = "fetch"
)

// CallbackAge is for how long a callback is tried.
const CallbackAge = 24 * time.Hour

// MaxMessage is the largest message that the mesh publishes: a picture or the
// crops of one, with its facts. A server's max_payload has to allow it and
// [HeaderAllowance] more.
const (
	MaxMessage      = 8 << 20
	HeaderAllowance = 64 << 10
)

// MaxAttempts is how often workers try to process a message. The next worker
// ends its job with too-many-deliveries and puts the message in quarantine.
// JetStream itself does not give up: a job whose end cannot be stored then
// would have none.
const MaxAttempts = 5

// AckWait is how long a worker may be silent about a message it holds. A
// worker that lives says so every second, so this is the time after which the
// work of a dead one moves on.
//
// Every consumer has it, whatever its handler does: [Heartbeat] is what makes
// slow work possible.
const AckWait = 3 * time.Second

// Heartbeat is how often the server is told that a message is being processed.
// Two of them may be lost before [AckWait] is over.
const Heartbeat = AckWait / 3

// maxWaiting is how many callbacks, and how many images to be fetched, may wait.
// Those that wait for their next attempt are unacknowledged messages of their
// consumer, which therefore allows as many: else one receiver or host that is
// away would stop all others. The server has schedules for messages that wait,
// but not in a stream that rejects what is new when it is full (error 10052 of
// nats-server 2.15.2).
const maxWaiting = 100_000

// Margin is how long after the deadline of a job a message that is work for it
// is kept. By then the sweeper of results has given the job its outcome. It is
// long, because it is also for how long results may be away without a loss.
const Margin = time.Hour

// DefaultDedupe is for how long a stream knows the ids of its messages. It has
// to exceed the time over which a publish is retried plus a few AckWaits; ids
// cost the server memory, so not by much.
const DefaultDedupe = 2 * time.Minute

// DefaultWorkAge is for how long work waits in a stream at most. It is longer
// than any deadline that a pipeline may have, so that a job ends by its
// deadline and not by the age of its messages.
const DefaultWorkAge = 24*time.Hour + 2*Margin

// Config is what differs from one mesh to the next.
type Config struct {
	// Pipelines by name; each has consumers of its own.
	Pipelines []string
	// Replicas of every stream: 1, 3 or 5. 0 means 1.
	Replicas int
	// Storage of every stream.
	Storage jetstream.StorageType
	// ResultsAge and ReportsAge are how long answers and reports are kept. 0
	// means an hour and a day.
	ResultsAge time.Duration
	ReportsAge time.Duration
	// Sink adds the consumer through which results go into a database.
	Sink bool
	// LongestDeadline of the pipelines. 0 means an hour. For so long, and
	// [Margin] more, RESULTS knows that a job had a result which is no longer
	// kept, so that none is stored in its place.
	LongestDeadline time.Duration
	// Dedupe and WorkAge replace [DefaultDedupe] and [DefaultWorkAge], and
	// MaxBytes the size of a stream by its name. They are for tests.
	Dedupe   time.Duration
	WorkAge  time.Duration
	MaxBytes map[string]int64
	// The rest is for [Ensure] alone.
	Update
}

// Streams returns the configuration of every stream.
//
// IMAGES, CROPS, CALLBACKS and FETCHES are work queues: an acknowledgement
// removes the message, so that their size is the backlog. Every stream that
// holds accepted work, PARTS, RESULTS and REPORTS too, rejects what is new when
// it is full, and loses nothing. MaxBytes is reserved by the server; the sum
// here is 6.3 GiB.
func Streams(cfg Config) []jetstream.StreamConfig {
	work := jetstream.StreamConfig{
		Retention:   jetstream.WorkQueuePolicy,
		Discard:     jetstream.DiscardNew,
		MaxAge:      cmp.Or(cfg.WorkAge, DefaultWorkAge),
		AllowMsgTTL: true, // what is past its deadline is deleted, whether or not it has a worker
	}
	keep := jetstream.StreamConfig{
		Retention: jetstream.LimitsPolicy,
		Discard:   jetstream.DiscardNew,
	}
	forget := jetstream.StreamConfig{
		Retention: jetstream.LimitsPolicy,
		Discard:   jetstream.DiscardOld,
	}
	with := func(base jetstream.StreamConfig, name, description, subjects string, maxBytes int64, set func(*jetstream.StreamConfig)) jetstream.StreamConfig {
		base.Name, base.Description, base.Subjects, base.MaxBytes = name, description, []string{subjects}, maxBytes
		base.Storage, base.Replicas, base.Duplicates = cfg.Storage, max(cfg.Replicas, 1), cmp.Or(cfg.Dedupe, DefaultDedupe)
		base.MaxMsgSize = MaxMessage + HeaderAllowance
		set(&base)
		if n, ok := cfg.MaxBytes[name]; ok {
			base.MaxBytes = n
		}
		return base
	}
	return []jetstream.StreamConfig{
		with(work, Images, "images that wait for detect", subject.AllImages(), 2<<30, func(s *jetstream.StreamConfig) { s.MaxMsgs = 100_000 }),
		with(work, Crops, "crops that wait for classify", subject.AllCrops(), 1<<30, func(s *jetstream.StreamConfig) { s.MaxMsgs = 200_000 }),
		with(keep, Parts, "results of parts of an image, until they are joined", subject.AllParts(), 256<<20, func(s *jetstream.StreamConfig) {
			s.MaxMsgsPerSubject, s.MaxAge, s.AllowMsgTTL = 1, work.MaxAge, true
		}),
		with(keep, Results, "the result of every job", subject.AllResults(), 1<<30, func(s *jetstream.StreamConfig) {
			s.MaxMsgsPerSubject, s.MaxAge = 1, cmp.Or(cfg.ResultsAge, time.Hour)
			// What is left of a result says that it was there.
			s.AllowMsgTTL, s.SubjectDeleteMarkerTTL = true, cmp.Or(cfg.LongestDeadline, time.Hour)+Margin
		}),
		with(forget, Quarantine, "images that broke something", subject.AllQuarantine(), 512<<20, func(s *jetstream.StreamConfig) {
			s.MaxMsgs, s.MaxAge = 10_000, 7*24*time.Hour
		}),
		with(forget, Jobs, "idempotency keys, the states of callbacks, and counts of attempts", subject.AllJobs(), 128<<20, func(s *jetstream.StreamConfig) {
			s.MaxMsgsPerSubject, s.MaxAge = 1, 48*time.Hour
		}),
		with(work, Callbacks, "callbacks that wait to be sent", subject.AllCallbacks(), 512<<20, func(s *jetstream.StreamConfig) {
			s.MaxMsgs, s.MaxAge = maxWaiting, CallbackAge+time.Hour
		}),
		with(keep, Reports, "reports and the outcomes of their images", subject.AllReports(), 768<<20, func(s *jetstream.StreamConfig) {
			s.MaxMsgsPerSubject, s.MaxAge = 1, cmp.Or(cfg.ReportsAge, 24*time.Hour)
		}),
		with(work, Fetches, "images of reports that wait to be fetched", subject.AllFetches(), 128<<20, func(s *jetstream.StreamConfig) { s.MaxMsgs = maxWaiting }),
	}
}

// Consumer is a consumer and the stream it reads.
type Consumer struct {
	Stream string
	Config jetstream.ConsumerConfig
}

// WorkConsumer is the name of the consumer through which a stage takes the
// work of one pipeline and priority.
func WorkConsumer(s subject.Stage, pipeline string, p subject.Priority) string {
	return string(s) + "-" + pipeline + "-" + string(p)
}

// WorkStream is the stream from which a stage takes its work.
func WorkStream(s subject.Stage) string {
	if s == subject.Classify {
		return Crops
	}
	return Images
}

// Consumers gives the configuration of every consumer: for detect and
// classify one for each pipeline and priority, so that a pipeline without
// workers holds up no other and each can be scaled on its own backlog; for
// results one on each of PARTS and REPORTS, and three on RESULTS, so that a
// reply waits for nothing else, and a report not for a full CALLBACKS; for
// ingress one on each of CALLBACKS and FETCHES.
func Consumers(cfg Config) []Consumer {
	durable := func(stream, name, filter string) Consumer {
		return Consumer{Stream: stream, Config: jetstream.ConsumerConfig{
			Durable:       name,
			FilterSubject: filter,
			AckPolicy:     jetstream.AckExplicitPolicy,
			AckWait:       AckWait,
			MaxDeliver:    -1,   // whoever works on a message gives it up, with an outcome
			MaxAckPending: 4096, // of the whole fleet
			MaxWaiting:    4096, // idle lanes of the whole fleet
			Replicas:      max(cfg.Replicas, 1),
		}}
	}
	waits := func(c Consumer) Consumer {
		c.Config.MaxAckPending = maxWaiting
		return c
	}
	var cs []Consumer
	for _, p := range cfg.Pipelines {
		for _, prio := range subject.Priorities() {
			cs = append(cs,
				durable(Images, WorkConsumer(subject.Detect, p, prio), subject.ImagesOf(p, prio)),
				durable(Crops, WorkConsumer(subject.Classify, p, prio), subject.CropsOf(p, prio)))
		}
	}
	if cfg.Sink {
		cs = append(cs, durable(Results, SinkConsumer, subject.AllResults()))
	}
	return append(cs,
		durable(Parts, PartsConsumer, subject.AllParts()),
		durable(Results, ResultsConsumer, subject.AllResults()),
		durable(Results, FollowConsumer, subject.AllResults()),
		waits(durable(Results, NotifyConsumer, subject.AllResults())),
		durable(Reports, ReportsConsumer, subject.AllManifests()),
		waits(durable(Callbacks, CallbacksConsumer, subject.AllCallbacks())),
		waits(durable(Fetches, FetchesConsumer, subject.AllFetches())))
}

// ErrNotSetUp is wrapped by the errors of [Check].
var ErrNotSetUp = errors.New("the mesh is not set up: run sightmesh setup")

// Check reports the first stream or consumer that is missing or does not
// deliver what the services rely on. It looks at names, subjects, retention
// and filters; limits may differ, operators tune them.
func Check(ctx context.Context, js jetstream.JetStream, cfg Config) error {
	for _, want := range Streams(cfg) {
		s, err := js.Stream(ctx, want.Name)
		if err != nil {
			return missing("stream "+want.Name, err)
		}
		have := s.CachedInfo().Config
		if have.Retention != want.Retention || !slices.Equal(have.Subjects, want.Subjects) {
			return fmt.Errorf("check stream %s: it has subjects %v and retention %v, want %v and %v: %w",
				want.Name, have.Subjects, have.Retention, want.Subjects, want.Retention, ErrNotSetUp)
		}
		if want.AllowMsgTTL && !have.AllowMsgTTL {
			return fmt.Errorf("check stream %s: it takes no messages with a time to live: %w", want.Name, ErrNotSetUp)
		}
	}
	for _, want := range Consumers(cfg) {
		name := want.Config.Durable
		c, err := js.Consumer(ctx, want.Stream, name)
		if err != nil {
			return missing("consumer "+name+" of "+want.Stream, err)
		}
		if have := c.CachedInfo().Config; have.FilterSubject != want.Config.FilterSubject || have.AckPolicy != want.Config.AckPolicy {
			return fmt.Errorf("check consumer %s of %s: it has filter %q, want %q: %w",
				name, want.Stream, have.FilterSubject, want.Config.FilterSubject, ErrNotSetUp)
		}
	}
	return nil
}

func missing(what string, err error) error {
	if errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, jetstream.ErrConsumerNotFound) {
		return fmt.Errorf("check %s: %w (%w)", what, err, ErrNotSetUp)
	}
	return fmt.Errorf("check %s: %w", what, err)
}
