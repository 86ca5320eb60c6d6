package v1

import "strconv"

// Headers of NATS messages. The names of NATS headers are case-sensitive.
const (
	HeaderDeadline = "Sight-Deadline"     // RFC 3339: after this time the job fails and is not processed
	HeaderAccepted = "Sight-Accepted"     // RFC 3339: when the mesh accepted the job
	HeaderReply    = "Sight-Reply"        // subject to which the result is published once it is stored
	HeaderMetadata = "Sight-Metadata"     // JSON object of strings that is returned with the result
	HeaderCallback = "Sight-Callback"     // URL of the webhook, which is called with the result
	HeaderReport   = "Sight-Report"       // <report>/<n>/<total>: the job is image n (from 0) of a report
	HeaderPriority = "Sight-Priority"     // requests to analyze only: interactive or bulk
	HeaderMinScore = "Sight-Min-Score"    // requests to analyze only: lowest score of a region in the reply
	HeaderLabels   = "Sight-Labels"       // requests to analyze only: labels of the regions in the reply, with commas
	HeaderTop      = "Sight-Top"          // requests to analyze only: most regions in the reply
	HeaderKey      = "Idempotency-Key"    // requests to analyze only: requests with the same key are one job
	HeaderMarker   = "Nats-Marker-Reason" // RESULTS only, by the NATS server: a result was deleted
	HeaderStored   = "Sight-Stored"       // replies only: RFC 3339, when the result was stored
	HeaderPiece    = "Sight-Piece"        // replies to draw only: <n>/<total>, piece n (from 0) of the image
	HeaderReason   = "Sight-Reason"       // QUARANTINE only: the problem code
	HeaderDetail   = "Sight-Detail"       // QUARANTINE only: the error, for people
	HeaderSubject  = "Sight-Subject"      // QUARANTINE only: the subject of the original message
)

// CopiedHeaders returns the names of the headers that are copied from a message to the
// next one of its job. No others are copied: the NATS server adds Nats-* headers that
// would change the meaning of the next publish.
func CopiedHeaders() []string {
	return []string{
		HeaderDeadline, HeaderAccepted, HeaderReply, HeaderMetadata, HeaderCallback, HeaderReport,
		"traceparent", "tracestate", "baggage",
	}
}

// Kinds of messages of a job or report, for [MsgID].
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

// MsgID returns the Nats-Msg-Id of a message of a job or report: the ID, the kind of the
// message and, where there are several, its numbers.
func MsgID(id, what string, numbers ...int) string {
	s := id + "." + what
	for _, n := range numbers {
		s += "." + strconv.Itoa(n)
	}
	return s
}

// HTTPMetadataPrefix is the prefix of the headers with metadata of an image, in HTTP
// requests and in requests to analyze. The rest of the name, in lower case, is the key.
const HTTPMetadataPrefix = "X-Sight-Meta-"
