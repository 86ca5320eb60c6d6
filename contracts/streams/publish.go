package streams

import (
	"errors"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
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

// IsUnknown reports whether the message of a publish that failed with err may
// be stored all the same, such as when its acknowledgement was lost. It is the
// one place that decides it: an error that is not known to say that nothing was
// stored leaves it open.
func IsUnknown(err error) bool {
	if err == nil {
		return false
	}
	for _, certain := range []error{
		nats.ErrNoResponders, jetstream.ErrNoStreamResponse, // no stream listens
		nats.ErrReconnectBufExceeded, nats.ErrInvalidConnection, nats.ErrConnectionDraining, // not sent
		nats.ErrMaxPayload, nats.ErrBadSubject, nats.ErrHeadersNotSupported,
	} {
		if errors.Is(err, certain) {
			return false
		}
	}
	// The stream has rejected the message, or another one with its ID is in
	// flight still.
	return errorCode(err) == 0 || IsInFlight(err)
}

// IsInFlight reports whether a publish met another message with its ID, or on
// its subject, that is being stored. The other write can still fail.
func IsInFlight(err error) bool {
	code := errorCode(err)
	return code == errDuplicateInFlight || code == jetstream.JSErrCodeStreamWrongLastSequenceConstant
}

// IsWrongLastSequence reports whether a publish with an expected last sequence
// met another message on its subject, stored or in flight.
func IsWrongLastSequence(err error) bool {
	code := errorCode(err)
	return code == jetstream.JSErrCodeStreamWrongLastSequence || code == jetstream.JSErrCodeStreamWrongLastSequenceConstant
}

// IsFull reports whether a publish was rejected because the stream or the server
// is at a limit. A failed write, such as on a full disk, is none.
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

// IsTooLarge reports whether a publish was rejected because its message, or its
// headers, have more bytes than the server or the stream takes.
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
