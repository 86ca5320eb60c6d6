// Package fetch downloads images from URLs that clients send. All connections of the
// mesh to such URLs use its transport.
//
// The transport never connects to an address that is not public, unless the operator
// allows it. It checks every address when it dials, after name resolution and after
// every redirect. A name that resolves to another address the second time, or a
// redirect, cannot bypass the check.
package fetch

import (
	"compress/flate"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"

	"code.dny.dev/ssrf"

	"github.com/sightmesh/sightmesh/contracts/retry"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/ingress/internal/body"
)

// Timeout is the time limit of a fetch in a mesh.
const Timeout = 30 * time.Second

// Config is the configuration of a [Fetcher]. All fields but Allow and Resolver are required.
type Config struct {
	// MaxBytes is the largest size of an image, after decompression.
	MaxBytes int64
	// Timeout is the time limit of a fetch, redirects included.
	Timeout time.Duration
	// PerHost is the maximum of concurrent fetches from one host.
	PerHost int
	// Allow lists networks that are allowed although they are not public.
	Allow []netip.Prefix
	// Resolver resolves names. nil means the resolver of the system.
	Resolver *net.Resolver
}

const (
	maxRedirects   = 3
	connectTimeout = 5 * time.Second
	userAgent      = "sightmesh/1 (+https://github.com/sightmesh/sightmesh)"
)

// A Fetcher downloads images. It is safe for concurrent use by multiple goroutines.
type Fetcher struct {
	cfg    Config
	client *http.Client
	hosts  *HostLimiter
}

// New returns a Fetcher. The caller calls Close.
func New(cfg Config) *Fetcher {
	f := &Fetcher{cfg: cfg, hosts: NewHostLimiter(cfg.PerHost)}
	f.client = &http.Client{
		Transport: NewTransport(cfg),
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if len(via) > maxRedirects {
				return v1.NewProblem(v1.FetchFailed, "more than %d redirects", maxRedirects).WithLimit(maxRedirects)
			}
			r.Header.Del("Referer")
			return checkURL(r.URL)
		},
	}
	return f
}

// NewTransport returns a transport that connects only to public addresses and to the
// networks that cfg allows. Dialing another address fails with [v1.URLRefused]. The
// transport uses no proxy.
func NewTransport(cfg Config) *http.Transport {
	var v4, v6 []netip.Prefix
	for _, p := range cfg.Allow {
		if p.Addr().Is4() {
			v4 = append(v4, p)
		} else {
			v6 = append(v6, p)
		}
	}
	guard := ssrf.New(ssrf.WithAnyPort(), ssrf.WithAllowedV4Prefixes(v4...), ssrf.WithAllowedV6Prefixes(v6...))
	dialer := &net.Dialer{
		Timeout: connectTimeout, Resolver: cfg.Resolver,
		Control: func(network, address string, c syscall.RawConn) error {
			if err := guard.Safe(network, address, c); err != nil {
				return v1.NewProblem(v1.URLRefused, "the address it leads to is not a public one").WithField("url")
			}
			return nil
		},
	}
	return &http.Transport{
		DialContext:            dialer.DialContext,
		TLSHandshakeTimeout:    connectTimeout,
		ResponseHeaderTimeout:  10 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true,
		ForceAttemptHTTP2:      true,
		MaxIdleConnsPerHost:    2,
		IdleConnTimeout:        30 * time.Second,
	}
}

// Close closes idle connections.
func (f *Fetcher) Close() { f.client.CloseIdleConnections() }

func newProblem(code v1.Code, format string, args ...any) error {
	return v1.NewProblem(code, format, args...).WithField("url")
}

func newTransientProblem(after time.Duration, format string, args ...any) error {
	return retry.After(newProblem(v1.FetchFailed, format, args...), after)
}

// ErrBusy is the error when a host has no free permit.
var ErrBusy = errors.New("the limit of concurrent work with this host is reached")

// Fetch downloads the image at a URL, after it has acquired a permit of the host. Every
// error wraps a [*v1.Problem], url-refused, fetch-failed or too-large, unless ctx was
// cancelled. A transient error is a [*retry.Error] with the delay that the host has
// requested.
func (f *Fetcher) Fetch(ctx context.Context, raw string) ([]byte, error) {
	return f.FetchBounded(ctx, raw, growUnbounded)
}

// growUnbounded is a grow function without a limit.
func growUnbounded(int64) error { return nil }

// FetchBounded is like Fetch, but calls grow before it allocates memory for n more
// bytes. It returns the error of grow, which must be a [*retry.Error] or [*v1.Problem].
func (f *Fetcher) FetchBounded(ctx context.Context, raw string, grow func(n int64) error) ([]byte, error) {
	u, err := parseURL(raw)
	if err != nil {
		return nil, err
	}
	// The wait for other fetches does not count for the time limit of the host.
	wait, cancel := context.WithTimeout(ctx, f.cfg.Timeout)
	defer cancel()
	release, err := f.hosts.Acquire(wait, u.Host)
	if err != nil && ctx.Err() == nil {
		return nil, newTransientProblem(0, "other pictures of its host took longer than %v", f.cfg.Timeout)
	}
	if err != nil {
		return nil, f.classifyError(ctx, err)
	}
	defer release()
	return f.fetch(ctx, u, grow)
}

