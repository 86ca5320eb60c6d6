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

// RequestTimeout bounds one request to JetStream, however much time its caller
// has: a reply that was lost with a connection does not come.
const RequestTimeout = 3 * time.Second

// PublishLast stores v, as JSON, as the last message on a subject of a stream,
// where [Last] finds it. It returns once the stream has acknowledged it.
func PublishLast(ctx context.Context, js jetstream.JetStream, stream, subject string, v any) error {
	ctx, cancel := context.WithTimeout(ctx, RequestTimeout)
	defer cancel()
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("store %s: encode: %w", subject, err)
	}
	if _, err := js.Publish(ctx, subject, body, jetstream.WithExpectStream(stream)); err != nil {
		return fmt.Errorf("store %s: %w", subject, explain(err))
	}
	return nil
}

// Last reads the last message on a subject of a stream into v, as JSON, and
// reports whether there is one.
func Last(ctx context.Context, js jetstream.JetStream, stream, subject string, v any) (found bool, err error) {
	h, err := LastHeader(ctx, js, stream, subject, v)
	return h != nil, err
}

// LastHeader is [Last] that returns the header of the message, which is nil when
// there is no message.
func LastHeader(ctx context.Context, js jetstream.JetStream, stream, subject string, v any) (nats.Header, error) {
	ctx, cancel := context.WithTimeout(ctx, RequestTimeout)
	defer cancel()
	s, err := js.Stream(ctx, stream)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", subject, err)
	}
	m, err := s.GetLastMsgForSubject(ctx, subject)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, nil //nolint:nilnil // it says so
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
