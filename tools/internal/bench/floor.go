package bench

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"github.com/sightmesh/sightmesh/contracts/connection"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// FloorConfig is the configuration of a [Floor].
type FloorConfig struct {
	NATS     connection.Config
	Replicas int
	Storage  jetstream.StorageType
	// First, Second and Third are the sizes of the messages of each step, in
	// bytes. In the mesh these messages are an image, its crops and a result.
	First, Second, Third int
}

// A Floor is a bare JetStream pipeline of three work queues. Each consumer publishes
// the next message and then acknowledges its own; the last one replies to an inbox.
// The mesh does the same in addition to its own work.
type Floor struct {
	cfg     FloorConfig
	front   *nats.Conn
	js      jetstream.JetStream
	prefix  string
	inbox   string
	conns   []*nats.Conn
	stops   []jetstream.ConsumeContext
	streams []string

	mu      sync.Mutex
	waiting map[string]chan struct{}
}

// StartFloor creates streams of its own and consumes them. Close deletes them.
func StartFloor(ctx context.Context, cfg FloorConfig) (*Floor, error) {
	f := &Floor{cfg: cfg, prefix: "floor" + nuid.Next(), waiting: map[string]chan struct{}{}}
	if err := f.start(ctx); err != nil {
		f.Close(ctx) //nolint:errcheck // the first error is returned
		return nil, err
	}
	return f, nil
}

func (f *Floor) start(ctx context.Context) (err error) {
	if f.front, f.js, err = f.connect(); err != nil {
		return err
	}
	f.inbox = f.front.NewInbox()
	if _, err = f.front.Subscribe(f.inbox+".*", f.deliver); err != nil {
		return fmt.Errorf("subscribe to replies: %w", err)
	}
	second, third := make([]byte, f.cfg.Second), make([]byte, f.cfg.Third)
	for i, next := range [][]byte{second, third, nil} {
		if err := f.forward(ctx, i, next); err != nil {
			return err
		}
	}
	return nil
}

func (f *Floor) connect() (*nats.Conn, jetstream.JetStream, error) {
	nc, err := f.cfg.NATS.Connect()
	if err != nil {
		return nil, nil, err
	}
	f.conns = append(f.conns, nc)
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, nil, fmt.Errorf("open JetStream: %w", err)
	}
	return nc, js, nil
}

func (f *Floor) subject(hop int, job string) string {
	return fmt.Sprintf("%s.%d.%s", f.prefix, hop, job)
}

// forward creates the stream of a step and forwards its messages to the next
// step, or to the inbox after the last one.
func (f *Floor) forward(ctx context.Context, i int, next []byte) error {
	nc, js, err := f.connect()
	if err != nil {
		return err
	}
	name := fmt.Sprintf("%s_%d", strings.ToUpper(f.prefix), i)
	s, err := js.CreateStream(ctx, jetstream.StreamConfig{
		Name: name, Subjects: []string{f.subject(i, "*")}, Retention: jetstream.WorkQueuePolicy,
		Discard: jetstream.DiscardNew, Storage: f.cfg.Storage, Replicas: max(f.cfg.Replicas, 1), MaxBytes: 256 << 20,
	})
	if err != nil {
		return fmt.Errorf("make stream of hop %d: %w", i, err)
	}
	f.streams = append(f.streams, name)
	c, err := s.CreateConsumer(ctx, jetstream.ConsumerConfig{Durable: "floor", AckPolicy: jetstream.AckExplicitPolicy})
	if err != nil {
		return fmt.Errorf("make consumer of hop %d: %w", i, err)
	}
	for range 2 {
		cc, err := c.Consume(func(m jetstream.Msg) {
			job := m.Subject()[strings.LastIndexByte(m.Subject(), '.')+1:]
			var err error
			if next == nil {
				err = nc.Publish(m.Headers().Get(v1.HeaderReply), m.Data())
			} else {
				_, err = js.PublishMsg(ctx, &nats.Msg{
					Subject: f.subject(i+1, job),
					Header:  nats.Header{v1.HeaderReply: m.Headers()[v1.HeaderReply]},
					Data:    next,
				}, jetstream.WithMsgID(fmt.Sprint(job, ".", i)))
			}
			if err == nil {
				m.Ack() //nolint:errcheck // without an ack, the message is delivered again
			}
		}, jetstream.PullMaxMessages(64), jetstream.PullHeartbeat(500*time.Millisecond), jetstream.PullExpiry(5*time.Second))
		if err != nil {
			return fmt.Errorf("consume hop %d: %w", i, err)
		}
		f.stops = append(f.stops, cc)
	}
	return nil
}

func (f *Floor) deliver(m *nats.Msg) {
	job := m.Subject[strings.LastIndexByte(m.Subject, '.')+1:]
	f.mu.Lock()
	c := f.waiting[job]
	delete(f.waiting, job)
	f.mu.Unlock()
	if c != nil {
		close(c)
	}
}

// Send is a [Sender]. It publishes a message of the configured size and waits for the
// reply.
func (f *Floor) Send(ctx context.Context, p Image) (v1.Result, error) {
	job := nuid.Next()
	done := make(chan struct{})
	f.mu.Lock()
	f.waiting[job] = done
	f.mu.Unlock()
	_, err := f.js.PublishMsg(ctx, &nats.Msg{
		Subject: f.subject(0, job),
		Header:  nats.Header{v1.HeaderReply: {f.inbox + "." + job}},
		Data:    p.Data,
	}, jetstream.WithMsgID(job))
	if err != nil {
		return v1.Result{}, fmt.Errorf("publish: %w", err)
	}
	select {
	case <-done:
		return v1.Result{}, nil
	case <-ctx.Done():
		return v1.Result{}, ctx.Err()
	}
}

// Close stops the consumers and deletes the streams.
func (f *Floor) Close(ctx context.Context) error {
	for _, cc := range f.stops {
		cc.Stop()
		<-cc.Closed()
	}
	var err error
	for _, s := range f.streams {
		if e := f.js.DeleteStream(ctx, s); e != nil {
			err = fmt.Errorf("remove stream of the floor: %w", e)
		}
	}
	for _, nc := range f.conns {
		nc.Close()
	}
	return err
}
