package intake

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// MaxKey is the maximum length of an idempotency key, in bytes.
const MaxKey = 255

// MaxURL is the maximum length of the URL of an image in every form of request, in bytes.
// Messages carry it in their body.
const MaxURL = 8192

// Limits of what a client can set for a job. Messages carry it in their headers.
const (
	maxWebhookURL   = 2048 // bytes
	maxMetadata     = 16   // entries
	maxMetadataName = 40   // bytes
	maxMetadataSize = 4096 // bytes of all names and values
)

// ErrNoWebhooks is the error when the mesh sends no webhooks.
var ErrNoWebhooks = errors.New("this mesh has no secret to sign webhooks with, and sends none")

// A limitError is the error of a field that exceeds a limit.
type limitError struct {
	limit int64
	text  string
}

// Error returns a text that continues the name of the field.
func (e *limitError) Error() string { return e.text }

// newLimitError returns the error of a field that exceeds limit.
func newLimitError(limit int64, format string, args ...any) error {
	return &limitError{limit, fmt.Sprintf(format, args...)}
}

// FieldProblem returns the problem of a field with an error of [Intake.CheckWebhookURL],
// [CheckURL] or [CheckMetadata]. The problem has the limit that the field exceeds.
func FieldProblem(code v1.Code, field string, err error) *v1.Problem {
	p := v1.NewProblem(code, "%.60s %v", field, err).WithField(field)
	if over, ok := errors.AsType[*limitError](err); ok {
		p.Limit = over.limit
	}
	return p
}

// CheckWebhookURL returns an error when no webhook would be sent to the URL:
// [ErrNoWebhooks], or an error whose text continues the name of the parameter.
func (i *Intake) CheckWebhookURL(raw string) error {
	if !i.cfg.Webhooks {
		return ErrNoWebhooks
	}
	if len(raw) > maxWebhookURL {
		return newLimitError(maxWebhookURL, "is longer than %d bytes", maxWebhookURL)
	}
	u, err := parseURL(raw)
	if err == nil && u.User != nil {
		err = errors.New("contains a user or password")
	}
	return err
}

// CheckURL checks the syntax and the scheme of a URL, but not its length. The text of the
// error continues the name of the parameter.
func CheckURL(raw string) error {
	_, err := parseURL(raw)
	return err
}

// parseURL parses an http or https URL. The error is that of [CheckURL].
func parseURL(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return nil, errors.New("is not a URL")
	case (u.Scheme != "http" && u.Scheme != "https") || u.Host == "":
		return nil, errors.New("is not an http or https URL")
	}
	return u, nil
}

// CheckMetadata checks the limits of metadata, and returns the name of the first invalid
// entry. The text of the error continues that name. CheckMetadata checks a value after all
// lengths, because a value that is far too long can be cut within a character.
func CheckMetadata(m map[string]string) (name string, err error) {
	total := 0
	for _, k := range slices.Sorted(maps.Keys(m)) {
		v := m[k]
		total += len(k) + len(v)
		switch {
		case k == "" || len(k) > maxMetadataName:
			return k, newLimitError(maxMetadataName, "has a name of %d characters, want 1 to %d", len(k), maxMetadataName)
		case !utf8.ValidString(k) || strings.ContainsFunc(k, unicode.IsControl):
			return fmt.Sprintf("%q", k), errors.New("has a name that is not UTF-8, or has control characters")
		case len(m) > maxMetadata:
			return k, newLimitError(maxMetadata, "is one of more than %d entries of metadata", maxMetadata)
		case total > maxMetadataSize:
			return k, newLimitError(maxMetadataSize, "is too long: metadata may have %d bytes", maxMetadataSize)
		case !utf8.ValidString(v):
			return k, errors.New("is not UTF-8")
		}
	}
	return "", nil
}
