package ingress

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// head is what a response begins with.
type head struct {
	status int
	header http.Header
}

// do makes a request without a body, and returns what its response begins with, and its
// problem.
func (d *instance) do(t *testing.T, method, path string, header ...string) (head, v1.Problem) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, d.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultTransport.RoundTrip(req) // which follows no redirection
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var p v1.Problem
	if res.Header.Get("Content-Type") == "application/problem+json" {
		if err := json.NewDecoder(res.Body).Decode(&p); err != nil {
			t.Fatal(err)
		}
	}
	return head{res.StatusCode, res.Header}, p
}

// TestHTTP_CrossOriginRequests: a page of another origin can do nothing, and read nothing,
// unless its origin is given.
func TestHTTP_CrossOriginRequests(t *testing.T) {
	const app, other = "https://app.example", "https://elsewhere.example"
	closed, some, all := start(t), start(t, "--cors-origins", "HTTPS://App.example:443"), start(t, "--cors-origins", "*")
	for name, tt := range map[string]struct {
		door    *instance
		header  []string
		refused bool
		allowed string // Access-Control-Allow-Origin
	}{
		"a program":                       {closed, nil, false, ""},
		"a page":                          {closed, []string{"Origin", app}, true, ""},
		"a page, by its site":             {closed, []string{"Sec-Fetch-Site", "cross-site"}, true, ""},
		"the own page":                    {closed, []string{"Origin", closed.url}, false, ""},
		"the own page, behind a proxy":    {closed, []string{"Origin", app, "Sec-Fetch-Site", "same-origin"}, false, ""},
		"a page that is given":            {some, []string{"Origin", app, "Sec-Fetch-Site", "cross-site"}, false, app},
		"a page that is not":              {some, []string{"Origin", other, "Sec-Fetch-Site", "cross-site"}, true, ""},
		"a page where all are given":      {all, []string{"Origin", other, "Sec-Fetch-Site", "cross-site"}, false, "*"},
		"a page without an origin of its": {closed, []string{"Origin", "null"}, true, ""},
	} {
		res, p := tt.door.do(t, http.MethodPost, "/v1/images", tt.header...)
		if refused := p.Code == v1.CrossOrigin; refused != tt.refused {
			t.Errorf("%s: %d %s, want it refused: %v", name, res.status, p.Code, tt.refused)
		}
		if tt.refused && res.status != http.StatusForbidden {
			t.Errorf("%s: %d, want 403", name, res.status)
		}
		if got := res.header.Get("Access-Control-Allow-Origin"); got != tt.allowed {
			t.Errorf("%s: allowed is %q, want %q", name, got, tt.allowed)
		}
	}
	for _, path := range []string{"/v1/images", "/v1/images/x/events", "/v1/stream", "/v1/pipelines"} {
		res, _ := some.do(t, http.MethodOptions, path, "Origin", app, "Access-Control-Request-Method", "POST",
			"Access-Control-Request-Headers", "idempotency-key")
		if res.status != http.StatusNoContent {
			t.Errorf("preflight of %s: %d, want 204", path, res.status)
		}
		if got := res.header.Get("Access-Control-Allow-Headers"); got != "idempotency-key" {
			t.Errorf("preflight of %s: the headers %q are allowed, want idempotency-key", path, got)
		}
	}
	res, _ := some.do(t, http.MethodPost, "/v1/images", "Origin", app)
	if got := res.header.Values("Vary"); !slices.Equal(got, []string{"Origin", "Accept"}) {
		t.Errorf("POST varies by %q, want Origin and Accept", got)
	}
	res, _ = some.do(t, http.MethodGet, "/v1/pipelines", "Origin", app)
	if got := res.header.Get("Access-Control-Expose-Headers"); !strings.Contains(got, "Retry-After") {
		t.Errorf("pages can read the headers %q, want Retry-After among them", got)
	}
}

