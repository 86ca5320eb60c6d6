// Package streams describes the JetStream streams and consumers of the mesh. The set-up
// creates and updates them with [Ensure]. Services check them with [Check] at start,
// and create nothing.
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
	WebhooksConsumer = "callback"
	FetchesConsumer  = "fetch"
)

// WebhookAge is how long the calls of a webhook are retried.
const WebhookAge = 24 * time.Hour

// MaxMessage is the size of the largest message that the mesh publishes: an image, or
// crops with their JSON. The max_payload of the server must allow it and
// [HeaderAllowance] more.
const (
	MaxMessage      = 8 << 20
	HeaderAllowance = 64 << 10
)

// MaxAttempts is how many times workers try to process a message. The next worker
// fails its job with too-many-deliveries and puts the message into quarantine.
// JetStream itself has no limit: with one, a job whose failure could not be stored
// would have no outcome.
const MaxAttempts = 5

// AckWait is the time after which the server redelivers a message that was neither
// acknowledged nor reported as in progress. A worker reports its messages once a
// second, so the work of a worker that has died is redelivered after this time.
//
// Every consumer has the same AckWait, also those with slow handlers, because of
// [Heartbeat].
const AckWait = 3 * time.Second

// Heartbeat is the interval at which a service reports a message as in progress. Two
// reports may be lost before [AckWait] is over.
const Heartbeat = AckWait / 3

// maxWaiting is how many webhook calls, and how many images to be fetched, may wait.
// Those that wait for their next attempt are unacknowledged messages of their
// consumer, which therefore allows the same number: otherwise one receiver or host
// that does not respond would stop all others. The server has schedules for delayed
// messages, but not in a stream that rejects new messages when it is full (error 10052
// of nats-server 2.15.2).
const maxWaiting = 100_000

// DeadlineMargin is how long the messages of a job are kept after its deadline. Within this
// time the sweeper of results stores the outcome of the job. DeadlineMargin is long because
// results may be down for this time without a loss.
const DeadlineMargin = time.Hour

// DefaultDedupe is how long a stream remembers the IDs of its messages. It must be longer
// than the time for which a publish is retried plus a few times AckWait. It is not much
// longer, because IDs use memory of the server.
const DefaultDedupe = 2 * time.Minute

// DefaultWorkAge is the maximum age of a message in a work queue. It is longer than the
// longest deadline that a pipeline may have, so that jobs end at their deadline and not
// because of the age of their messages.
const DefaultWorkAge = 24*time.Hour + 2*DeadlineMargin

// Config is the configuration of the streams of a mesh.
type Config struct {
	// Pipelines are the names of the pipelines. Each has its own consumers.
	Pipelines []string
	// Replicas is the number of replicas of every stream: 1, 3 or 5. 0 means 1.
	Replicas int
	// Storage is the storage of every stream. The zero value means files.
	Storage jetstream.StorageType
	// ResultsAge and ReportsAge are how long results and reports are stored. 0 means
	// one hour for results and 24 hours for reports.
	ResultsAge time.Duration
	ReportsAge time.Duration
	// Sink adds the consumer that writes results to a database.
	Sink bool
	// LongestDeadline is the longest deadline of the pipelines. 0 means one hour. For
	// this time and [DeadlineMargin], RESULTS remembers that a job had a result that was
	// deleted, so that no other result of the job is stored.
	LongestDeadline time.Duration
	// Dedupe and WorkAge replace [DefaultDedupe] and [DefaultWorkAge] unless they are
	// 0. MaxBytes replaces the size of streams, by name. They are for tests.
	Dedupe   time.Duration
	WorkAge  time.Duration
	MaxBytes map[string]int64
	// Update is used by [Ensure] only.
	Update
}

