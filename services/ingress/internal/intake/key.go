package intake

import (
	"cmp"
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

// A Key is the Idempotency-Key of a request. With it, a client can repeat the request
// without creating a second job.
type Key struct {
	Name string
	// Field is the header or field with the key. "" means the header Idempotency-Key.
	Field string
	// Fingerprint is a hash of the pipeline, the priority and the content.
	Fingerprint [sha256.Size]byte
}

// NewKey returns the key of a request. field is as in [Key]. content is a hash of the image,
// of its URL, or of several of them.
func NewKey(name, field, pipeline string, prio subject.Priority, content []byte) Key {
	h := sha256.New()
	h.Write([]byte(pipeline + "\n" + string(prio) + "\n"))
	h.Write(content)
	return Key{Name: name, Field: field, Fingerprint: [sha256.Size]byte(h.Sum(nil))}
}

// Claim returns the ID of the key: id when the key is new, or the ID of the first request
// with the key. It returns a [*v1.Problem] when the key was used with other content. While
// another request with the key is being stored, Claim waits for it until ctx ends.
func (i *Intake) Claim(ctx context.Context, k Key, id string) (string, error) {
	claim := v1.KeyClaim{ID: id, Fingerprint: hex.EncodeToString(k.Fingerprint[:])}
	sum := sha256.Sum256([]byte(k.Name))
	subj := subject.JobOfKey(hex.EncodeToString(sum[:]))
	for attempt := 1; ; attempt++ {
		first, err := i.createOrRead(ctx, subj, claim)
		switch {
		case err != nil:
			return "", fmt.Errorf("claim a key: %w", err)
		case first == nil:
			// The other write is not visible yet, has failed, or has expired
			// since. Another attempt to create the key shows which.
			if err := retry.Sleep(ctx, bus.InFlightBackoff.Delay(attempt)); err != nil {
				return "", fmt.Errorf("claim a key: wait for another write: %w", err)
			}
		case first.Fingerprint != claim.Fingerprint:
			field := cmp.Or(k.Field, v1.HeaderKey)
			return "", v1.NewProblem(v1.KeyConflict, "%s %.100q stands for something else, %s", field, k.Name, first.ID).
				WithField(field)
		default:
			return first.ID, nil
		}
	}
}

// createOrRead stores claim when the subject has no message, and returns the message of
// the subject: claim or an earlier one. It returns nil when another write prevented the
// creation but cannot be read.
func (i *Intake) createOrRead(ctx context.Context, subj string, claim v1.KeyClaim) (*v1.KeyClaim, error) {
	body, err := json.Marshal(claim)
	if err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	// After a lost acknowledgement, the next attempt finds the key and reads it.
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
		return &claim, nil
	}
	var first v1.KeyClaim
	found, err := bus.ReadLast(ctx, i.cfg.JetStream, streams.Jobs, subj, &first)
	if err != nil || !found {
		return nil, err
	}
	return &first, nil
}
