package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
)

// source is a consumer from which the worker pulls.
type source struct {
	pipeline string
	priority subject.Priority
	consumer string
	next     string // subject of the pull request
	// backlog is the number of pending messages of the last delivery.
	backlog atomic.Uint64
	// emptyAt is when the consumer last had no message, in Unix nanoseconds.
	emptyAt atomic.Int64
	// missing is true while the server has no such consumer, or no leader for it.
	missing atomic.Bool
}

// setMissing logs when a consumer is missing, and when it is available again.
func (s *source) setMissing(log *slog.Logger, missing bool, status string) {
	if !s.missing.CompareAndSwap(!missing, missing) {
		return
	}
	if missing {
		log.Error("cannot pull messages", "consumer", s.consumer, "status", status)
	} else {
		log.Info("messages can be pulled again", "consumer", s.consumer)
	}
}

// emptyRecheck is how long a bulk message in a queue that was empty may be overlooked
// while other messages wait. Each pull request to an empty queue keeps a lane idle for a
// round trip.
const emptyRecheck = time.Second

// shouldPull reports whether the consumer may have a message. It is always true for
// interactive work.
func (s *source) shouldPull() bool {
	return s.priority == subject.Interactive || s.backlog.Load() > 0 ||
		time.Since(time.Unix(0, s.emptyAt.Load())) > emptyRecheck
}

func (s *source) setBacklog(backlog uint64) {
	s.backlog.Store(backlog)
	if backlog == 0 {
		s.emptyAt.Store(time.Now().UnixNano())
	}
}

func newSources(stage subject.Stage, pipelines []string) []*source {
	var s []*source
	for _, prio := range subject.Priorities() { // most urgent first
		for _, p := range pipelines {
			name := streams.WorkConsumer(stage, p, prio)
			s = append(s, &source{
				pipeline: p, priority: prio, consumer: name,
				next: "$JS.API.CONSUMER.MSG.NEXT." + streams.WorkStream(stage) + "." + name,
			})
		}
	}
	return s
}

// puller pulls one message at a time from several consumers. Each goroutine that pulls
// has its own puller.
//
// The puller sends the pull requests itself instead of using package jetstream. A lane
// waits for all its consumers at once and must receive only one message, and the server
// withdraws a pull request only when the subscription of its inbox has ended. Fetch of
// package jetstream drops a message that arrives while it is being cancelled, and that
// message is redelivered only after AckWait.
type puller struct {
	nc  *nats.Conn
	log *slog.Logger
	// sources are sorted by urgency, the most urgent first. Among sources of equal
	// priority, the source of the last message is moved to the end.
	sources []*source
	// wait is how long a pull request waits at the server. After that the puller sends
	// a new one, because a server that was restarted has lost the old one.
	wait time.Duration

	replies       *nats.Subscription // to the requests of pullNow
	inbox         string
	requests      uint64
	noWaitRequest []byte // the requests, as JSON
	waitRequest   []byte
}

// newPuller returns a puller. The caller calls close.
func newPuller(nc *nats.Conn, sources []*source, wait time.Duration, log *slog.Logger) (*puller, error) {
	p := &puller{nc: nc, log: log, sources: slices.Clone(sources), wait: wait}
	var err error
	if p.noWaitRequest, err = json.Marshal(pullRequest{Batch: 1, NoWait: true}); err != nil {
		return nil, fmt.Errorf("make pull request: %w", err)
	}
	if p.waitRequest, err = json.Marshal(pullRequest{Batch: 1, Expires: wait}); err != nil {
		return nil, fmt.Errorf("make pull request: %w", err)
	}
	if err := p.subscribe(); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *puller) subscribe() (err error) {
	p.inbox = p.nc.NewInbox()
	if p.replies, err = p.nc.SubscribeSync(p.inbox + ".*"); err != nil {
		return fmt.Errorf("subscribe to pull replies: %w", err)
	}
	return nil
}

func (p *puller) close() error { return p.replies.Unsubscribe() }

type pullRequest struct {
	Batch   int           `json:"batch"`
	Expires time.Duration `json:"expires,omitempty"`
	NoWait  bool          `json:"no_wait,omitempty"`
}

var errNoMessage = errors.New("no message")

// next returns a message of one of the pipelines that serves selects, the most urgent
// first. It returns errNoMessage when none has arrived for a while, so that the caller
// can check which pipelines its lane serves now.
func (p *puller) next(ctx context.Context, serves func(pipeline string) bool) (*nats.Msg, error) {
	m, s, err := p.pull(ctx, serves)
	if err == nil {
		for i := slices.Index(p.sources, s); i+1 < len(p.sources) && p.sources[i+1].priority == s.priority; i++ {
			p.sources[i], p.sources[i+1] = p.sources[i+1], s
		}
	}
	return m, err
}

func (p *puller) pull(ctx context.Context, serves func(pipeline string) bool) (*nats.Msg, *source, error) {
	served := make([]*source, 0, len(p.sources))
	backlog := false
	for _, s := range p.sources {
		if serves(s.pipeline) {
			served = append(served, s)
			backlog = backlog || s.backlog.Load() > 0
		}
	}
	if backlog {
		// Messages are pending: pull in order of urgency, so that bulk work never
		// comes before interactive work.
		for _, s := range served {
			if !s.shouldPull() {
				continue
			}
			m, err := p.pullNow(s)
			if err == nil {
				return m, s, nil
			}
			if !errors.Is(err, errNoMessage) {
				return nil, nil, err
			}
		}
	}
	return p.pullAny(ctx, served)
}

