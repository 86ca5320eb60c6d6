package v1

// Headers of NATS messages. NATS header names are case-sensitive: these are
// the exact spellings.
const (
	HeaderDeadline = "Sight-Deadline"     // RFC 3339, after it the job is failed and not worked on
	HeaderAccepted = "Sight-Accepted"     // RFC 3339, when the mesh took the job
	HeaderReply    = "Sight-Reply"        // subject that gets the answer once it is stored
	HeaderMetadata = "Sight-Metadata"     // JSON object of strings that comes back with the answer
	HeaderCallback = "Sight-Callback"     // URL that is called with the answer
	HeaderReport   = "Sight-Report"       // <report>/<n>/<total>: the job is image n (from 0) of a report
	HeaderKey      = "Idempotency-Key"    // requests to analyze only: requests with the same key are one job
	HeaderMarker   = "Nats-Marker-Reason" // RESULTS only, by the NATS server: an answer was here
	HeaderStored   = "Sight-Stored"       // replies only: RFC 3339, when the answer was stored
	HeaderReason   = "Sight-Reason"       // QUARANTINE only: the problem code
	HeaderDetail   = "Sight-Detail"       // QUARANTINE only: what was seen, for a person
	HeaderSubject  = "Sight-Subject"      // QUARANTINE only: the subject the message was taken from
)

// TravelHeaders lists the headers that go from hop to hop with a job. Nothing
// else is copied: a NATS server adds Nats-* headers of its own that would
// change the meaning of the next publish.
func TravelHeaders() []string {
	return []string{HeaderDeadline, HeaderAccepted, HeaderReply, HeaderMetadata, HeaderCallback, HeaderReport, "traceparent", "tracestate", "baggage"}
}

// MsgID is the Nats-Msg-Id of what a job publishes: the job, what it is
// ("images", "crops", "parts", "results", "quarantine") and, where there are
// several, which.
func MsgID(job, what string) string { return job + "." + what }
