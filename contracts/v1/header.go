package v1

import "strconv"

// Headers of NATS messages. NATS header names are case-sensitive: these are
// the exact spellings.
const (
	HeaderDeadline = "Sight-Deadline"     // RFC 3339, after it the job is failed and not worked on
	HeaderAccepted = "Sight-Accepted"     // RFC 3339, when the mesh took the job
	HeaderReply    = "Sight-Reply"        // subject that gets the answer once it is stored
	HeaderMetadata = "Sight-Metadata"     // JSON object of strings that comes back with the answer
	HeaderCallback = "Sight-Callback"     // URL that is called with the answer
	HeaderReport   = "Sight-Report"       // <report>/<n>/<total>: the job is image n (from 0) of a report
	HeaderPriority = "Sight-Priority"     // requests to analyze only: interactive or bulk
	HeaderMinScore = "Sight-Min-Score"    // requests to analyze only: lowest score of a region in the reply
	HeaderLabels   = "Sight-Labels"       // requests to analyze only: labels of the regions in the reply, with commas
	HeaderTop      = "Sight-Top"          // requests to analyze only: most regions in the reply
	HeaderKey      = "Idempotency-Key"    // requests to analyze only: requests with the same key are one job
	HeaderMarker   = "Nats-Marker-Reason" // RESULTS only, by the NATS server: an answer was here
	HeaderStored   = "Sight-Stored"       // replies only: RFC 3339, when the answer was stored
	HeaderPiece    = "Sight-Piece"        // replies to draw only: <n>/<total>, piece n (from 0) of the image
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

// What of a job or report a message is, for [MsgID].
const (
	MsgImages     = "images"
	MsgCrops      = "crops"
	MsgParts      = "parts"
	MsgResults    = "results"
	MsgQuarantine = "quarantine"
	MsgFetches    = "fetches"
	MsgReports    = "reports" // a manifest, or the outcome of an image
	MsgFinished   = "finished"
	MsgCallbacks  = "callbacks"
)

// MsgID returns the Nats-Msg-Id of what a job or report publishes: its id, what
// the message is and, where there are several, its numbers.
func MsgID(id, what string, numbers ...int) string {
	s := id + "." + what
	for _, n := range numbers {
		s += "." + strconv.Itoa(n)
	}
	return s
}

// HTTPMetadataPrefix begins the headers with the metadata of an image, of requests over
// HTTP and of requests to analyze. The rest of the name, in lower case, is the key.
const HTTPMetadataPrefix = "X-Sight-Meta-"
