package httpapi

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/rs/cors"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// preflightAge is how long a browser may cache the response to a preflight request.
const preflightAge = 10 * time.Minute

// exposedHeaders are the response headers that pages of other origins can read.
var exposedHeaders = []string{
	"Allow", "Content-Location", "Etag", "Location", "Preference-Applied", "Retry-After", "Server-Timing", "Traceparent",
	"X-Request-Id",
}

// origins decides which web pages may use the mesh: those of its own origin, and those of the configured
// origins.
type origins struct {
	any     bool
	protect *http.CrossOriginProtection
	cors    *cors.Cors // nil when no other origin is allowed
}

// newOrigins returns origins that allow the pages of others, each such as https://app.example, or * for all.
// own is the origin of the mesh, or "" when it follows from each request.
func newOrigins(others []string, own string) (*origins, error) {
	o := &origins{any: slices.Contains(others, "*"), protect: http.NewCrossOriginProtection()}
	if own != "" {
		if err := o.protect.AddTrustedOrigin(own); err != nil {
			return nil, fmt.Errorf("trust the own origin: %w", err)
		}
	}
	if len(others) == 0 {
		return o, nil
	}
	if o.any && len(others) > 1 {
		return nil, errors.New("* allows all origins, and cannot be combined with others")
	}
	others = slices.Clone(others)
	for i, origin := range others {
		if origin == "*" {
			continue
		}
		u, err := url.Parse(origin)
		if err == nil && strings.Contains(u.Host, "*") {
			err = errors.New("a * can only be a whole entry, for all origins")
		}
		if err == nil {
			u.Host = normalizedHost(u)
			others[i] = u.String()
			err = o.protect.AddTrustedOrigin(others[i])
		}
		if err != nil {
			return nil, fmt.Errorf("%q: want an origin such as https://app.example: %w", origin, err)
		}
	}
	o.cors = cors.New(cors.Options{
		AllowedOrigins: others, AllowedHeaders: []string{"*"}, ExposedHeaders: exposedHeaders,
		AllowedMethods: []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodDelete},
		MaxAge:         int(preflightAge.Seconds()),
		// The router responds to OPTIONS, with Allow and the ID of the request.
		OptionsPassthrough: true,
	})
	return o, nil
}

// handler allows the pages of the configured origins to send requests to h and to read its responses. h responds to
// preflight requests, as to OPTIONS.
func (o *origins) handler(h http.Handler) http.Handler {
	if o.cors == nil {
		return h
	}
	return o.cors.Handler(h)
}

// isPreflight reports whether a browser asks whether a page may send a request.
func isPreflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != ""
}

// check returns a problem for a request that changes state, when it comes from a page of another origin. Programs other
// than browsers send neither Origin nor Sec-Fetch-Site.
func (o *origins) check(r *http.Request) error {
	if o.any || o.protect.Check(r) == nil {
		return nil
	}
	const advice = "pages of other origins need the flag cors-origins"
	origin := r.Header.Get("Origin")
	if origin == "" {
		return v1.NewProblem(v1.CrossOrigin, "a page of another origin sent this; "+advice).WithField("Sec-Fetch-Site")
	}
	p := v1.NewProblem(v1.CrossOrigin, "a page of %.100q sent this; "+advice, origin).WithField("Origin")
	if r.Header.Get("Sec-Fetch-Site") == "" { // the decision is by the host
		p.Detail += fmt.Sprintf("; if the page is of this mesh, whose host is %.100q here, the proxy has to pass the host "+
			"of the client in Host, or in X-Forwarded-Host with the flag trusted-proxies, or the flag public-url has to name it",
			r.Host)
	}
	return p
}

// checkSession is [origins.check] for a request that opens a session, a GET that pages of every origin can send.
func (o *origins) checkSession(r *http.Request) error {
	r = r.Clone(r.Context())
	r.Method = http.MethodPost
	return o.check(r)
}

// urlOrigin returns the origin of a URL.
func urlOrigin(u *url.URL) string { return u.Scheme + "://" + u.Host }
