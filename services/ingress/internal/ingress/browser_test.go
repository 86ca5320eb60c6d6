package ingress

import (
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// head is the status and the headers of a response.
type head struct {
	status int
	header http.Header
}

// send sends a request without a body, and returns the head and the problem of the response.
func (d *instance) send(t *testing.T, method, path string, header ...string) (head, v1.Problem) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, d.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultTransport.RoundTrip(req) // does not follow redirects
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

// TestHTTP_CrossOriginRequests checks that pages of other origins cannot post images or read responses,
// unless their origin is configured.
func TestHTTP_CrossOriginRequests(t *testing.T) {
	const app, other = "https://app.example", "https://elsewhere.example"
	closed, some, all := start(t), start(t, "--cors-origins", "HTTPS://App.example:443"), start(t, "--cors-origins", "*")
	for name, tt := range map[string]struct {
		instance *instance
		header   []string
		rejected bool
		allowed  string // Access-Control-Allow-Origin
	}{
		"a program":                   {closed, nil, false, ""},
		"a page":                      {closed, []string{"Origin", app}, true, ""},
		"a page, by Sec-Fetch-Site":   {closed, []string{"Sec-Fetch-Site", "cross-site"}, true, ""},
		"a page of the same origin":   {closed, []string{"Origin", closed.url}, false, ""},
		"the same, behind a proxy":    {closed, []string{"Origin", app, "Sec-Fetch-Site", "same-origin"}, false, ""},
		"a configured page":           {some, []string{"Origin", app, "Sec-Fetch-Site", "cross-site"}, false, app},
		"another page":                {some, []string{"Origin", other, "Sec-Fetch-Site", "cross-site"}, true, ""},
		"a page, all are allowed":     {all, []string{"Origin", other, "Sec-Fetch-Site", "cross-site"}, false, "*"},
		"a page with the origin null": {closed, []string{"Origin", "null"}, true, ""},
	} {
		res, p := tt.instance.send(t, http.MethodPost, "/v1/images", tt.header...)
		if rejected := p.Code == v1.CrossOrigin; rejected != tt.rejected {
			t.Errorf("%s: got %d %s, want it rejected: %v", name, res.status, p.Code, tt.rejected)
		}
		if tt.rejected && res.status != http.StatusForbidden {
			t.Errorf("%s: %d, want 403", name, res.status)
		}
		if got := res.header.Get("Access-Control-Allow-Origin"); got != tt.allowed {
			t.Errorf("%s: the allowed origin is %q, want %q", name, got, tt.allowed)
		}
	}
	for _, path := range []string{"/v1/images", "/v1/images/x/events", "/v1/stream", "/v1/pipelines"} {
		res, _ := some.send(t, http.MethodOptions, path, "Origin", app, "Access-Control-Request-Method", "POST",
			"Access-Control-Request-Headers", "idempotency-key")
		if res.status != http.StatusNoContent {
			t.Errorf("preflight of %s: %d, want 204", path, res.status)
		}
		if got := res.header.Get("Access-Control-Allow-Headers"); got != "idempotency-key" {
			t.Errorf("preflight of %s: the headers %q are allowed, want idempotency-key", path, got)
		}
		if got := res.header.Get("Access-Control-Allow-Origin"); got != app {
			t.Errorf("preflight of %s: the allowed origin is %q, want %s", path, got, app)
		}
	}
	res, _ := some.send(t, http.MethodPost, "/v1/images", "Origin", app)
	if got := res.header.Values("Vary"); !slices.Equal(got, []string{"Origin", "Accept"}) {
		t.Errorf("Vary of POST is %q, want Origin and Accept", got)
	}
	res, _ = some.send(t, http.MethodGet, "/v1/pipelines", "Origin", app)
	if got := res.header.Get("Access-Control-Expose-Headers"); !strings.Contains(got, "Retry-After") {
		t.Errorf("pages can read the headers %q, want Retry-After among them", got)
	}
}

// TestHTTP_BrowsersAndProxies checks responses that browsers and proxies expect.
func TestHTTP_BrowsersAndProxies(t *testing.T) {
	d := start(t)
	res, p := d.send(t, http.MethodGet, "/v1/stream")
	if res.status != http.StatusUpgradeRequired {
		t.Errorf("a stream without an upgrade: %d, want 426", res.status)
	}
	if p.Code != v1.UpgradeRequired {
		t.Errorf("a stream without an upgrade: the code is %s, want %s", p.Code, v1.UpgradeRequired)
	}
	if got := res.header.Get("Upgrade"); got != "websocket" {
		t.Errorf("a stream without an upgrade: Upgrade is %q", got)
	}
	if res, p := d.send(t, http.MethodGet, "/v1/stream", "Connection", "Upgrade", "Upgrade", "h2c"); p.Code != v1.UpgradeRequired {
		t.Errorf("a stream with another upgrade: %d %s, want %s", res.status, p.Code, v1.UpgradeRequired)
	}
	if res, p := d.send(t, http.MethodGet, "/v1/pipelines?note=1"); p.Code != v1.UnknownField {
		t.Errorf("an unknown parameter: %d %s, want %s", res.status, p.Code, v1.UnknownField)
	}
	res, _ = d.send(t, http.MethodOptions, "/v1/images")
	if res.status != http.StatusNoContent {
		t.Errorf("OPTIONS: %d, want 204", res.status)
	}
	if got := res.header.Get("Allow"); got != "POST, OPTIONS" {
		t.Errorf("OPTIONS: Allow is %q", got)
	}
	if res, p := d.send(t, http.MethodOptions, "/v2"); p.Code != v1.NotFound {
		t.Errorf("OPTIONS of an unknown path: %d %s, want %s", res.status, p.Code, v1.NotFound)
	}
	if res, p := d.send(t, http.MethodPost, "//v1/images"); p.Code != v1.NotFound {
		t.Errorf("two slashes: %d %s, want %s and no redirect", res.status, p.Code, v1.NotFound)
	}
	for id, want := range map[string]string{"a-1": "a-1", "a b": "", strings.Repeat("x", 129): ""} {
		res, _ := d.send(t, http.MethodGet, "/v1/pipelines", "X-Request-Id", id)
		if got := res.header.Get("X-Request-Id"); got != want {
			t.Errorf("X-Request-Id %.20q is returned as %q, want %q", id, got, want)
		}
	}
}

// TestHTTP_EveryResponseHasTheRequestID checks that X-Request-Id is returned whatever the response is.
func TestHTTP_EveryResponseHasTheRequestID(t *testing.T) {
	const app = "https://app.example"
	closed, open := start(t), start(t, "--cors-origins", app)
	preflight := []string{"Origin", app, "Access-Control-Request-Method", "POST"}
	for _, tt := range []struct {
		name, method, path string
		header             []string
		status             int
		allow              string
	}{
		{"a resource", http.MethodGet, "/v1/pipelines", nil, http.StatusOK, ""},
		{"the head of a resource", http.MethodHead, "/v1/pipelines", nil, http.StatusOK, ""},
		{"a bad query", http.MethodGet, "/v1/pipelines?note=1", nil, http.StatusBadRequest, ""},
		{"an empty body", http.MethodPost, "/v1/images", nil, http.StatusBadRequest, ""},
		{"no more events", http.MethodGet, "/v1/images/x/events", []string{"Last-Event-ID", "end"}, http.StatusNoContent, ""},
		{"no upgrade", http.MethodGet, "/v1/stream", nil, http.StatusUpgradeRequired, ""},
		{"an unknown address", http.MethodGet, "/v2", nil, http.StatusNotFound, ""},
		{"another method", http.MethodPut, "/v1/images/x", nil, http.StatusMethodNotAllowed, "GET, HEAD, DELETE, OPTIONS"},
		{"OPTIONS", http.MethodOptions, "/v1/images/x", nil, http.StatusNoContent, "GET, HEAD, DELETE, OPTIONS"},
		{"OPTIONS of an unknown address", http.MethodOptions, "/v2", nil, http.StatusNotFound, ""},
		{"a preflight", http.MethodOptions, "/v1/images", preflight, http.StatusNoContent, "POST, OPTIONS"},
		{"a preflight of an unknown address", http.MethodOptions, "/v2", preflight, http.StatusNoContent, ""},
	} {
		for name, d := range map[string]*instance{"": closed, ", --cors-origins": open} {
			res, _ := d.send(t, tt.method, tt.path, append([]string{"X-Request-Id", "a-1"}, tt.header...)...)
			if res.status != tt.status {
				t.Errorf("%s%s: %d, want %d", tt.name, name, res.status, tt.status)
			}
			if got := res.header.Get("X-Request-Id"); got != "a-1" {
				t.Errorf("%s%s: X-Request-Id is %q, want a-1", tt.name, name, got)
			}
			if got := res.header.Get("Allow"); got != tt.allow {
				t.Errorf("%s%s: Allow is %q, want %q", tt.name, name, got, tt.allow)
			}
		}
	}
	if res, p := closed.send(t, http.MethodPost, "/v1/images", "X-Request-Id", "a-1", "Origin", app); p.Code != v1.CrossOrigin {
		t.Errorf("a page of another origin: %d %s, want %s", res.status, p.Code, v1.CrossOrigin)
	} else if got := res.header.Get("X-Request-Id"); got != "a-1" {
		t.Errorf("a page of another origin: X-Request-Id is %q, want a-1", got)
	}
}

// openAPI is what the tests read in the document of the API.
type openAPI struct {
	Servers []struct {
		URL string `json:"url"`
	} `json:"servers"`
}

// readOpenAPI returns the document of the API. It has at least one server, and its whole length is announced.
func (d *instance) readOpenAPI(t *testing.T, header ...string) openAPI {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, d.url+"/openapi.json", nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if res.ContentLength != int64(len(body)) {
		t.Errorf("openapi.json: Content-Length is %d, and the body has %d bytes", res.ContentLength, len(body))
	}
	var out openAPI
	if err := json.Unmarshal(body, &out); err != nil {
		t.Fatalf("openapi.json: %v", err)
	}
	if len(out.Servers) == 0 {
		t.Fatal("openapi.json has no servers")
	}
	return out
}

// TestHTTP_AddressesInResponses checks that addresses have the prefix with which the client has reached the
// mesh.
func TestHTTP_AddressesInResponses(t *testing.T) {
	plain := start(t)
	public := start(t, "--public-url", "https://example.com/vision/")
	proxied := start(t, "--trusted-proxies", "127.0.0.0/8")
	forwarded := []string{"X-Forwarded-Prefix", "/vision", "X-Forwarded-Host", "example.com", "X-Forwarded-For", "192.0.2.7"}
	for name, tt := range map[string]struct {
		instance *instance
		query    string
		header   []string
		want     string
	}{
		"no proxy":              {plain, "", nil, "/v1/images/"},
		"not trusted":           {plain, "", forwarded, "/v1/images/"},
		"public URL":            {public, "", nil, "https://example.com/vision/v1/images/"},
		"a proxy with a prefix": {proxied, "", forwarded, "/vision/v1/images/"},
	} {
		tt.instance.startWorkers(t, 1, 1)
		a := tt.instance.mustPost(t, tt.query, append([]string{"Prefer", "respond-async"}, tt.header...)...)
		if a.status != http.StatusAccepted {
			t.Errorf("%s: %d, want 202", name, a.status)
		}
		if got := a.header.Get("Location"); !strings.HasPrefix(got, tt.want) {
			t.Errorf("%s: Location is %q, want the prefix %q", name, got, tt.want)
		}
	}
	for name, tt := range map[string]struct {
		instance *instance
		header   []string
		want     string
	}{
		"no proxy":                        {plain, nil, "/"},
		"not trusted":                     {plain, forwarded, "/"},
		"public URL":                      {public, nil, "https://example.com/vision"},
		"public URL, a proxy":             {public, forwarded, "https://example.com/vision"},
		"a proxy with a prefix":           {proxied, forwarded, "/vision"},
		"a proxy without a prefix":        {proxied, nil, "/"},
		"a proxy with an unusable prefix": {proxied, []string{"X-Forwarded-Prefix", "/vision/../v1"}, "/"},
	} {
		document := tt.instance.readOpenAPI(t, tt.header...)
		if got := document.Servers[0].URL; got != tt.want {
			t.Errorf("openapi.json, %s: the first server is %q, want %q", name, got, tt.want)
		}
	}
	// A proxy may keep or remove the prefix of the path.
	for _, path := range []string{"/vision/v1/pipelines", "/v1/pipelines"} {
		if res, p := public.send(t, http.MethodGet, path); res.status != http.StatusOK {
			t.Errorf("%s: %d %s, want 200", path, res.status, p.Code)
		}
		if res, p := proxied.send(t, http.MethodGet, path, forwarded...); res.status != http.StatusOK {
			t.Errorf("%s by a proxy: %d %s, want 200", path, res.status, p.Code)
		}
	}
}