// Streams returns the configuration of every stream.
//
// IMAGES, CROPS, CALLBACKS and FETCHES are work queues: an acknowledgement removes the
// message, so their size is the backlog. They, PARTS, RESULTS and REPORTS reject new
// messages when they are full, instead of deleting old ones. The server reserves MaxBytes
// for each stream; the sum is 6.3 GiB.
func Streams(cfg Config) []jetstream.StreamConfig {
	work := jetstream.StreamConfig{
		Retention:   jetstream.WorkQueuePolicy,
		Discard:     jetstream.DiscardNew,
		MaxAge:      cmp.Or(cfg.WorkAge, DefaultWorkAge),
		AllowMsgTTL: true, // messages are deleted after their deadline, also without a worker
	}
	stored := jetstream.StreamConfig{
		Retention: jetstream.LimitsPolicy,
		Discard:   jetstream.DiscardNew,
	}
	discardOld := jetstream.StreamConfig{
		Retention: jetstream.LimitsPolicy,
		Discard:   jetstream.DiscardOld,
	}
	type config = jetstream.StreamConfig
	newStream := func(
		base config, name, description, subjects string, maxBytes int64, set func(*config),
	) config {
		base.Name, base.Description, base.Subjects, base.MaxBytes = name, description, []string{subjects}, maxBytes
		base.Storage, base.Replicas = cfg.Storage, max(cfg.Replicas, 1)
		base.Duplicates = cmp.Or(cfg.Dedupe, DefaultDedupe)
		base.MaxMsgSize = MaxMessage + HeaderAllowance
		set(&base)
		if n, ok := cfg.MaxBytes[name]; ok {
			base.MaxBytes = n
		}
		return base
	}
	return []config{
		newStream(work, Images, "images that wait for detect", subject.AllImages(), 2<<30, func(s *config) {
			s.MaxMsgs = 100_000
		}),
		newStream(work, Crops, "crops that wait for classify", subject.AllCrops(), 1<<30, func(s *config) {
			s.MaxMsgs = 200_000
		}),
		newStream(stored, Parts, "results of parts of an image, until they are joined",
			subject.AllParts(), 256<<20, func(s *config) {
				s.MaxMsgsPerSubject, s.MaxAge, s.AllowMsgTTL = 1, work.MaxAge, true
			}),
		newStream(stored, Results, "the result of every job", subject.AllResults(), 1<<30, func(s *config) {
			s.MaxMsgsPerSubject, s.MaxAge = 1, cmp.Or(cfg.ResultsAge, time.Hour)
			// A marker remains of a result that was deleted.
			s.AllowMsgTTL, s.SubjectDeleteMarkerTTL = true, cmp.Or(cfg.LongestDeadline, time.Hour)+DeadlineMargin
		}),
		newStream(discardOld, Quarantine, "images that could not be processed",
			subject.AllQuarantine(), 512<<20, func(s *config) {
				s.MaxMsgs, s.MaxAge = 10_000, 7*24*time.Hour
			}),
		newStream(discardOld, Jobs, "idempotency keys, the states of webhooks, and counts of attempts",
			subject.AllJobs(), 128<<20, func(s *config) {
				s.MaxMsgsPerSubject, s.MaxAge = 1, 48*time.Hour
			}),
		newStream(work, Callbacks, "webhook calls that wait to be sent",
			subject.AllCallbacks(), 512<<20, func(s *config) {
				s.MaxMsgs, s.MaxAge = maxWaiting, WebhookAge+time.Hour
			}),
		newStream(stored, Reports, "reports and the outcomes of their images",
			subject.AllReports(), 768<<20, func(s *config) {
				s.MaxMsgsPerSubject, s.MaxAge = 1, cmp.Or(cfg.ReportsAge, 24*time.Hour)
			}),
		newStream(work, Fetches, "images of reports that wait to be fetched",
			subject.AllFetches(), 128<<20, func(s *config) {
				s.MaxMsgs = maxWaiting
			}),
	}
}

// Consumer is a consumer and the name of its stream.
type Consumer struct {
	Stream string
	Config jetstream.ConsumerConfig
}

// WorkConsumer returns the name of the consumer of a stage for one pipeline and
// priority.
func WorkConsumer(s subject.Stage, pipeline string, p subject.Priority) string {
	return string(s) + "-" + pipeline + "-" + string(p)
}

// WorkStream returns the name of the stream that a stage consumes.
func WorkStream(s subject.Stage) string {
	if s == subject.Classify {
		return Crops
	}
	return Images
}