// pullNow pulls a message that is already pending. It has no context: a message that
// arrived after its end would only be redelivered after AckWait.
func (p *puller) pullNow(s *source) (*nats.Msg, error) {
	p.requests++
	reply := p.inbox + "." + strconv.FormatUint(p.requests, 36)
	if err := p.nc.PublishRequest(s.next, reply, p.noWaitRequest); err != nil {
		return nil, fmt.Errorf("pull from %s: %w", s.consumer, err)
	}
	for {
		m, err := p.replies.NextMsg(p.wait)
		switch {
		case err != nil:
			// A late message must not stay in this subscription while the next
			// message is processed, because no heartbeat would extend its delivery.
			p.replies.Unsubscribe() //nolint:errcheck // fails only when the connection is gone
			return nil, fmt.Errorf("pull from %s: %w", s.consumer, errors.Join(err, p.subscribe()))
		case isMessage(m):
			s.readBacklog(m)
			return m, nil
		case m.Subject == reply:
			s.setBacklog(0)
			return nil, errNoMessage
		} // else it is the late reply to an earlier request
	}
}

// pullAny waits for all sources and returns the first message.
//
// The subscription of the inbox is limited to one message. The server ends it with the
// first message, so that it does not reply to the other requests. A message that can no
// longer be delivered goes to the next pull request. That costs neither another round
// trip nor a delivery.
func (p *puller) pullAny(ctx context.Context, served []*source) (*nats.Msg, *source, error) {
	timeout := time.NewTimer(p.wait + p.wait/10)
	defer timeout.Stop()
	for len(served) > 0 {
		m, err := p.requestAll(ctx, timeout.C, served)
		if err != nil {
			return nil, nil, err
		}
		if isMessage(m) {
			s := findSource(served, m)
			if s == nil {
				return nil, nil, fmt.Errorf("pull: message of an unknown consumer: reply %q", m.Reply)
			}
			s.readBacklog(m)
			s.setMissing(p.log, false, "")
			return m, s, nil
		}
		i, err := strconv.Atoi(m.Subject[strings.LastIndexByte(m.Subject, '.')+1:])
		if err != nil || i >= len(served) {
			return nil, nil, fmt.Errorf("pull: status on %q", m.Subject)
		}
		status := m.Header.Get("Status")
		if status == "408" {
			served[i].setMissing(p.log, false, "")
			return nil, nil, errNoMessage // the request has expired
		}
		// No such consumer, or a server that shuts down: wait for the other sources.
		served[i].setMissing(p.log, true, strings.TrimSpace(status+" "+m.Header.Get("Description")))
		served = slices.Delete(slices.Clone(served), i, i+1)
	}
	select {
	case <-timeout.C:
		return nil, nil, errNoMessage
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
}

// requestAll sends a pull request to each source and returns the first reply: a
// message, or a status on the inbox with the number of the source.
func (p *puller) requestAll(ctx context.Context, timeout <-chan time.Time, served []*source) (*nats.Msg, error) {
	reply := make(chan *nats.Msg, 1)
	inbox := p.nc.NewInbox()
	sub, err := p.nc.ChanSubscribe(inbox+".*", reply)
	if err != nil {
		return nil, fmt.Errorf("subscribe to pull replies: %w", err)
	}
	if err := sub.AutoUnsubscribe(1); err != nil {
		return nil, fmt.Errorf("subscribe to pull replies: %w", err)
	}
	for i, s := range served {
		if err := p.nc.PublishRequest(s.next, inbox+"."+strconv.Itoa(i), p.waitRequest); err != nil {
			sub.Unsubscribe() //nolint:errcheck // the connection is gone
			return nil, fmt.Errorf("pull from %s: %w", s.consumer, err)
		}
	}
	select {
	case m := <-reply:
		return m, nil
	case <-timeout:
		err = errNoMessage
	case <-ctx.Done():
		err = ctx.Err()
	}
	// A message that is on its way must not wait for AckWait. After the pong no
	// message arrives.
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if e := errors.Join(sub.Drain(), p.nc.FlushWithContext(stop)); e != nil {
		return nil, err
	}
	select {
	case m := <-reply:
		return m, nil
	default:
		return nil, err
	}
}

// isMessage reports whether a reply to a pull request is a message, and not a status of
// the server: no messages, expired, or no such consumer.
func isMessage(m *nats.Msg) bool { return m.Header.Get("Status") == "" || m.Reply != "" }

func (s *source) readBacklog(m *nats.Msg) {
	if meta, err := m.Metadata(); err == nil {
		s.setBacklog(meta.NumPending)
	}
}

func findSource(sources []*source, m *nats.Msg) *source {
	meta, err := m.Metadata()
	if err != nil {
		return nil
	}
	for _, s := range sources {
		if s.consumer == meta.Consumer {
			return s
		}
	}
	return nil
}
