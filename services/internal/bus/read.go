package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// RequestTimeout limits one request to JetStream, whatever deadline the caller has,
// because a reply that was lost with a connection never arrives.
const RequestTimeout = 3 * time.Second

// PublishLast stores v as JSON as the last message on a subject of a stream, where
// [ReadLast] reads it. It returns when the stream has acknowledged the message.
func PublishLast(ctx context.Context, js jetstream.JetStream, stream, subject string, v any) error {
	ctx, cancel := context.WithTimeout(ctx, RequestTimeout)
	defer cancel()
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("store %s: encode: %w", subject, err)
	}
	if _, err := js.Publish(ctx, subject, body, jetstream.WithExpectStream(stream)); err != nil {
		return fmt.Errorf("store %s: %w", subject, wrapNotConnected(err))
	}
	return nil
}

// ReadLast reads the last message on a subject of a stream into v, as JSON, and
// reports whether there is one.
func ReadLast(ctx context.Context, js jetstream.JetStream, stream, subject string, v any) (found bool, err error) {
	h, err := ReadLastHeader(ctx, js, stream, subject, v)
	return h != nil, err
}

// ReadLastHeader does what [ReadLast] does and returns the header of the message. The header
// is nil when there is no message.
func ReadLastHeader(ctx context.Context, js jetstream.JetStream, stream, subject string, v any) (nats.Header, error) {
	ctx, cancel := context.WithTimeout(ctx, RequestTimeout)
	defer cancel()
	s, err := js.Stream(ctx, stream)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", subject, err)
	}
	m, err := s.GetLastMsgForSubject(ctx, subject)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, nil //nolint:nilnil // as documented
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", subject, err)
	}
	if err := json.Unmarshal(m.Data, v); err != nil {
		return nil, fmt.Errorf("read %s: decode: %w", subject, err)
	}
	if m.Header == nil {
		return nats.Header{}, nil
	}
	return m.Header, nil
}
