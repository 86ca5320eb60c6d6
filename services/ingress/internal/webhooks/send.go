package webhooks

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	webhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/sightmesh/sightmesh/contracts/retry"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// sendTimeout is the time limit of one attempt.
const sendTimeout = 15 * time.Second

// poster posts signed payloads as the Standard Webhooks specification defines
// (https://www.standardwebhooks.com).
type poster struct {
	client  *http.Client
	secrets Secrets
}

// newPoster returns a poster that signs with every secret.
func newPoster(rt http.RoundTripper, secrets Secrets) *poster {
	return &poster{secrets: secrets, client: &http.Client{
		Transport: rt, Timeout: sendTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Secrets sign webhooks. Each webhook has a signature by each of them, so that receivers can rotate secrets.
type Secrets []*webhooks.Webhook

// ParseSecrets parses secrets, each of which is "whsec_" and 24 to 64 bytes in base64. The error has the number of
// the invalid secret, beginning with 1, and not its text.
func ParseSecrets(texts []string) (Secrets, error) {
	var secrets Secrets
	for i, text := range texts {
		raw, ok := strings.CutPrefix(text, "whsec_")
		key, err := base64.StdEncoding.DecodeString(raw)
		if !ok || err != nil || len(key) < 24 || len(key) > 64 {
			return nil, fmt.Errorf("webhook secret %d: want whsec_ and 24 to 64 bytes in base64", i+1)
		}
		w, err := webhooks.NewWebhookRaw(key)
		if err != nil {
			return nil, fmt.Errorf("webhook secret %d: %w", i+1, err)
		}
		secrets = append(secrets, w)
	}
	return secrets, nil
}

// post makes one attempt. A transient error is a [*retry.Error]. After any other error no further attempt is
// made. The text of an error is for the client.
func (s *poster) post(ctx context.Context, url, id string, payload []byte) error {
	now := time.Now()
	var signatures []string
	for _, w := range s.secrets {
		sig, err := w.Sign(id, now, payload)
		if err != nil {
			return fmt.Errorf("cannot sign: %w", err)
		}
		signatures = append(signatures, sig)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(payload))
	if err != nil {
		return errors.New("the URL cannot be used")
	}
	if req.URL.User != nil { // a job that a client publishes over NATS is not checked before; net/http would send it
		return errors.New("the URL contains a user or password")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "sightmesh/1 (+https://github.com/sightmesh/sightmesh)")
	req.Header.Set(webhooks.HeaderWebhookID, id)
	req.Header.Set(webhooks.HeaderWebhookTimestamp, strconv.FormatInt(now.Unix(), 10))
	req.Header.Set(webhooks.HeaderWebhookSignature, strings.Join(signatures, " "))
	resp, err := s.client.Do(req)
	if err != nil {
		var p *v1.Problem
		if errors.As(err, &p) { // of the dialer
			return errors.New(p.Detail)
		}
		return retry.After(errors.New("the receiver cannot be reached, or did not answer in time"), 0)
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 4<<10) // allows the reuse of the connection
	return checkStatus(resp)
}

// checkStatus returns the error of a response, or nil for a status 2xx.
func checkStatus(resp *http.Response) error {
	if resp.StatusCode/100 == 2 {
		return nil
	}
	err := fmt.Errorf("the receiver answered %d", resp.StatusCode)
	if resp.StatusCode == http.StatusGone {
		return err
	}
	return retry.After(err, retry.ParseAfter(resp.Header.Get("Retry-After")))
}
