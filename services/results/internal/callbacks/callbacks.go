// Package callbacks puts the callback of a job or report that is done into
// the queue from which ingress sends it. It is pure.
package callbacks

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

// Of a job that is done: result is the body of its RESULTS message, stored at
// that time.
func Of(job string, status v1.Status, url string, stored time.Time, result []byte) (bus.Message, error) {
	return message(job, url, v1.CallbackBody{Type: "job." + string(status), Timestamp: stored, Data: json.RawMessage(result)})
}

// OfReport makes the callback of a report whose images all have outcomes.
func OfReport(r v1.Report, url string, at time.Time) (bus.Message, error) {
	return message(r.ID, url, v1.CallbackBody{Type: "report.done", Timestamp: at, Data: r})
}

func message(id, url string, b v1.CallbackBody) (bus.Message, error) {
	body, err := json.Marshal(b)
	if err != nil {
		return bus.Message{}, fmt.Errorf("encode the callback of %s: %w", id, err)
	}
	h := nats.Header{}
	h.Set(v1.HeaderCallback, url)
	return bus.Message{
		Subject: subject.Callbacks(id), Stream: streams.Callbacks,
		ID: v1.MsgID(id, "callbacks"), Header: h, Body: body,
	}, nil
}
