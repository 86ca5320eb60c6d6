package streams

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/sightmesh/sightmesh/contracts/retry"
)

// Error codes of JetStream for which the client library has no constant.
const (
	errStoreFailed           jetstream.ErrorCode = 10077 // a limit of the stream, with DiscardNew, or a failed write
	errTooManyRequests       jetstream.ErrorCode = 10167 // ingest limit
	errInsufficientResources jetstream.ErrorCode = 10023 // no room on the server
	errMessageTooLarge       jetstream.ErrorCode = 10054 // max_msg_size of the stream
	errHeaderTooLarge        jetstream.ErrorCode = 10097 // 64 KiB
	errDuplicateInFlight     jetstream.ErrorCode = 10158 // another message with this id, on a replicated stream
)

// IsUnknown reports whether the message of a publish that failed with err may have been
// stored, such as when its acknowledgement was lost. It returns true for an error that
// is not known to mean that nothing was stored. No other code decides this.
func IsUnknown(err error) bool {
	if err == nil {
		return false
	}
	for _, certain := range []error{
		nats.ErrNoResponders, jetstream.ErrNoStreamResponse, // no stream has the subject
		nats.ErrReconnectBufExceeded, nats.ErrInvalidConnection, nats.ErrConnectionDraining, // not sent
		nats.ErrMaxPayload, nats.ErrBadSubject, nats.ErrHeadersNotSupported,
	} {
		if errors.Is(err, certain) {
			return false
		}
	}
	// The stream has rejected the message, unless another one with its ID is still in
	// flight.
	return errorCode(err) == 0 || IsInFlight(err)
}

// ErrUnknown is wrapped by an error after which it is unknown whether a message was
// stored.
var ErrUnknown = errors.New("no acknowledgement came")

const (
	// unknownTimeout is how long a message without an acknowledgement is published
	// again, and unknownTry is how long to wait for each acknowledgement.
	unknownTimeout = 6 * time.Second
	unknownTry     = 1500 * time.Millisecond
)

// unknownBackoff has the delays between two attempts. Most attempts end with the wait
// for an acknowledgement, others with a lost connection.
var unknownBackoff = retry.Exponential(50*time.Millisecond, 400*time.Millisecond, 2)

// RetryUnknown calls try until it is known whether a message is stored: for 6 s, or
// until ctx ends. try publishes the message with the same ID each time, and has 1.5 s
// for each call. isUnknown is [IsUnknown], or a function that recognizes more errors.
// The error wraps [ErrUnknown] when it is still unknown at the end.
func RetryUnknown(ctx context.Context, isUnknown func(error) bool, try func(context.Context) error) error {
	limited, cancel := context.WithTimeout(ctx, unknownTimeout)
	defer cancel()
	unknown := false
	for attempt := 1; ; attempt++ {
		one, cancelOne := context.WithTimeout(limited, unknownTry)
		err := try(one)
		cancelOne()
		if err == nil {
			return nil
		}
		// A definite error of a later attempt does not show whether an earlier one stored the message.
		if unknown = unknown || isUnknown(err); !unknown {
			return err
		}
		if retry.Sleep(limited, unknownBackoff.Delay(attempt)) != nil {
			return fmt.Errorf("%w: %w", ErrUnknown, err)
		}
	}
}

// IsInFlight reports whether a publish was rejected because another message with its
// ID, or on its subject, is being stored. The other write can still fail.
func IsInFlight(err error) bool {
	code := errorCode(err)
	return code == errDuplicateInFlight || code == jetstream.JSErrCodeStreamWrongLastSequenceConstant
}

// IsWrongLastSequence reports whether a publish with an expected last sequence was
// rejected because of another message on its subject, stored or in flight.
func IsWrongLastSequence(err error) bool {
	code := errorCode(err)
	return code == jetstream.JSErrCodeStreamWrongLastSequence ||
		code == jetstream.JSErrCodeStreamWrongLastSequenceConstant
}

// IsFull reports whether a publish was rejected because the stream or the server is at a
// limit. It returns false for a failed write, such as on a full disk.
func IsFull(err error) bool {
	var api *jetstream.APIError
	if !errors.As(err, &api) {
		return false
	}
	switch api.ErrorCode {
	case errStoreFailed:
		return strings.HasPrefix(api.Description, "maximum ")
	case errTooManyRequests, errInsufficientResources:
		return true
	}
	return false
}

// IsTooLarge reports whether a publish was rejected because its message or its headers
// have more bytes than the server or the stream allows.
func IsTooLarge(err error) bool {
	code := errorCode(err)
	return errors.Is(err, nats.ErrMaxPayload) || code == errMessageTooLarge || code == errHeaderTooLarge
}

// errorCode returns the code of an error of JetStream; 0 for another error.
func errorCode(err error) jetstream.ErrorCode {
	var api *jetstream.APIError
	if errors.As(err, &api) {
		return api.ErrorCode
	}
	return 0
}
