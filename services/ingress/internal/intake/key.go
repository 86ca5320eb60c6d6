package intake

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/internal/bus"
)

// Key is what a client calls a request, so that it can be repeated without
// being done twice (Idempotency-Key).
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

// claim is what is kept of a key.
type claim struct {
	ID          string `json:"id"`
	Fingerprint string `json:"fingerprint"`
}

// Claim gives the id that the key stands for: id when the key is new, or that
// of the request that was first. A key that was used for something else is a
// [*v1.Problem].
func (i *Intake) Claim(ctx context.Context, k Key, id string) (string, error) {
	mine := claim{ID: id, Fingerprint: hex.EncodeToString(k.Fingerprint[:])}
	body, err := json.Marshal(mine)
	if err != nil {
		return "", fmt.Errorf("claim a key: %w", err)
	}
	sum := sha256.Sum256([]byte(k.Name))
	subj := subject.JobOfKey(hex.EncodeToString(sum[:]))
	_, err = i.cfg.JetStream.Publish(ctx, subj, body, jetstream.WithExpectLastSequencePerSubject(0), jetstream.WithExpectStream(streams.Jobs))
	var api *jetstream.APIError
	if err == nil {
		return id, nil
	}
	if !errors.As(err, &api) || api.ErrorCode != jetstream.JSErrCodeStreamWrongLastSequence {
		return "", fmt.Errorf("claim a key: %w", err)
	}
	var first claim
	found, err := bus.Last(ctx, i.cfg.JetStream, streams.Jobs, subj, &first)
	if err == nil && !found {
		err = errors.New("the key ended in this moment")
	}
	if err != nil {
		return "", fmt.Errorf("claim a key: %w", err)
	}
	if first.Fingerprint != mine.Fingerprint {
		return "", v1.NewProblem(v1.KeyConflict, "Idempotency-Key %.100q stands for something else, %s", k.Name, first.ID).WithField("Idempotency-Key")
	}
	return first.ID, nil
}