// TestHTTP_BrowsersAndProxies of addresses that they reach.
func TestHTTP_BrowsersAndProxies(t *testing.T) {
	d := start(t)
	res, p := d.do(t, http.MethodGet, "/v1/stream")
	if p.Code != v1.UpgradeRequired || res.status != http.StatusUpgradeRequired {
		t.Errorf("a stream without an upgrade: %d %s, want 426 %s", res.status, p.Code, v1.UpgradeRequired)
	}
	if got := res.header.Get("Upgrade"); got != "websocket" {
		t.Errorf("a stream without an upgrade: Upgrade is %q", got)
	}
	if res, p := d.do(t, http.MethodGet, "/v1/stream", "Connection", "Upgrade", "Upgrade", "h2c"); p.Code != v1.UpgradeRequired {
		t.Errorf("a stream with another upgrade: %d %s, want %s", res.status, p.Code, v1.UpgradeRequired)
	}
	if res, p := d.do(t, http.MethodGet, "/v1/pipelines?note=1"); p.Code != v1.UnknownField {
		t.Errorf("an unknown parameter: %d %s, want %s", res.status, p.Code, v1.UnknownField)
	}
	res, _ = d.do(t, http.MethodOptions, "/v1/images")
	if res.status != http.StatusNoContent {
		t.Errorf("OPTIONS: %d, want 204", res.status)
	}
	if got := res.header.Get("Allow"); got != "POST, OPTIONS" {
		t.Errorf("OPTIONS: Allow is %q", got)
	}
	if res, p := d.do(t, http.MethodOptions, "/v2"); p.Code != v1.NotFound {
		t.Errorf("OPTIONS of no address: %d %s, want %s", res.status, p.Code, v1.NotFound)
	}
	if res, p := d.do(t, http.MethodPost, "//v1/images"); p.Code != v1.NotFound {
		t.Errorf("two slashes: %d %s, want %s and no redirection", res.status, p.Code, v1.NotFound)
	}
	for id, want := range map[string]string{"a-1": "a-1", "a b": "", strings.Repeat("x", 129): ""} {
		res, _ := d.do(t, http.MethodGet, "/v1/pipelines", "X-Request-Id", id)
		if got := res.header.Get("X-Request-Id"); got != want {
			t.Errorf("X-Request-Id %.20q comes back as %q, want %q", id, got, want)
		}
	}
}

// TestHTTP_AddressesInResponses are those at which the client has reached the mesh.
func TestHTTP_AddressesInResponses(t *testing.T) {
	plain := start(t)
	public := start(t, "--public-url", "https://example.com/vision/")
	proxied := start(t, "--trusted-proxies", "127.0.0.0/8")
	forwarded := []string{"X-Forwarded-Prefix", "/vision", "X-Forwarded-Host", "example.com", "X-Forwarded-For", "192.0.2.7"}
	for name, tt := range map[string]struct {
		door   *instance
		query  string
		header []string
		want   string
	}{
		"no proxy":              {plain, "", nil, "/v1/images/"},
		"not trusted":           {plain, "", forwarded, "/v1/images/"},
		"public URL":            {public, "", nil, "https://example.com/vision/v1/images/"},
		"a proxy with a prefix": {proxied, "", forwarded, "/vision/v1/images/"},
	} {
		tt.door.startWorkers(t, 1, 1)
		a := tt.door.mustPost(t, tt.query, append([]string{"Prefer", "respond-async"}, tt.header...)...)
		if a.status != http.StatusAccepted {
			t.Errorf("%s: %d, want 202", name, a.status)
		}
		if got := a.header.Get("Location"); !strings.HasPrefix(got, tt.want) {
			t.Errorf("%s: Location is %q, want it to begin with %q", name, got, tt.want)
		}
	}
	// A proxy passes the prefix on, or takes it off.
	for _, path := range []string{"/vision/v1/pipelines", "/v1/pipelines"} {
		if res, p := public.do(t, http.MethodGet, path); res.status != http.StatusOK {
			t.Errorf("%s: %d %s, want 200", path, res.status, p.Code)
		}
		if res, p := proxied.do(t, http.MethodGet, path, forwarded...); res.status != http.StatusOK {
			t.Errorf("%s by a proxy: %d %s, want 200", path, res.status, p.Code)
		}
	}
}
