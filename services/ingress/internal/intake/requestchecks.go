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

// MaxKey bounds the bytes of an idempotency key.
const MaxKey = 255

// MaxURL bounds the bytes of the URL of an image, in every form of request. The bodies of
// messages hold it.
const MaxURL = 8192

// Bounds of what a client may say of a job. The headers of a message have to
// hold all of it.
const (
	maxWebhookURL   = 2048 // bytes
	maxMetadata     = 16   // entries
	maxMetadataName = 40   // bytes
	maxMetadataSize = 4096 // bytes of all names and values
)

// ErrNoWebhooks says that a callback is not possible.
var ErrNoWebhooks = errors.New("this mesh has no secret to sign callbacks with, and sends none")

// CheckWebhookURL returns an error when a callback to this URL would not be
// sent: [ErrNoWebhooks], or an error whose text goes on from the name of the parameter.
func (i *Intake) CheckWebhookURL(raw string) error {
	if !i.cfg.Webhooks {
		return ErrNoWebhooks
	}
	if len(raw) > maxWebhookURL {
		return fmt.Errorf("is longer than %d bytes", maxWebhookURL)
	}
	return CheckURL(raw)
}

// CheckURL checks what can be said of a URL without a look at the network, besides its
// length. The text of the error goes on from the name of the parameter.
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

// CheckMetadata checks metadata against its bounds, and returns the name of the
// entry that is wrong. The text of the error goes on from that name.
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
