package v1

import "time"

// EventName is the name of an event of a job or report.
type EventName string

// The events. A job has detecting each time that a worker has started and not finished
// it within some milliseconds, classifying in the same way for each part, and one done or
// failed. A report has image for each outcome, and one done. Clients that watch over HTTP
// get accepted as the first event.
const (
	EventAccepted    EventName = "accepted"
	EventDetecting   EventName = "detecting"
	EventClassifying EventName = "classifying"
	EventImage       EventName = "image"
	EventDone        EventName = "done"
	EventFailed      EventName = "failed"
)

// Event is the body of an event message: a hint for clients that watch a job or report.
// It is published once and not stored. The state that it reports is stored before.
type Event struct {
	ID    string    `json:"id"`    // ID of the job or report
	Event EventName `json:"event"` // what happened
	At    time.Time `json:"at"`    // when it happened
	// Part is the part of the image that is being classified.
	Part int `json:"part,omitempty"`
	// Image is the number of the image of the report that has its outcome.
	Image *int `json:"image,omitempty"`
	// Status is the outcome of that image, or the state of the job in the first event.
	Status Status `json:"status,omitempty"`
	// Counts are those of the report after this event.
	Counts *Counts `json:"counts,omitempty"`
}

// Cancellation is the reply to a request to cancel a job.
type Cancellation struct {
	ID string `json:"id"` // ID of the job
	// Was is the state of the job before: queued, or running when a worker had it. The
	// worker may finish its work; its outcome is ignored.
	Was Status `json:"was"`
	// Status of the job now: failed, with the problem cancelled.
	Status Status `json:"status"`
}