// A Permit allows one fetch from the host of a URL.
type Permit struct {
	fetcher *Fetcher
	address *url.URL
	// Release returns the permit.
	Release func()
}

// TryAcquire acquires a permit of the host of a URL without waiting. It returns [ErrBusy]
// when no permit is free, and a [*v1.Problem] for an invalid URL.
func (f *Fetcher) TryAcquire(raw string) (*Permit, error) {
	u, err := parseURL(raw)
	if err != nil {
		return nil, err
	}
	release, err := f.hosts.TryAcquire(u.Host)
	if err != nil {
		return nil, err
	}
	return &Permit{f, u, release}, nil
}

// Fetch downloads the image of the permit. See [Fetcher.Fetch] for its errors.
func (s *Permit) Fetch(ctx context.Context) ([]byte, error) {
	return s.fetcher.fetch(ctx, s.address, growUnbounded)
}

func parseURL(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, newProblem(v1.URLRefused, "it is not a URL")
	}
	if err := checkURL(u); err != nil {
		return nil, err
	}
	return u, nil
}

func checkURL(u *url.URL) error {
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return v1.NewProblem(v1.URLRefused, "its scheme is %.20q, want http or https", u.Scheme).WithField("url")
	case u.Host == "" || u.Opaque != "":
		return v1.NewProblem(v1.URLRefused, "it names no host").WithField("url")
	case u.User != nil:
		return v1.NewProblem(v1.URLRefused, "it contains a user or password").WithField("url")
	}
	return nil
}

// fetch downloads the image at u within the time limit.
func (f *Fetcher) fetch(ctx context.Context, u *url.URL, grow func(int64) error) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, f.cfg.Timeout)
	defer cancel()
	image, err := f.download(ctx, u, grow)
	if err != nil {
		return nil, f.classifyError(ctx, err)
	}
	return image, nil
}

func (f *Fetcher) download(ctx context.Context, u *url.URL, grow func(int64) error) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("fetch: %w", err)
	}
	req.Header.Set("User-Agent", userAgent)
	req.Header.Set("Accept", "image/*")
	resp, err := f.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("fetch: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, statusError(resp)
	}
	if resp.ContentLength > f.cfg.MaxBytes {
		return nil, f.tooLarge()
	}
	content, err := f.decode(resp)
	if err != nil {
		return nil, err
	}
	image, err := body.ReadAll(io.LimitReader(content, f.cfg.MaxBytes+1), grow, f.cfg.MaxBytes+1)
	if err != nil {
		return nil, fmt.Errorf("fetch: %w", err)
	}
	if int64(len(image)) > f.cfg.MaxBytes {
		return nil, f.tooLarge()
	}
	return image, nil
}

// decode returns the decompressed content of a response. Some hosts send gzip although the request does not accept
// it, such as object stores whose files have a content coding. The compressed bytes have the same limit as the image,
// because a gzip stream can be endless and empty.
func (f *Fetcher) decode(resp *http.Response) (io.Reader, error) {
	switch coding := strings.ToLower(resp.Header.Get("Content-Encoding")); coding {
	case "", "identity":
		return resp.Body, nil
	case "gzip", "x-gzip":
		content, err := gzip.NewReader(http.MaxBytesReader(nil, resp.Body, f.cfg.MaxBytes))
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, fmt.Errorf("fetch: %w", err)
		}
		return content, nil
	default:
		return nil, newProblem(v1.FetchFailed, "the host sent Content-Encoding %.20q, want gzip or none", coding)
	}
}

func statusError(resp *http.Response) error {
	switch {
	case resp.StatusCode >= http.StatusInternalServerError, resp.StatusCode == http.StatusTooManyRequests,
		resp.StatusCode == http.StatusRequestTimeout:
		return newTransientProblem(retry.ParseAfter(resp.Header.Get("Retry-After")), "the host answered %d", resp.StatusCode)
	}
	return newProblem(v1.FetchFailed, "the host answered %d", resp.StatusCode)
}

func (f *Fetcher) tooLarge() error {
	return v1.NewProblem(v1.TooLarge, "a picture may have %d bytes",
		f.cfg.MaxBytes).WithField("url").WithLimit(f.cfg.MaxBytes)
}

// classifyError returns the error for the client. It leaves out texts of network errors,
// because they can reveal what is behind a firewall.
func (f *Fetcher) classifyError(ctx context.Context, err error) error {
	var transient *retry.Error
	var p *v1.Problem
	var dns *net.DNSError
	var tooLarge *http.MaxBytesError
	var corrupt flate.CorruptInputError
	switch {
	case errors.As(err, &transient):
		return transient
	case errors.As(err, &p): // also an error of the dialer or of a redirect
		return p
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return newTransientProblem(0, "the fetch took longer than %v", f.cfg.Timeout)
	case errors.As(err, &dns) && dns.IsNotFound:
		return newTransientProblem(0, "its host has no address")
	case errors.As(err, &tooLarge):
		return f.tooLarge()
	case errors.Is(err, gzip.ErrHeader), errors.Is(err, gzip.ErrChecksum), errors.As(err, &corrupt):
		return newProblem(v1.FetchFailed, "the host sent Content-Encoding gzip, but the content is not gzip")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return newTransientProblem(0, "the host ended the picture before it was complete")
	}
	return newTransientProblem(0, "the host cannot be reached, or does not speak HTTP")
}
