package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/gorilla/mux"
)

// proxies determines how clients reach the mesh: at its public URL, or through proxies whose X-Forwarded-*
// headers are trusted.
type proxies struct {
	public  *url.URL // nil when not configured
	trusted []netip.Prefix
	// router has the paths before which a prefix is removed.
	router *mux.Router
}

// ParsePublicURL parses the URL at which clients reach the mesh, such as https://example.com/vision. It
// returns nil for "".
func ParsePublicURL(text string) (*url.URL, error) {
	if text == "" {
		return nil, nil //nolint:nilnil // not configured
	}
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, err
	case u.Scheme != "http" && u.Scheme != "https", u.Host == "", u.User != nil, strings.ContainsAny(text, "?#"):
		return nil, fmt.Errorf("%q, want http or https, a host, and a path or none", text)
	}
	u.Host, u.Path, u.RawPath = normalizedHost(u), strings.TrimRight(u.Path, "/"), strings.TrimRight(u.RawPath, "/")
	if u.Path != "" && path.Clean(u.Path) != u.Path {
		return nil, fmt.Errorf("%q, want a path without empty, . and .. elements", text)
	}
	return u, nil
}

// parsePrefix parses the header X-Forwarded-Prefix, a path such as /vision. It returns an empty URL for a text that is
// not a clean path.
func parsePrefix(text string) *url.URL {
	u, err := url.Parse(strings.TrimRight(text, "/"))
	if err != nil || !strings.HasPrefix(text, "/") || strings.HasPrefix(text, "//") || strings.ContainsAny(text, "?#") ||
		path.Clean(u.Path) != u.Path {
		return &url.URL{}
	}
	return &url.URL{Path: u.Path, RawPath: u.RawPath}
}

// normalizedHost returns the host of a URL as browsers write it in an origin: in lower case, without the
// default port.
func normalizedHost(u *url.URL) string {
	host := strings.ToLower(u.Host)
	if u.Scheme == "https" {
		return strings.TrimSuffix(host, ":443")
	}
	return strings.TrimSuffix(host, ":80")
}

// forwarded describes the URL of a request as its client has sent it.
type forwarded struct {
	// scheme is http or https.
	scheme string
	// base is the prefix of the addresses in a response.
	base string
}

// resolve returns the request as its client has sent it, with the address of the client, its host, and the
// path without prefix.
func (p *proxies) resolve(r *http.Request) (*http.Request, forwarded) {
	if p.public == nil && len(p.trusted) == 0 {
		return r, forwarded{scheme: "http"}
	}
	f := forwarded{scheme: "http"}
	r = r.Clone(r.Context())
	prefix := &url.URL{}
	if p.isTrusted(r.RemoteAddr) {
		r.RemoteAddr = p.clientAddr(r)
		if host := firstValue(r.Header.Get("X-Forwarded-Host")); host != "" {
			r.Host = host
		}
		prefix = parsePrefix(firstValue(r.Header.Get("X-Forwarded-Prefix")))
		if firstValue(r.Header.Get("X-Forwarded-Proto")) == "https" {
			f.scheme = "https"
		}
	}
	f.base = prefix.EscapedPath()
	if p.public != nil {
		f.scheme, f.base, prefix = p.public.Scheme, p.public.String(), p.public
	}
	p.removePrefix(r, prefix.Path)
	return r, f
}

// removePrefix removes a prefix from the path of a request if the rest is the path of a route. Otherwise the proxy has
// removed the prefix, and a prefix such as /v1 is part of a route.
func (p *proxies) removePrefix(r *http.Request, prefix string) {
	rest, ok := strings.CutPrefix(r.URL.Path, prefix+"/")
	if !ok || prefix == "" {
		return
	}
	whole := *r.URL
	r.URL.Path, r.URL.RawPath = "/"+rest, ""
	var match mux.RouteMatch
	if !p.router.Match(r, &match) || errors.Is(match.MatchErr, mux.ErrNotFound) {
		r.URL = &whole
	}
}

// forwardedKey is the key of a forwarded in a context.
type forwardedKey struct{}

// getForwarded returns the forwarded of a request.
func getForwarded(r *http.Request) forwarded {
	if f, ok := r.Context().Value(forwardedKey{}).(forwarded); ok {
		return f
	}
	return forwarded{scheme: "http"}
}

// handler calls h with requests as their clients have sent them.
func (p *proxies) handler(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r, f := p.resolve(r)
		h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), forwardedKey{}, f)))
	})
}

// isTrusted reports whether the X-Forwarded-* headers of a peer with this address are trusted.
func (p *proxies) isTrusted(addr string) bool {
	if host, _, err := net.SplitHostPort(addr); err == nil {
		addr = host
	}
	ip, err := netip.ParseAddr(strings.TrimSpace(addr))
	if err != nil {
		return false
	}
	ip = ip.Unmap().WithZone("")
	return slices.ContainsFunc(p.trusted, func(n netip.Prefix) bool { return n.Contains(ip) })
}

// clientAddr returns the address of the client: the last address in X-Forwarded-For that is not of a trusted
// proxy. The client itself may have written the addresses before it.
func (p *proxies) clientAddr(r *http.Request) string {
	addrs := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for _, addr := range slices.Backward(addrs) {
		addr = strings.TrimSpace(addr)
		if addr == "" || p.isTrusted(addr) {
			continue
		}
		if _, err := netip.ParseAddrPort(addr); err == nil {
			return addr
		}
		if ip, err := netip.ParseAddr(addr); err == nil {
			return netip.AddrPortFrom(ip, 0).String()
		}
		break // the addresses before it are not trusted
	}
	return r.RemoteAddr
}

// firstValue returns the first of comma-separated values, which the proxy has set that the client connects
// to.
func firstValue(values string) string {
	value, _, _ := strings.Cut(values, ",")
	return strings.TrimSpace(value)
}
