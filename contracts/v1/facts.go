package v1

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// encodeFacts returns the body of a message: facts as one line of JSON, a newline, and
// bytes.
func encodeFacts(facts any, content ...[]byte) ([]byte, error) {
	line, err := json.Marshal(facts)
	if err != nil {
		return nil, err
	}
	n := len(line) + 1
	for _, b := range content {
		n += len(b)
	}
	body := append(append(make([]byte, 0, n), line...), '\n')
	for _, b := range content {
		body = append(body, b...)
	}
	return body, nil
}

// decodeFacts decodes such a body. The returned bytes are a slice of body.
func decodeFacts(body []byte, facts any) (content []byte, err error) {
	line, content, ok := bytes.Cut(body, []byte{'\n'})
	if !ok {
		return nil, errors.New("no newline after the facts")
	}
	if err := json.Unmarshal(line, facts); err != nil {
		return nil, fmt.Errorf("facts: %w", err)
	}
	return content, nil
}
