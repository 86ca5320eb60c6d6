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
var ErrNoWebhooks = errors.New("this mesh has no secret to sign callbacks with, and sends none")

// CheckWebhookURL returns an error when no webhook would be sent to the URL:
// [ErrNoWebhooks], or an error whose text continues the name of the parameter.
func (i *Intake) CheckWebhookURL(raw string) error {
	if !i.cfg.Webhooks {
		return ErrNoWebhooks
	}
	if len(raw) > maxWebhookURL {
		return fmt.Errorf("is longer than %d bytes", maxWebhookURL)
	}
	return CheckURL(raw)
}

// CheckURL checks the syntax and the scheme of a URL, but not its length. The text of the
// error continues the name of the parameter.
func CheckURL(raw string) error {
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return errors.New("is not a URL")
	case (u.Scheme != "http" && u.Scheme != "https") || u.Host == "":
		return errors.New("is not an http or https URL")
	}
	return nil
}

// CheckMetadata checks the limits of metadata, and returns the name of the first invalid
// entry. The text of the error continues that name.
func CheckMetadata(m map[string]string) (name string, err error) {
	total := 0
	for _, k := range slices.Sorted(maps.Keys(m)) {
		v := m[k]
		total += len(k) + len(v)
		switch {
		case k == "" || len(k) > maxMetadataName:
			return k, fmt.Errorf("has a name of %d characters, want 1 to %d", len(k), maxMetadataName)
		case !utf8.ValidString(k) || strings.ContainsFunc(k, unicode.IsControl):
			return fmt.Sprintf("%q", k), errors.New("has a name that is not UTF-8, or has control characters")
		case !utf8.ValidString(v):
			return k, errors.New("is not UTF-8")
		case len(m) > maxMetadata:
			return k, fmt.Errorf("is one of %d entries, metadata may have %d", len(m), maxMetadata)
		case total > maxMetadataSize:
			return k, fmt.Errorf("is too long: metadata may have %d bytes", maxMetadataSize)
		}
	}
	return "", nil
}
