package v1

import "time"

// EventName says what happened to a job or report.
type EventName string

// The events there are. Of a job: detecting each time that a worker has begun
// and not ended within some milliseconds, classifying likewise for each part,
// one done or failed. Of a report: one image for each outcome, one done.
// Accepted is only told to who watches over HTTP, as the first event.
const (
	EventAccepted    EventName = "accepted"
	EventDetecting   EventName = "detecting"
	EventClassifying EventName = "classifying"
	EventImage       EventName = "image"
	EventDone        EventName = "done"
	EventFailed      EventName = "failed"
)

// Event is the body of an EVENTS message: a hint for who watches, told once
// and kept nowhere. What it says is stored before it is told.
type Event struct {
	ID    string    `json:"id"`    // ID of the job or report
	Event EventName `json:"event"` // what happened
	At    time.Time `json:"at"`    // when it happened
	// Part is the part of the picture that is being classified.
	Part int `json:"part,omitempty"`
	// Image is the number of the report's image that has its outcome.
	Image *int `json:"image,omitempty"`
	// Status is the outcome of that image, or where the job is, in the first event.
	Status Status `json:"status,omitempty"`
	// Counts of the report after this event.
	Counts *Counts `json:"counts,omitempty"`
}

// Cancellation is the reply to the wish that a job be dropped.
type Cancellation struct {
	ID string `json:"id"` // ID of the job
	// Was is where the job was: queued, or running when a worker has it. What
	// a worker has it may still finish, and its outcome counts for nothing.
	Was Status `json:"was"`
	// Status of the job now: failed, with the problem cancelled.
	Status Status `json:"status"`
}
