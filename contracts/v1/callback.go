package v1

import "time"

// CallbackState says where a callback is.
type CallbackState string

// The states of a callback. Delivered and Failed are final.
const (
	CallbackPending   CallbackState = "pending"
	CallbackDelivered CallbackState = "delivered"
	CallbackFailed    CallbackState = "failed"
)

// Callback is how the callback of a job or report goes.
type Callback struct {
	State CallbackState `json:"state"` // where the webhook is
	// Attempts that were made.
	Attempts int `json:"attempts"`
	// Error of the last attempt, if it failed.
	Error string `json:"error,omitempty"`
	// Next is when the next attempt is due, for a pending callback that was
	// tried.
	Next time.Time `json:"next,omitzero"`
}

// CallbackReportDone is the type of the callback of a report.
const CallbackReportDone = "report.done"

// CallbackJob returns the type of the callback of a job with the status done or
// failed.
func CallbackJob(status Status) string { return "job." + string(status) }

// CallbackBody is what a callback URL gets: the payload that the Standard
// Webhooks specification recommends.
type CallbackBody struct {
	// Type is job.done, job.failed or report.done.
	Type string `json:"type"`
	// Timestamp is when it happened.
	Timestamp time.Time `json:"timestamp"`
	// Data is the [Result] of the job, or the [Report] without its images.
	Data any `json:"data" jsonschema:"type=object"`
}
