// Command purge-under-consumer shows that nats-server forgets unacknowledged
// messages of a consumer after a purge by a subject that is narrower than the
// filter of the consumer. It starts a server of its own.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	streamName = "T"
	ackWait    = 2 * time.Second
	perSubject = 3 // messages of a, of b and of c
)

func main() {
	fmt.Printf("nats-server %s, nats.go %s\n", server.VERSION, nats.Version)
	lost := false
	for _, remove := range []removal{purgeBySubject, deleteBySequence} {
		again, err := run(remove)
		if err != nil {
			log.Fatal(err)
		}
		lost = lost || again < perSubject
	}
	if lost {
		os.Exit(1)
	}
}

// A removal removes the messages of b from the stream.
type removal struct {
	name string
	do   func(context.Context, jetstream.Stream) error
}

var purgeBySubject = removal{"purge by subject t.b.*", func(ctx context.Context, s jetstream.Stream) error {
	return s.Purge(ctx, jetstream.WithPurgeSubject("t.b.*"))
}}

var deleteBySequence = removal{"delete by sequence 4, 5 and 6", func(ctx context.Context, s jetstream.Stream) error {
	for seq := uint64(4); seq <= 6; seq++ {
		if err := s.DeleteMsg(ctx, seq); err != nil {
			return err
		}
	}
	return nil
}}

// run returns how many of the messages of a are delivered again.
func run(remove removal) (again int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "purge-under-consumer")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	srv, err := server.NewServer(&server.Options{JetStream: true, StoreDir: dir, DontListen: true, NoLog: true})
	if err != nil {
		return 0, err
	}
	srv.Start()
	defer srv.Shutdown()
	if !srv.ReadyForConnections(10 * time.Second) {
		return 0, fmt.Errorf("the server is not ready")
	}
	nc, err := nats.Connect("", nats.InProcessServer(srv))
	if err != nil {
		return 0, err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return 0, err
	}
	stream, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: streamName, Subjects: []string{"t.>"}})
	if err != nil {
		return 0, err
	}
	consumer, err := stream.CreateConsumer(ctx, jetstream.ConsumerConfig{
		Durable: "c", FilterSubject: "t.>", AckPolicy: jetstream.AckExplicitPolicy, AckWait: ackWait, MaxDeliver: -1,
	})
	if err != nil {
		return 0, err
	}

	fmt.Printf("\n%s\n", remove.name)
	report := func(step string) {
		info, infoErr := consumer.Info(ctx)
		state, stateErr := stream.Info(ctx)
		if infoErr != nil || stateErr != nil {
			log.Fatal(infoErr, stateErr)
		}
		fmt.Printf("  %-39s ack floor: delivery %d, stream %d; ack pending %d; in the stream %d\n", step,
			info.AckFloor.Consumer, info.AckFloor.Stream, info.NumAckPending, state.State.Msgs)
	}
	fetch := func(name string) ([]jetstream.Msg, error) {
		for i := range perSubject {
			if _, err := js.Publish(ctx, fmt.Sprintf("t.%s.%d", name, i), nil); err != nil {
				return nil, err
			}
		}
		batch, err := consumer.Fetch(perSubject)
		if err != nil {
			return nil, err
		}
		var msgs []jetstream.Msg
		for m := range batch.Messages() {
			msgs = append(msgs, m)
		}
		if len(msgs) != perSubject {
			return nil, fmt.Errorf("%d messages of %s were delivered, want %d", len(msgs), name, perSubject)
		}
		return msgs, batch.Error()
	}

	if _, err = fetch("a"); err != nil { // the client that has them dies
		return 0, err
	}
	report("a.0 to a.2 delivered")
	b, err := fetch("b")
	if err != nil {
		return 0, err
	}
	for _, m := range b[:2] {
		if err := m.DoubleAck(ctx); err != nil {
			return 0, err
		}
	}
	report("b.0 to b.2 delivered, b.0, b.1 acked")
	if err := remove.do(ctx, stream); err != nil {
		return 0, err
	}
	report("b.0 to b.2 removed")
	if err := b[2].DoubleAck(ctx); err != nil {
		return 0, err
	}
	report("b.2 acked")
	c, err := fetch("c")
	if err != nil {
		return 0, err
	}
	for _, m := range c {
		if err := m.DoubleAck(ctx); err != nil {
			return 0, err
		}
	}
	report("c.0 to c.2 delivered, all acked")
	time.Sleep(2*ackWait + time.Second)
	report(fmt.Sprintf("after %v, AckWait is %v", 2*ackWait+time.Second, ackWait))
	batch, err := consumer.FetchNoWait(perSubject)
	if err != nil {
		return 0, err
	}
	for range batch.Messages() {
		again++
	}
	fmt.Printf("  delivered again: %d of the %d messages that no client has acknowledged\n", again, perSubject)
	return again, batch.Error()
}
