package httpapi

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"github.com/gorilla/mux"
)

// TestProxies_ClientAddr checks that the client is the last address that is not of a trusted proxy,
// whatever the client has written before it.
func TestProxies_ClientAddr(t *testing.T) {
	t.Parallel()
	p := &proxies{trusted: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}}
	for name, tt := range map[string]struct {
		remote string
		addrs  []string
		want   string
	}{
		"one proxy":            {"10.0.0.1:80", []string{"192.0.2.7"}, "192.0.2.7:0"},
		"two proxies":          {"10.0.0.1:80", []string{"192.0.2.7, 10.0.0.2"}, "192.0.2.7:0"},
		"two headers":          {"10.0.0.1:80", []string{"192.0.2.7", "10.0.0.2"}, "192.0.2.7:0"},
		"what a client writes": {"10.0.0.1:80", []string{"203.0.113.9, 192.0.2.7"}, "192.0.2.7:0"},
		"with a port":          {"10.0.0.1:80", []string{"192.0.2.7:5000"}, "192.0.2.7:5000"},
		"IPv6":                 {"[fd00::1]:80", []string{"2001:db8::7"}, "[2001:db8::7]:0"},
		"no address":           {"10.0.0.1:80", []string{"203.0.113.9, unknown"}, "10.0.0.1:80"},
		"nothing":              {"10.0.0.1:80", nil, "10.0.0.1:80"},
		"not trusted":          {"192.0.2.1:80", []string{"192.0.2.7"}, "192.0.2.1:80"},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = tt.remote
		for _, addr := range tt.addrs {
			r.Header.Add("X-Forwarded-For", addr)
		}
		if got, _ := p.resolve(r); got.RemoteAddr != tt.want {
			t.Errorf("%s: the client is %s, want %s", name, got.RemoteAddr, tt.want)
		}
	}
}

// TestProxies_Prefix checks that a prefix is used when it is a clean path, and ignored otherwise.
func TestProxies_Prefix(t *testing.T) {
	t.Parallel()
	router := mux.NewRouter()
	router.Handle("/v1/pipelines", http.NotFoundHandler()).Methods(http.MethodGet)
	router.NotFoundHandler = http.NotFoundHandler()
	p := &proxies{trusted: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, router: router}
	for _, tt := range []struct{ given, path, base, want string }{
		{"/vision", "/vision/v1/pipelines", "/vision", "/v1/pipelines"},
		{"/vision/", "/vision/v1/pipelines", "/vision", "/v1/pipelines"},
		{"/vision", "/v1/pipelines", "/vision", "/v1/pipelines"},
		{"/a/b, /c", "/a/b/v1/pipelines", "/a/b", "/v1/pipelines"},
		{"/a b/ü", "/a%20b/%C3%BC/v1/pipelines", "/a%20b/%C3%BC", "/v1/pipelines"},
		{"/a%20b", "/a%20b/v1/pipelines", "/a%20b", "/v1/pipelines"},
		{`/a\b`, "/v1/pipelines", "/a%5Cb", "/v1/pipelines"},
		{"/v1", "/v1/pipelines", "/v1", "/v1/pipelines"},
		{"/v1", "/v1/v1/pipelines", "/v1", "/v1/pipelines"},
		{"/v1/pipelines", "/v1/pipelines", "/v1/pipelines", "/v1/pipelines"},
		{"", "/v1/pipelines", "", "/v1/pipelines"},
		{"/", "/v1/pipelines", "", "/v1/pipelines"},
		{"vision", "/vision/v1/pipelines", "", "/vision/v1/pipelines"},
		{"/a/../b", "/b/v1/pipelines", "", "/b/v1/pipelines"},
		{"/a/%2e%2e/b", "/b/v1/pipelines", "", "/b/v1/pipelines"},
		{"/a/./b", "/a/b/v1/pipelines", "", "/a/b/v1/pipelines"},
		{"/a//b", "/a//b/v1/pipelines", "", "/a//b/v1/pipelines"},
		{"//elsewhere.example", "/v1/pipelines", "", "/v1/pipelines"},
		{"///elsewhere.example", "/v1/pipelines", "", "/v1/pipelines"},
		{"https://elsewhere.example/a", "/a/v1/pipelines", "", "/a/v1/pipelines"},
		{"/a?b=c", "/a/v1/pipelines", "", "/a/v1/pipelines"},
		{"/a?", "/a/v1/pipelines", "", "/a/v1/pipelines"},
		{"/a#b", "/a/v1/pipelines", "", "/a/v1/pipelines"},
		{"/a#", "/a/v1/pipelines", "", "/a/v1/pipelines"},
		{"/a\tb", "/v1/pipelines", "", "/v1/pipelines"},
		{"/a\x7f", "/v1/pipelines", "", "/v1/pipelines"},
		{"/a%zz", "/v1/pipelines", "", "/v1/pipelines"},
	} {
		r := httptest.NewRequest("GET", tt.path, nil)
		r.RemoteAddr = "10.0.0.1:80"
		r.Header.Set("X-Forwarded-Prefix", tt.given)
		got, f := p.resolve(r)
		if f.base != tt.base {
			t.Errorf("%q: addresses begin with %q, want %q", tt.given, f.base, tt.base)
		}
		if got.URL.Path != tt.want {
			t.Errorf("%q: the path is %s, want %s", tt.given, got.URL.Path, tt.want)
		}
	}
}

func TestParsePublicURL(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"https://example.com": "https://example.com", "http://example.com:8080/a/b/": "http://example.com:8080/a/b",
		"HTTPS://Example.com:443/Vision": "https://example.com/Vision",
		"https://example.com/a%2Fb/":     "https://example.com/a%2Fb",
	} {
		u, err := ParsePublicURL(text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if u.String() != want {
			t.Errorf("%s: %s, want %s", text, u, want)
		}
	}
	for _, text := range []string{
		"example.com", "ftp://example.com", "https://", "https://u:p@example.com", "https://example.com/?a=1",
		"https://example.com/?", "https://example.com/#", "https://example.com/a/../b", "https://example.com/a//b", "://",
	} {
		if u, err := ParsePublicURL(text); err == nil {
			t.Errorf("%s: got %s, want an error", text, u)
		}
	}
	u, err := ParsePublicURL("")
	if err != nil {
		t.Errorf("no text: %v", err)
	}
	if u != nil {
		t.Errorf("no text: got %v, want nil", u)
	}
}

func TestNewOrigins_RejectsInvalidOrigins(t *testing.T) {
	t.Parallel()
	for _, origins := range [][]string{
		{"app.example"}, {"https://app.example/path"}, {"*", "https://app.example"}, {"https://*.example"},
	} {
		if _, err := newOrigins(origins, ""); err == nil {
			t.Errorf("%q: no error", origins)
		}
	}
}
