package fetch

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sightmesh/sightmesh/contracts/retry"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const maxBytes = 1000

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

func newFetcher(t *testing.T, change func(*Config)) *Fetcher {
	t.Helper()
	cfg := Config{MaxBytes: maxBytes, Timeout: time.Minute, PerHost: 2, Allow: loopback}
	if change != nil {
		change(&cfg)
	}
	f := New(cfg)
	t.Cleanup(f.Close)
	return f
}

// serve starts a server that counts its connections.
func serve(t *testing.T, h http.HandlerFunc) (addr string, seen *atomic.Int64) {
	t.Helper()
	seen = new(atomic.Int64)
	s := httptest.NewUnstartedServer(h)
	s.Config.ConnState = func(_ net.Conn, st http.ConnState) {
		if st == http.StateNew {
			seen.Add(1)
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	return s.URL, seen
}

// fetchProblem returns the problem of a fetch, and the delay of a transient one.
func fetchProblem(t *testing.T, err error) (p *v1.Problem, after time.Duration, transient bool) {
	t.Helper()
	if !errors.As(err, &p) {
		t.Fatalf("got %v, want a problem", err)
	}
	after, transient = retry.Delay(err)
	return p, after, transient
}

func TestFetcher_Fetch(t *testing.T) {
	t.Parallel()
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(w http.ResponseWriter, r *http.Request) {
		for _, h := range []string{"Referer", "Cookie", "Accept-Encoding"} {
			if v := r.Header.Get(h); v != "" {
				t.Errorf("the request has %s: %s, want none", h, v)
			}
		}
		fmt.Fprint(w, "image")
	})
	mux.HandleFunc("/full", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, strings.Repeat("x", maxBytes)) })
	mux.HandleFunc("/redirect/{n}", func(w http.ResponseWriter, r *http.Request) {
		to := map[string]string{"3": "/redirect/2", "2": "/redirect/1", "1": "/ok", "4": "/redirect/3"}[r.PathValue("n")]
		http.Redirect(w, r, to, http.StatusFound)
	})
	mux.HandleFunc("/loop", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/loop", http.StatusFound)
	})
	mux.HandleFunc("/file", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "file:///etc/passwd", http.StatusFound)
	})
	mux.HandleFunc("/gone", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusGone) })
	mux.HandleFunc("/busy", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	mux.HandleFunc("/huge", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "10000000000")
	})
	mux.HandleFunc("/endless", func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 512)); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/cut", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		fmt.Fprint(w, "half")
	})
	addr, _ := serve(t, mux.ServeHTTP)
	f := newFetcher(t, nil)
	for path, want := range map[string]string{
		"/ok": "image", "/full": strings.Repeat("x", maxBytes), "/redirect/3": "image",
	} {
		image, err := f.Fetch(t.Context(), addr+path)
		if err != nil {
			t.Errorf("%s: %v", path, err)
		}
		if string(image) != want {
			t.Errorf("%s: got %d bytes, want %q", path, len(image), want)
		}
	}
	for path, want := range map[string]struct {
		code      v1.Code
		transient bool
		after     time.Duration
	}{
		"/redirect/4": {code: v1.FetchFailed},
		"/loop":       {code: v1.FetchFailed},
		"/file":       {code: v1.URLRefused},
		"/gone":       {code: v1.FetchFailed},
		"/busy":       {code: v1.FetchFailed, transient: true, after: 7 * time.Second},
		"/huge":       {code: v1.TooLarge},
		"/endless":    {code: v1.TooLarge},
		"/cut":        {code: v1.FetchFailed, transient: true},
	} {
		_, err := f.Fetch(t.Context(), addr+path)
		p, after, transient := fetchProblem(t, err)
		if p.Code != want.code {
			t.Errorf("%s: %v, want %s", path, p, want.code)
		}
		if transient != want.transient {
			t.Errorf("%s: transient is %v, want %v", path, transient, want.transient)
		}
		if after != want.after {
			t.Errorf("%s: the retry delay is %v, want %v", path, after, want.after)
		}
	}
}

