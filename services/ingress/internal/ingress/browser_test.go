package ingress

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
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

// TestHTTP_CrossOriginDetail checks that a problem says what a proxy has to pass, if the browser has not said that the
// page is of another origin.
func TestHTTP_CrossOriginDetail(t *testing.T) {
	d := start(t)
	const page, advice = "https://app.example", "X-Forwarded-Host with the flag trusted-proxies"
	session := []string{"Origin", page, "Connection", "Upgrade", "Upgrade", "websocket"}
	image := []string{"Origin", page}
	for name, tt := range map[string]struct {
		method, path string
		header       []string
		advice       bool
	}{
		"an image":  {http.MethodPost, "/v1/images", image, true},
		"a session": {http.MethodGet, "/v1/stream", session, true},
		"an image of a page that the browser calls cross-site": {
			http.MethodPost, "/v1/images", slices.Concat(image, []string{"Sec-Fetch-Site", "cross-site"}), false,
		},
		"a session of a page that the browser calls same-site": {
			http.MethodGet, "/v1/stream", slices.Concat(session, []string{"Sec-Fetch-Site", "same-site"}), false,
		},
	} {
		_, p := d.send(t, tt.method, tt.path, tt.header...)
		if p.Code != v1.CrossOrigin {
			t.Errorf("%s: the code is %s, want %s", name, p.Code, v1.CrossOrigin)
		}
		if !strings.Contains(p.Detail, page) {
			t.Errorf("%s: the detail is %q, want %s in it", name, p.Detail, page)
		}
		if got := strings.Contains(p.Detail, advice); got != tt.advice {
			t.Errorf("%s: the detail is %q, want the advice in it: %v", name, p.Detail, tt.advice)
		}
		if got := strings.Contains(p.Detail, strings.TrimPrefix(d.url, "http://")); got != tt.advice {
			t.Errorf("%s: the detail is %q, want the host in it: %v", name, p.Detail, tt.advice)
		}
	}
	_, p := d.send(t, http.MethodPost, "/v1/images", "Sec-Fetch-Site", "cross-site")
	if p.Field != "Sec-Fetch-Site" {
		t.Errorf("a request without Origin: the field is %q, want Sec-Fetch-Site", p.Field)
	}
	if !strings.HasPrefix(p.Detail, "a page of another origin sent this;") {
		t.Errorf("a request without Origin: the detail is %q, want that a page of another origin sent it", p.Detail)
	}
	// A request for another address opens no session, whatever it requests.
	if res, p := d.send(t, http.MethodGet, "/v1/pipelines", session...); res.status != http.StatusOK {
		t.Errorf("pipelines with an upgrade: %d %s, want 200", res.status, p.Code)
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
	res, p = d.send(t, http.MethodGet, "/v1/stream", "Connection", "Upgrade", "Upgrade", "h2c")
	if p.Code != v1.UpgradeRequired {
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
	res, p := closed.send(t, http.MethodPost, "/v1/images", "X-Request-Id", "a-1", "Origin", app)
	if p.Code != v1.CrossOrigin {
		t.Errorf("a page of another origin: %d %s, want %s", res.status, p.Code, v1.CrossOrigin)
	}
	if got := res.header.Get("X-Request-Id"); got != "a-1" {
		t.Errorf("a page of another origin: X-Request-Id is %q, want a-1", got)
	}
}

// TestHTTP_ResponsesOfTheServer checks the table of docs/problems.md: net/http responds to some requests itself.
func TestHTTP_ResponsesOfTheServer(t *testing.T) {
	d := start(t)
	for _, tt := range []struct {
		name, request string
		status        int
		plain         bool // a body in plain text; none otherwise
	}{
		{"no host", "GET /v1/pipelines HTTP/1.1\r\n\r\n", 400, true},
		{"a malformed host", "GET /v1/pipelines HTTP/1.1\r\nHost: a b\r\n\r\n", 400, true},
		{"no HTTP", "hello\r\n\r\n", 400, true},
		{"an unknown Expect", "POST /v1/images HTTP/1.1\r\nHost: x\r\nExpect: luck\r\nContent-Length: 1\r\n\r\n", 417, false},
		{
			"many headers", "GET /v1/pipelines HTTP/1.1\r\nHost: x\r\nX-Note: " + strings.Repeat("x", 36<<10) + "\r\n\r\n",
			431, true,
		},
		{
			"an unknown Transfer-Encoding", "POST /v1/images HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
			501, true,
		},
		{"another version", "GET /v1/pipelines HTTP/3.0\r\nHost: x\r\n\r\n", 505, true},
		{"OPTIONS *", "OPTIONS * HTTP/1.1\r\nHost: x\r\nX-Request-Id: a-1\r\n\r\n", 200, false},
	} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(d.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, tt.request); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		defer res.Body.Close()
		if res.StatusCode != tt.status {
			t.Errorf("%s: %d, want %d", tt.name, res.StatusCode, tt.status)
		}
		if got := strings.HasPrefix(res.Header.Get("Content-Type"), "text/plain"); got != tt.plain {
			t.Errorf("%s: Content-Type is %q, want plain text: %v", tt.name, res.Header.Get("Content-Type"), tt.plain)
		}
		if got := res.Header.Get("X-Request-Id"); got != "" {
			t.Errorf("%s: X-Request-Id is %q, want none", tt.name, got)
		}
	}
}

// TestHTTP_HTTP2Preface checks that ingress itself rejects the preface of HTTP/2, with a problem.
func TestHTTP_HTTP2Preface(t *testing.T) {
	d := start(t)
	conn, err := net.Dial("tcp", strings.TrimPrefix(d.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var p v1.Problem
	if err := json.NewDecoder(res.Body).Decode(&p); err != nil {
		t.Fatal(err)
	}
	if p.Code != v1.NotFound {
		t.Errorf("got %d %s, want %s", res.StatusCode, p.Code, v1.NotFound)
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
	plain := startServed(t, 1, 1)
	public := startServed(t, 1, 1, "--public-url", "https://example.com/vision/")
	proxied := startServed(t, 1, 1, "--trusted-proxies", "127.0.0.0/8")
	forwarded := []string{
		"X-Forwarded-Prefix", "/vision", "X-Forwarded-Host", "example.com", "X-Forwarded-For", "192.0.2.7",
	}
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
