// Package webhookmessage makes the CALLBACKS message of a job or report that has ended.
// The ingress sends the webhook from it. The package is pure.
package webhookmessage

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/internal/bus"
)

// JobMessage returns the message of a job that has ended. result is the body of its
// RESULTS message, and stored is when that was stored.
func JobMessage(job string, status v1.Status, url string, stored time.Time, result []byte) (bus.Message, error) {
	return message(job, url, v1.CallbackBody{Type: v1.WebhookJob(status), Timestamp: stored,
		Data: json.RawMessage(result)})
}

// ReportMessage returns the message of a report whose images all have outcomes.
func ReportMessage(r v1.Report, url string, at time.Time) (bus.Message, error) {
	return message(r.ID, url, v1.CallbackBody{Type: v1.WebhookReportDone, Timestamp: at, Data: r})
}

func message(id, url string, b v1.CallbackBody) (bus.Message, error) {
	body, err := json.Marshal(b)
	if err != nil {
		return bus.Message{}, fmt.Errorf("encode the webhook of %s: %w", id, err)
	}
	h := nats.Header{}
	h.Set(v1.HeaderCallback, url)
	return bus.Message{
		Subject: subject.Callbacks(id), Stream: streams.Callbacks,
		ID: v1.MsgID(id, v1.MsgCallbacks), Header: h, Body: body,
	}, nil
}
