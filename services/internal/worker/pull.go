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

// source is a consumer that work is taken from.
type source struct {
	pipeline string
	priority subject.Priority
	consumer string
	next     string // subject of the pull request
	// backlog is what the last delivery said was still waiting.
	backlog atomic.Uint64
	// emptyAt is when nothing was seen to wait, in Unix nanoseconds.
	emptyAt atomic.Int64
	// missing says that the server knows no such consumer, or has no leader
	// for it.
	missing atomic.Bool
}

// setMissing logs when a consumer is missing, and when it is there again.
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

// emptyRecheck is how long bulk work that comes to an empty queue may be
// overlooked while other work waits: each question in vain keeps a lane idle.
const emptyRecheck = time.Second

// shouldPull reports whether a message may wait there. For interactive work
// the answer is always yes.
func (s *source) shouldPull() bool {
	return s.priority == subject.Interactive || s.backlog.Load() > 0 || time.Since(time.Unix(0, s.emptyAt.Load())) > emptyRecheck
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

// puller takes one message at a time from several consumers. Each goroutine
// that takes messages has its own.
//
// The pull requests are written here, not left to the client library: a lane
// waits on all its consumers at once and must hold one message, and only a
// request whose inbox is gone is withdrawn by the server. The library's Fetch
// drops a message that arrives while it is being cancelled, which then waits
// AckWait for its next delivery.
type puller struct {
	nc  *nats.Conn
	log *slog.Logger
	// sources, the most urgent first. Those of one priority take turns: what
	// was taken from last is asked last.
	sources []*source
	// wait is how long a pull request stays at the server. After it the
	// request is made again, which heals what a restarted server forgot.
	wait time.Duration

	replies       *nats.Subscription // to what ask asks
	inbox         string
	requests      uint64
	noWaitRequest []byte // the requests, as JSON
	waitRequest   []byte
}

// newPuller subscribes to the replies; the caller calls close.
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
		return fmt.Errorf("subscribe for work: %w", err)
	}
	return nil
}

func (p *puller) close() error { return p.replies.Unsubscribe() }

type pullRequest struct {
	Batch   int           `json:"batch"`
	Expires time.Duration `json:"expires,omitempty"`
	NoWait  bool          `json:"no_wait,omitempty"`
}

var errNoMessage = errors.New("nothing to take")

// next returns a message of one of the pipelines, the most urgent first. It
// returns errNoMessage when none came for a while, so that the caller can look
// at its lane again.
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
	mine := make([]*source, 0, len(p.sources))
	backlog := false
	for _, s := range p.sources {
		if serves(s.pipeline) {
			mine = append(mine, s)
			backlog = backlog || s.backlog.Load() > 0
		}
	}
	if backlog {
		// Something waits: ask in order of urgency, so that a queue of bulk
		// work never comes before someone who waits.
		for _, s := range mine {
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
	return p.pullAny(ctx, mine)
}

// pullNow takes a message that already waits. It is not ended early: a message
// that came after that would be lost until AckWait.
func (p *puller) pullNow(s *source) (*nats.Msg, error) {
	p.requests++
	reply := p.inbox + "." + strconv.FormatUint(p.requests, 36)
	if err := p.nc.PublishRequest(s.next, reply, p.noWaitRequest); err != nil {
		return nil, fmt.Errorf("ask %s for work: %w", s.consumer, err)
	}
	for {
		m, err := p.replies.NextMsg(p.wait)
		switch {
		case err != nil:
			// A message that comes later is not to lie here while the answer
			// to the next question is worked on: nobody would keep it alive.
			p.replies.Unsubscribe() //nolint:errcheck // fails only when the connection is gone
			return nil, fmt.Errorf("ask %s for work: %w", s.consumer, errors.Join(err, p.subscribe()))
		case isMessage(m):
			s.readBacklog(m)
			return m, nil
		case m.Subject == reply:
			s.setBacklog(0)
			return nil, errNoMessage
		} // else it is the late answer to an earlier question
	}
}

// pullAny waits on all sources and takes the first message that comes.
//
// The inbox of the requests takes one message: the server itself gives it up
// with the first, so that no other request is answered, and hands what could
// no longer be delivered to the next who asks. That costs neither another
// round trip nor a delivery.
func (p *puller) pullAny(ctx context.Context, mine []*source) (*nats.Msg, *source, error) {
	give := time.NewTimer(p.wait + p.wait/10)
	defer give.Stop()
	for len(mine) > 0 {
		m, err := p.requestAll(ctx, give.C, mine)
		if err != nil {
			return nil, nil, err
		}
		if isMessage(m) {
			s := findSource(mine, m)
			if s == nil {
				return nil, nil, fmt.Errorf("take work: message of an unknown consumer: reply %q", m.Reply)
			}
			s.readBacklog(m)
			s.setMissing(p.log, false, "")
			return m, s, nil
		}
		i, err := strconv.Atoi(m.Subject[strings.LastIndexByte(m.Subject, '.')+1:])
		if err != nil || i >= len(mine) {
			return nil, nil, fmt.Errorf("take work: status on %q", m.Subject)
		}
		status := m.Header.Get("Status")
		if status == "408" {
			mine[i].setMissing(p.log, false, "")
			return nil, nil, errNoMessage // the request has waited its time
		}
		// No such consumer, or a server that stops: wait for the others.
		mine[i].setMissing(p.log, true, strings.TrimSpace(status+" "+m.Header.Get("Description")))
		mine = slices.Delete(slices.Clone(mine), i, i+1)
	}
	select {
	case <-give.C:
		return nil, nil, errNoMessage
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
}

// requestAll asks all sources and returns the first that the server says: a
// message, or a status on the inbox with the number of the source.
func (p *puller) requestAll(ctx context.Context, give <-chan time.Time, mine []*source) (*nats.Msg, error) {
	said := make(chan *nats.Msg, 1)
	inbox := p.nc.NewInbox()
	sub, err := p.nc.ChanSubscribe(inbox+".*", said)
	if err != nil {
		return nil, fmt.Errorf("subscribe for work: %w", err)
	}
	if err := sub.AutoUnsubscribe(1); err != nil {
		return nil, fmt.Errorf("subscribe for work: %w", err)
	}
	for i, s := range mine {
		if err := p.nc.PublishRequest(s.next, inbox+"."+strconv.Itoa(i), p.waitRequest); err != nil {
			sub.Unsubscribe() //nolint:errcheck // the connection is gone
			return nil, fmt.Errorf("ask %s for work: %w", s.consumer, err)
		}
	}
	select {
	case m := <-said:
		return m, nil
	case <-give:
		err = errNoMessage
	case <-ctx.Done():
		err = ctx.Err()
	}
	// What is on its way is not left to AckWait: nothing comes after the pong.
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if e := errors.Join(sub.Drain(), p.nc.FlushWithContext(stop)); e != nil {
		return nil, err
	}
	select {
	case m := <-said:
		return m, nil
	default:
		return nil, err
	}
}

// isMessage tells a message from what the server says of the request: nothing
// there, time over, no such consumer.
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
