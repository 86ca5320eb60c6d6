package httpapi

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// proxies knows how clients reach the mesh: at its public address, or through proxies
// whose X-Forwarded-* headers are believed.
type proxies struct {
	public  *url.URL // nil when none was given
	trusted []netip.Prefix
}

// ParsePublicURL reads the address at which clients reach the mesh, such as
// https://example.com/vision; nil for "".
func ParsePublicURL(text string) (*url.URL, error) {
	if text == "" {
		return nil, nil //nolint:nilnil // there is none
	}
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, err
	case u.Scheme != "http" && u.Scheme != "https", u.Host == "", u.User != nil, u.RawQuery != "", u.Fragment != "":
		return nil, fmt.Errorf("%q, want http or https, a host, and a path or none", text)
	}
	u.Host, u.Path = normalizedHost(u), strings.TrimRight(u.Path, "/")
	return u, nil
}

// normalizedHost returns the host of a URL as browsers write it in an origin: in lower case, and
// without the default port.
func normalizedHost(u *url.URL) string {
	host := strings.ToLower(u.Host)
	if u.Scheme == "https" {
		return strings.TrimSuffix(host, ":443")
	}
	return strings.TrimSuffix(host, ":80")
}

// forwarded is how a client has sent its request.
type forwarded struct {
	// scheme is http or https.
	scheme string
	// base is what the addresses in a response begin with.
	base string
}

// resolve returns the request as its client sent it, and what proxies say of it: with the
// address of the client, the host that it named, and no prefix of the path.
func (p *proxies) resolve(r *http.Request) (*http.Request, forwarded) {
	if p.public == nil && len(p.trusted) == 0 {
		return r, forwarded{scheme: "http"}
	}
	f := forwarded{scheme: "http"}
	r = r.Clone(r.Context())
	prefix := ""
	if p.isTrusted(r.RemoteAddr) {
		r.RemoteAddr = p.clientAddr(r)
		if host := firstValue(r.Header.Get("X-Forwarded-Host")); host != "" {
			r.Host = host
		}
		if given := firstValue(r.Header.Get("X-Forwarded-Prefix")); strings.HasPrefix(given, "/") && !strings.HasPrefix(given, "//") {
			prefix = strings.TrimRight(given, "/")
		}
		if firstValue(r.Header.Get("X-Forwarded-Proto")) == "https" {
			f.scheme = "https"
		}
	}
	f.base = prefix
	if p.public != nil {
		f.scheme, f.base, prefix = p.public.Scheme, p.public.String(), p.public.Path
	}
	if rest, ok := strings.CutPrefix(r.URL.Path, prefix+"/"); ok && prefix != "" {
		r.URL.Path, r.URL.RawPath = "/"+rest, ""
	}
	return r, f
}

// forwardedKey is the key of a forwarded in a context.
type forwardedKey struct{}

// getForwarded returns how the client has sent a request.
func getForwarded(r *http.Request) forwarded {
	if f, ok := r.Context().Value(forwardedKey{}).(forwarded); ok {
		return f
	}
	return forwarded{scheme: "http"}
}

// handler has h serve requests as their clients sent them.
func (p *proxies) handler(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r, f := p.resolve(r)
		h.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), forwardedKey{}, f)))
	})
}

// isTrusted reports whether the X-Forwarded-* headers of what connects from an address are
// believed.
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

// clientAddr returns the address of the client: the last of X-Forwarded-For that is no
// trusted proxy. What stands before it is the client's own word.
func (p *proxies) clientAddr(r *http.Request) string {
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for _, hop := range slices.Backward(hops) {
		hop = strings.TrimSpace(hop)
		if hop == "" || p.isTrusted(hop) {
			continue
		}
		if _, err := netip.ParseAddrPort(hop); err == nil {
			return hop
		}
		if ip, err := netip.ParseAddr(hop); err == nil {
			return netip.AddrPortFrom(ip, 0).String()
		}
		break // nothing before it can be believed
	}
	return r.RemoteAddr
}

// firstValue returns the first of values with commas between, which is of the proxy that the
// client has reached.
func firstValue(values string) string {
	value, _, _ := strings.Cut(values, ",")
	return strings.TrimSpace(value)
}
