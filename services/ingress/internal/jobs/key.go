package jobs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/sightmesh/sightmesh/contracts/retry"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/internal/bus"
)

// A Key is the name that a client gives a request (Idempotency-Key), so that
// the client can repeat the request without a second job.
type Key struct {
	Name string
	// Fingerprint of everything that makes two requests the same.
	Fingerprint [sha256.Size]byte
}

// claim is the stored message of a key.
type claim struct {
	ID          string `json:"id"`
	Fingerprint string `json:"fingerprint"`
}

// Claim returns the ID that the key stands for: id when the key is new, or the
// ID of the first request with the key. A key that was used for something else
// is a [*v1.Problem]. While another request with the key is being stored, Claim
// waits until the outcome is known or ctx ends.
func (j *Jobs) Claim(ctx context.Context, k Key, id string) (string, error) {
	mine := claim{ID: id, Fingerprint: hex.EncodeToString(k.Fingerprint[:])}
	sum := sha256.Sum256([]byte(k.Name))
	subj := subject.JobOfKey(hex.EncodeToString(sum[:]))
	for attempt := 1; ; attempt++ {
		first, err := j.createOrRead(ctx, subj, mine)
		switch {
		case err != nil:
			return "", fmt.Errorf("claim a key: %w", err)
		case first == nil:
			// The other write is not visible yet, was given up, or has expired
			// since. Only another try to create the key tells which.
			if err := retry.Sleep(ctx, inFlightBackoff.Delay(attempt)); err != nil {
				return "", fmt.Errorf("claim a key: wait for another write: %w", err)
			}
		case first.Fingerprint != mine.Fingerprint:
			return "", v1.NewProblem(v1.KeyConflict, "Idempotency-Key %.100q stands for something else, %s", k.Name, first.ID).
				WithField("Idempotency-Key")
		default:
			return first.ID, nil
		}
	}
}

// createOrRead stores mine when the subject has no message, and returns the
// message that the subject has then: mine or an earlier one. It returns nil
// when another write prevented the creation but cannot be read.
func (j *Jobs) createOrRead(ctx context.Context, subj string, mine claim) (*claim, error) {
	body, err := json.Marshal(mine)
	if err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	_, err = j.js.Publish(ctx, subj, body,
		jetstream.WithExpectLastSequencePerSubject(0), jetstream.WithExpectStream(streams.Jobs))
	if err == nil {
		return &mine, nil
	}
	if !isWrongLastSequence(err) {
		return nil, fmt.Errorf("create: %w", err)
	}
	var first claim
	found, err := bus.Last(ctx, j.js, streams.Jobs, subj, &first)
	if err != nil || !found {
		return nil, err
	}
	return &first, nil
}

// isWrongLastSequence reports whether a publish with an expected last sequence
// met another message. Replicated streams use the second code for a message
// that is still in flight.
func isWrongLastSequence(err error) bool {
	code := errorCode(err)
	return code == jetstream.JSErrCodeStreamWrongLastSequence || code == jetstream.JSErrCodeStreamWrongLastSequenceConstant
}
