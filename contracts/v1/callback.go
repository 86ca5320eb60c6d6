package v1

import "time"

// CallbackState is the state of a webhook.
type CallbackState string

// The states of a webhook. Delivered and Failed are final.
const (
	WebhookPending   CallbackState = "pending"
	WebhookDelivered CallbackState = "delivered"
	WebhookFailed    CallbackState = "failed"
)

// Callback is the state of the webhook of a job or report.
type Callback struct {
	State CallbackState `json:"state"` // state of the webhook
	// Attempts is the number of attempts that were made.
	Attempts int `json:"attempts"`
	// Error is the error of the last attempt, if it failed.
	Error string `json:"error,omitempty"`
	// Next is the time of the next attempt, for a pending webhook after a failed attempt.
	Next time.Time `json:"next,omitzero"`
}

// WebhookReportDone is the type of the webhook call of a report.
const WebhookReportDone = "report.done"

// WebhookJob returns the type of the webhook call of a job with the status done or
// failed.
func WebhookJob(status Status) string { return "job." + string(status) }

// CallbackBody is the body of a webhook call, as the Standard Webhooks specification
// recommends.
type CallbackBody struct {
	// Type is job.done, job.failed or report.done.
	Type string `json:"type"`
	// Timestamp is the time of the event.
	Timestamp time.Time `json:"timestamp"`
	// Data is the [Result] of the job, or the [Report] without its images.
	Data any `json:"data" jsonschema:"type=object"`
}
