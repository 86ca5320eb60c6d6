package bus

import (
	"encoding/json"
	"fmt"

	"github.com/nats-io/nats.go"

	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// PublishEvent publishes an event to the clients that watch its job or report. Delivery is
// not guaranteed, so callers only log an error.
func PublishEvent(nc *nats.Conn, e v1.Event) error {
	body, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("encode event %s of %s: %w", e.Event, e.ID, err)
	}
	if err := nc.Publish(subject.Events(e.ID), body); err != nil {
		return fmt.Errorf("publish event %s of %s: %w", e.Event, e.ID, wrapNotConnected(err))
	}
	return nil
}
