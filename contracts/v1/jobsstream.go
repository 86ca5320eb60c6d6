package v1

// Attempts is the body of a message of JOBS that counts the attempts to process
// one part of a job, or to fetch one image of a report.
type Attempts struct {
	Attempts int `json:"attempts"`
}

// KeyClaim is the body of the message of JOBS of an idempotency key.
type KeyClaim struct {
	// ID is the job or report of the first request with the key.
	ID string `json:"id"`
	// Fingerprint tells what that request was for: SHA-256 in lower-case hex.
	Fingerprint string `json:"fingerprint"`
}