// compress returns content as gzip.
func compress(t *testing.T, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestFetcher_ContentEncoding covers hosts that compress although the request accepts no content coding.
func TestFetcher_ContentEncoding(t *testing.T) {
	t.Parallel()
	large := bytes.Repeat([]byte("x"), maxBytes+1)
	noise := make([]byte, maxBytes+1)
	rand.NewChaCha8([32]byte{}).Read(noise)
	for name, tt := range map[string]struct {
		coding    string
		content   []byte
		chunked   bool // the host does not announce a length
		want      string
		code      v1.Code
		transient bool
		detail    string
	}{
		"gzip":               {coding: "gzip", content: compress(t, []byte("image")), want: "image"},
		"of unknown length":  {coding: "GZIP", content: compress(t, []byte("image")), chunked: true, want: "image"},
		"x-gzip":             {coding: "x-gzip", content: compress(t, []byte("image")), want: "image"},
		"identity":           {coding: "identity", content: []byte("image"), want: "image"},
		"as large as may be": {coding: "gzip", content: compress(t, large[:maxBytes]), want: string(large[:maxBytes])},
		"a bomb": {coding: "gzip", content: compress(t, large), code: v1.TooLarge,
			detail: "a picture may have 1000 bytes"},
		"empty without end": {coding: "gzip", content: bytes.Repeat(compress(t, nil), maxBytes), chunked: true,
			code: v1.TooLarge, detail: "a picture may have 1000 bytes"},
		"large when compressed": {coding: "gzip", content: compress(t, noise), code: v1.TooLarge,
			detail: "a picture may have 1000 bytes"},
		"not gzip": {coding: "gzip", content: []byte("\x89PNG\r\n\x1a\n and more"), code: v1.FetchFailed,
			detail: "the host sent Content-Encoding gzip, but the content is not gzip"},
		"damaged": {coding: "gzip", content: append(compress(t, nil)[:10], bytes.Repeat([]byte{0xff}, 30)...),
			code: v1.FetchFailed, detail: "the host sent Content-Encoding gzip, but the content is not gzip"},
		"cut off": {coding: "gzip", content: compress(t, noise[:500])[:300], code: v1.FetchFailed, transient: true,
			detail: "the host ended the picture before it was complete"},
		"nothing": {coding: "gzip", code: v1.FetchFailed, transient: true,
			detail: "the host ended the picture before it was complete"},
		"another coding": {coding: "br", content: []byte("image"), code: v1.FetchFailed,
			detail: `the host sent Content-Encoding "br", want gzip or none`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Encoding", tt.coding)
				if !tt.chunked {
					w.Header().Set("Content-Length", strconv.Itoa(len(tt.content)))
				}
				w.WriteHeader(http.StatusOK)
				if tt.chunked {
					http.NewResponseController(w).Flush()
				}
				w.Write(tt.content)
			})
			got, err := newFetcher(t, nil).Fetch(t.Context(), addr)
			if tt.code == "" {
				if err != nil {
					t.Fatal(err)
				}
				if string(got) != tt.want {
					t.Errorf("got %q, want %q", got, tt.want)
				}
				return
			}
			p, _, transient := fetchProblem(t, err)
			if p.Code != tt.code {
				t.Errorf("the code is %s, want %s", p.Code, tt.code)
			}
			if p.Detail != tt.detail {
				t.Errorf("the detail is %q, want %q", p.Detail, tt.detail)
			}
			if transient != tt.transient {
				t.Errorf("transient is %v, want %v", transient, tt.transient)
			}
		})
	}
}

// TestFetcher_RejectsAddressesThatAreNotPublic also checks that a local listener gets no connection.
func TestFetcher_RejectsAddressesThatAreNotPublic(t *testing.T) {
	t.Parallel()
	addr, seen := serve(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "secret") })
	port := addr[strings.LastIndexByte(addr, ':'):]
	f := newFetcher(t, func(c *Config) { c.Allow = nil })
	for _, raw := range []string{
		"http://127.0.0.1" + port, "http://localhost" + port, "http://127.1" + port, "http://0.0.0.0" + port,
		"http://" + port, "http://[::1]" + port, "http://[::ffff:127.0.0.1]" + port, "http://[::]" + port,
		"http://[64:ff9b::7f00:1]" + port, "http://[2002:7f00:1::]" + port,
		"http://169.254.169.254/latest/meta-data", "http://10.0.0.1", "http://172.16.0.1", "http://192.168.0.1",
		"http://100.64.0.1", "http://[fe80::1]", "http://[fd00::1]", "http://224.0.0.1", "http://255.255.255.255",
		"http://user:password@example.com/", "ftp://example.com/", "file:///etc/passwd", "gopher://example.com", "http:///x",
		"http:example.com", "//example.com", "http://%zz", "",
	} {
		_, err := f.Fetch(t.Context(), raw)
		got, _, _ := fetchProblem(t, err)
		// Go looks up http://127.1 as a name, which no name server has.
		if got.Code != v1.URLRefused && (got.Code != v1.FetchFailed || raw != "http://127.1"+port) {
			t.Errorf("%s: %v, want url-refused", raw, got)
		}
	}
	if n := seen.Load(); n != 0 {
		t.Errorf("the listener has got %d connections, want 0", n)
	}
}

