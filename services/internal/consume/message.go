package consume

import (
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Message is a message of a stream that is not acknowledged yet. Every
// [jetstream.Msg] implements it. Only this package calls its methods that
// acknowledge or extend a delivery.
type Message interface {
	Subject() string
	Headers() nats.Header
	Data() []byte
	Metadata() (*jetstream.MsgMetadata, error)
	Ack() error
	Nak() error
	NakWithDelay(time.Duration) error
	TermWithReason(string) error
	InProgress() error
}

// FromNATS returns the Message of a reply to a pull request that was sent over nc
// without package jetstream.
func FromNATS(nc *nats.Conn, m *nats.Msg) Message { return coreMessage{nc, m} }

// coreMessage sends the acknowledgements of the JetStream protocol itself, because
// the subscription of the message may have ended by then.
type coreMessage struct {
	nc *nats.Conn
	m  *nats.Msg
}

func (c coreMessage) Subject() string      { return c.m.Subject }
func (c coreMessage) Headers() nats.Header { return c.m.Header }
func (c coreMessage) Data() []byte         { return c.m.Data }

func (c coreMessage) Metadata() (*jetstream.MsgMetadata, error) {
	meta, err := c.m.Metadata()
	if err != nil {
		return nil, err
	}
	return &jetstream.MsgMetadata{
		Sequence:     jetstream.SequencePair{Consumer: meta.Sequence.Consumer, Stream: meta.Sequence.Stream},
		NumDelivered: meta.NumDelivered, NumPending: meta.NumPending, Timestamp: meta.Timestamp,
		Stream: meta.Stream, Consumer: meta.Consumer, Domain: meta.Domain,
	}, nil
}

func (c coreMessage) Ack() error        { return c.respond("+ACK") }
func (c coreMessage) Nak() error        { return c.respond("-NAK") }
func (c coreMessage) InProgress() error { return c.respond("+WPI") }

func (c coreMessage) NakWithDelay(d time.Duration) error {
	return c.respond(fmt.Sprintf(`-NAK {"delay": %d}`, d.Nanoseconds()))
}

func (c coreMessage) TermWithReason(reason string) error { return c.respond("+TERM " + reason) }

func (c coreMessage) respond(word string) error { return c.nc.Publish(c.m.Reply, []byte(word)) }
