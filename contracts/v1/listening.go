package v1

import "encoding/json"

// ListeningMessage is the message of a [Listening] log line.
const ListeningMessage = "listening"

// Listening is the log line with the address of a server of a process. A program that
// starts a process on port 0 reads it from standard error. Other fields of the line are
// ignored.
type Listening struct {
	// Message is [ListeningMessage].
	Message string `json:"msg"`
	// Name is the name of the server: http or admin.
	Name string `json:"name"`
	// Addr is the address as host:port.
	Addr string `json:"addr"`
}

// ParseListening parses a log line. ok reports whether it is a [Listening].
func ParseListening(line []byte) (l Listening, ok bool) {
	if err := json.Unmarshal(line, &l); err != nil || l.Message != ListeningMessage {
		return Listening{}, false
	}
	return l, true
}