func TestFetcher_RejectsARedirectToLoopback(t *testing.T) {
	t.Parallel()
	inside, seen := serve(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "secret") })
	inside = strings.Replace(inside, "127.0.0.1", "127.0.0.2", 1) // the listener below is on .1
	outside, _ := serve(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, inside, http.StatusFound) })
	f := newFetcher(t, func(c *Config) { c.Allow = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")} })
	_, err := f.Fetch(t.Context(), outside)
	got, _, transient := fetchProblem(t, err)
	if got.Code != v1.URLRefused {
		t.Errorf("got %v, want url-refused", got)
	}
	if transient {
		t.Error("a rejected address is a transient error")
	}
	if n := seen.Load(); n != 0 {
		t.Errorf("the internal listener has got %d connections, want 0", n)
	}
}

// nameServer starts a name server that returns the next of addrs for each query of an
// IPv4 address, and then always the last.
func nameServer(t *testing.T, addrs ...netip.Addr) (r *net.Resolver, queries *atomic.Int64) {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	queries = new(atomic.Int64)
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			question := buf[:n]
			if i := strings.Index(string(question), "\x00\x00\x29"); i > 0 {
				question = question[:i] // without the additional records
			}
			reply := append([]byte{}, question...)
			reply[2], reply[3] = 0x81, 0x80 // a response, recursion available
			reply[10], reply[11] = 0, 0     // no additional records
			if reply[len(reply)-3] == 1 {   // for an IPv4 address
				a := addrs[min(int(queries.Add(1)), len(addrs))-1].As4()
				reply[7] = 1
				reply = append(reply, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4)
				reply = append(reply, a[:]...)
			}
			if _, err := conn.WriteTo(reply, from); err != nil {
				return
			}
		}
	})
	t.Cleanup(func() {
		conn.Close()
		wg.Wait()
	})
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}, queries
}

// TestFetcher_ChecksEachResolvedAddress uses a name that first resolves to an allowed address,
// and then to an address that is not allowed (DNS rebinding).
func TestFetcher_ChecksEachResolvedAddress(t *testing.T) {
	t.Parallel()
	inside, seen := serve(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "secret") })
	u, err := url.Parse(inside)
	if err != nil {
		t.Fatal(err)
	}
	resolver, queries := nameServer(t, netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2"))
	f := newFetcher(t, func(c *Config) {
		c.Resolver, c.Allow = resolver, []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}
	})
	raw := "http://rebind.example:" + u.Port()
	if _, err := f.Fetch(t.Context(), raw); err != nil {
		t.Fatalf("the first address: %v", err)
	}
	f.Close()
	before := seen.Load()
	_, err = f.Fetch(t.Context(), raw)
	if got, _, _ := fetchProblem(t, err); got.Code != v1.URLRefused {
		t.Errorf("the second address: %v, want url-refused", got)
	}
	if n := queries.Load(); n < 2 {
		t.Errorf("the name server has got %d queries, want 2 or more", n)
	}
	if n := seen.Load() - before; n != 0 {
		t.Errorf("the listener has got %d more connections, want 0", n)
	}
}

func TestFetcher_TimesOut(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	addr, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/body" {
			w.WriteHeader(http.StatusOK)
			http.NewResponseController(w).Flush()
		}
		<-release
	})
	t.Cleanup(func() { close(release) })
	f := newFetcher(t, func(c *Config) { c.Timeout = 500 * time.Millisecond })
	for _, path := range []string{"/header", "/body"} {
		_, err := f.Fetch(t.Context(), addr+path)
		p, _, transient := fetchProblem(t, err)
		if p.Code != v1.FetchFailed {
			t.Errorf("%s: got %v, want fetch-failed", path, p)
		}
		if want := "the fetch took longer than 500ms"; p.Detail != want {
			t.Errorf("%s: the detail is %q, want %q", path, p.Detail, want)
		}
		if !transient {
			t.Errorf("%s: the error is not transient", path)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := newFetcher(t, nil).Fetch(ctx, addr); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: got %v, want %v", err, context.Canceled)
	}
}

func TestFetcher_LimitsFetchesPerHost(t *testing.T) {
	t.Parallel()
	var now, most atomic.Int64
	addr, _ := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		n := now.Add(1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		time.Sleep(5 * time.Millisecond)
		now.Add(-1)
		io.WriteString(w, "image")
	})
	f := newFetcher(t, nil)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := f.Fetch(t.Context(), addr); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := most.Load(); n != 2 {
		t.Errorf("%d fetches at a time, want 2", n)
	}
	if n := len(f.hosts.hosts); n != 0 {
		t.Errorf("%d hosts are in memory after the fetches, want 0", n)
	}
}

func FuzzCheckURL(f *testing.F) {
	for _, s := range []string{"http://a", "https://u@h/", "http://[::1]:80", "file:///x", "http:\\\\x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		u, err := url.Parse(raw)
		if err != nil || checkURL(u) != nil {
			return
		}
		if u.Host == "" {
			t.Errorf("%q is accepted, without a host", raw)
		}
		if u.User != nil {
			t.Errorf("%q is accepted, with the user %v", raw, u.User)
		}
		if u.Scheme != "http" && u.Scheme != "https" {
			t.Errorf("%q is accepted, with the scheme %q", raw, u.Scheme)
		}
	})
}