// Consumers returns the configuration of every consumer.
//
//   - detect and classify have one for each pipeline and priority, so that a pipeline
//     without workers does not delay the others, and each can be scaled by its own backlog.
//   - results has one on PARTS, one on REPORTS and three on RESULTS, so that replies are
//     not delayed by other work, and reports not by a full CALLBACKS.
//   - ingress has one on CALLBACKS and one on FETCHES.
func Consumers(cfg Config) []Consumer {
	newConsumer := func(stream, name, filter string) Consumer {
		return Consumer{Stream: stream, Config: jetstream.ConsumerConfig{
			Durable:       name,
			FilterSubject: filter,
			AckPolicy:     jetstream.AckExplicitPolicy,
			AckWait:       AckWait,
			MaxDeliver:    -1,   // services limit the attempts, and store an outcome
			MaxAckPending: 4096, // of all workers together
			MaxWaiting:    4096, // idle lanes of all workers together
			Replicas:      max(cfg.Replicas, 1),
		}}
	}
	withManyPending := func(c Consumer) Consumer {
		c.Config.MaxAckPending = maxWaiting
		return c
	}
	var cs []Consumer
	for _, p := range cfg.Pipelines {
		for _, prio := range subject.Priorities() {
			cs = append(cs,
				newConsumer(Images, WorkConsumer(subject.Detect, p, prio), subject.ImagesOf(p, prio)),
				newConsumer(Crops, WorkConsumer(subject.Classify, p, prio), subject.CropsOf(p, prio)))
		}
	}
	if cfg.Sink {
		cs = append(cs, newConsumer(Results, SinkConsumer, subject.AllResults()))
	}
	return append(cs,
		newConsumer(Parts, PartsConsumer, subject.AllParts()),
		newConsumer(Results, ResultsConsumer, subject.AllResults()),
		newConsumer(Results, FollowConsumer, subject.AllResults()),
		withManyPending(newConsumer(Results, NotifyConsumer, subject.AllResults())),
		newConsumer(Reports, ReportsConsumer, subject.AllManifests()),
		withManyPending(newConsumer(Callbacks, WebhooksConsumer, subject.AllCallbacks())),
		withManyPending(newConsumer(Fetches, FetchesConsumer, subject.AllFetches())))
}

// ErrNotSetUp is wrapped by an error of [Check] about a missing or different stream or
// consumer.
var ErrNotSetUp = errors.New("the mesh is not set up: run sightmesh setup")

// Check returns an error for the first stream or consumer that is missing or that does
// not have the configuration on which the services rely. It checks names, subjects,
// retention and filters, and not limits, which operators may change. Each request to the
// server has the default timeout of js.
func Check(ctx context.Context, js jetstream.JetStream, cfg Config) error {
	ctx = requestContext{ctx}
	for _, want := range Streams(cfg) {
		s, err := js.Stream(ctx, want.Name)
		if err != nil {
			return checkError("stream "+want.Name, err)
		}
		have := s.CachedInfo().Config
		if have.Retention != want.Retention || !slices.Equal(have.Subjects, want.Subjects) {
			return fmt.Errorf("check stream %s: it has subjects %v and retention %v, want %v and %v: %w",
				want.Name, have.Subjects, have.Retention, want.Subjects, want.Retention, ErrNotSetUp)
		}
		if want.AllowMsgTTL && !have.AllowMsgTTL {
			return fmt.Errorf("check stream %s: it does not allow messages with a time to live: %w", want.Name, ErrNotSetUp)
		}
	}
	for _, want := range Consumers(cfg) {
		name := want.Config.Durable
		c, err := js.Consumer(ctx, want.Stream, name)
		if err != nil {
			return checkError("consumer "+name+" of "+want.Stream, err)
		}
		have := c.CachedInfo().Config
		if have.FilterSubject != want.Config.FilterSubject || have.AckPolicy != want.Config.AckPolicy {
			return fmt.Errorf("check consumer %s of %s: it has filter %q, want %q: %w",
				name, want.Stream, have.FilterSubject, want.Config.FilterSubject, ErrNotSetUp)
		}
	}
	return nil
}

func checkError(what string, err error) error {
	if errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, jetstream.ErrConsumerNotFound) {
		return fmt.Errorf("check %s: %w (%w)", what, err, ErrNotSetUp)
	}
	return fmt.Errorf("check %s: %w", what, err)
}
