package v1

// Attempts is the body of a JOBS message that counts the attempts to process a part of a
// job, or to fetch an image of a report.
type Attempts struct {
	Attempts int `json:"attempts"`
}

// KeyClaim is the body of the JOBS message of an idempotency key.
type KeyClaim struct {
	// ID is the job or report of the first request with the key.
	ID string `json:"id"`
	// Fingerprint identifies the content of that request: SHA-256 in lower-case hex.
	Fingerprint string `json:"fingerprint"`
}
