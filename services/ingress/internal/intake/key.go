package intake

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

// NewKey returns the key of a request for content, a hash of an image, of its
// URL, or of several.
func NewKey(name, pipeline string, prio subject.Priority, content []byte) Key {
	h := sha256.New()
	h.Write([]byte(pipeline + "\n" + string(prio) + "\n"))
	h.Write(content)
	return Key{Name: name, Fingerprint: [sha256.Size]byte(h.Sum(nil))}
}

// Claim returns the ID that the key stands for: id when the key is new, or the
// ID of the first request with the key. A key that was used for something else
// is a [*v1.Problem]. While another request with the key is being stored, Claim
// waits until the outcome is known or ctx ends.
func (i *Intake) Claim(ctx context.Context, k Key, id string) (string, error) {
	mine := v1.KeyClaim{ID: id, Fingerprint: hex.EncodeToString(k.Fingerprint[:])}
	sum := sha256.Sum256([]byte(k.Name))
	subj := subject.JobOfKey(hex.EncodeToString(sum[:]))
	for attempt := 1; ; attempt++ {
		first, err := i.createOrRead(ctx, subj, mine)
		switch {
		case err != nil:
			return "", fmt.Errorf("claim a key: %w", err)
		case first == nil:
			// The other write is not visible yet, was given up, or has expired
			// since. Only another try to create the key tells which.
			if err := retry.Sleep(ctx, bus.InFlightBackoff.Delay(attempt)); err != nil {
				return "", fmt.Errorf("claim a key: wait for another write: %w", err)
			}
		case first.Fingerprint != mine.Fingerprint:
			return "", v1.NewProblem(v1.KeyConflict, "Idempotency-Key %.100q stands for something else, %s", k.Name, first.ID).
				WithField(v1.HeaderKey)
		default:
			return first.ID, nil
		}
	}
}

// createOrRead stores mine when the subject has no message, and returns the
// message that the subject has then: mine or an earlier one. It returns nil
// when another write prevented the creation but cannot be read.
func (i *Intake) createOrRead(ctx context.Context, subj string, mine v1.KeyClaim) (*v1.KeyClaim, error) {
	body, err := json.Marshal(mine)
	if err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	// A key whose acknowledgement was lost is met by the next try, and read.
	created := false
	err = streams.RetryUnknown(ctx, bus.IsUnknown, func(ctx context.Context) error {
		_, err := i.cfg.JetStream.Publish(ctx, subj, body,
			jetstream.WithExpectLastSequencePerSubject(0), jetstream.WithExpectStream(streams.Jobs))
		if created = err == nil; streams.IsWrongLastSequence(err) {
			return nil
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("create: %w", err)
	}
	if created {
		return &mine, nil
	}
	var first v1.KeyClaim
	found, err := bus.Last(ctx, i.cfg.JetStream, streams.Jobs, subj, &first)
	if err != nil || !found {
		return nil, err
	}
	return &first, nil
}
