//go:build interop_clients

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// website serves a page with a script, and the sample image. The script calls report with its observations.
type website struct {
	url     string
	script  atomic.Value // string, stored before the page is opened
	reports chan report
}

// report has the observations of a script.
type report struct {
	Error    string   `json:"error"`
	Status   int      `json:"status"`
	Events   []string `json:"events"`
	Messages []string `json:"messages"`
	Code     int      `json:"code"`
	Text     string   `json:"text"`
}

const page = `<!doctype html><title>page</title><script type="module">
const report = seen => fetch("/page/report", {method: "POST", body: JSON.stringify(seen)});
const image = await (await fetch("/page/image.png")).blob();
try {
%s
} catch (error) {
	report({error: String(error)});
}
</script>`

func newWebsite(t *testing.T) *website {
	t.Helper()
	site := &website{reports: make(chan report, 1)}
	image := samplePage(t)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /page/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprintf(w, page, site.script.Load())
	})
	mux.HandleFunc("GET /page/image.png", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "image/png")
		_, _ = w.Write(image) // the browser may have disconnected
	})
	mux.HandleFunc("POST /page/report", func(_ http.ResponseWriter, r *http.Request) {
		var seen report
		if err := json.NewDecoder(r.Body).Decode(&seen); err != nil {
			seen.Error = err.Error()
		}
		select {
		case site.reports <- seen:
		default: // only the first report is needed
		}
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	site.url = server.URL
	return site
}

// open opens the page in a browser, at the origin at, and returns the report of the script. The browser resolves the
// host mesh.example to this machine.
func (s *website) open(t *testing.T, at, script string) report {
	t.Helper()
	s.script.Store(script)
	log := newLines()
	cmd := exec.Command("chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
		"--host-resolver-rules=MAP mesh.example 127.0.0.1", "--user-data-dir="+t.TempDir(), at+"/page/")
	cmd.Stderr = log.writer()
	p, err := startProcess(cmd)
	if err != nil {
		t.Fatalf("%v: make interop-clients installs chromium", err)
	}
	defer p.stop(t)
	select {
	case seen := <-s.reports:
		return seen
	case <-p.done:
		t.Fatalf("the browser ended with %v:\n%s", p.err, log)
	case <-time.After(responseTimeout):
		t.Fatalf("the script has sent no report:\n%s", log)
	}
	return report{}
}

// addPage changes a configuration of nginx so that it serves the page beside the mesh.
func (s *website) addPage(configuration string) string {
	return strings.Replace(configuration, "location /", "location /page/ { proxy_pass "+s.url+"; }\nlocation /", 1)
}

// withHostName returns a URL with the name of a host that the browser resolves to this machine.
func withHostName(url string) string { return strings.Replace(url, "127.0.0.1", "mesh.example", 1) }

// recorder is a proxy before an ingress that records requests and the status of their responses.
type recorder struct {
	url string
	mu  sync.Mutex
	got []string // method, path and status
}

func newRecorder(t *testing.T, target string) *recorder {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) { p.SetURL(u); p.Out.Host = p.In.Host },
		ModifyResponse: func(res *http.Response) error {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.got = append(r.got, fmt.Sprintf("%s %s %d", res.Request.Method, res.Request.URL.Path, res.StatusCode))
			return nil
		},
		FlushInterval: -1,
	}
	server := httptest.NewServer(proxy)
	t.Cleanup(server.Close)
	r.url = server.URL
	return r
}

// recordsWithPrefix returns the records that begin with prefix.
func (r *recorder) recordsWithPrefix(prefix string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(r.got), func(s string) bool { return !strings.HasPrefix(s, prefix) })
}

const (
	// postImage posts an image without a preflight request, as any page can. Then it posts one and reads the response.
	postImage = `
await fetch("%[1]s/v1/images?pipeline=text", {method: "POST", mode: "no-cors", body: new Blob([image])});
const response = await fetch("%[1]s/v1/images?pipeline=text", {method: "POST", body: image});
report({status: response.status, text: (await response.json()).text});`
	// postSameOrigin posts an image to the origin of the page.
	postSameOrigin = `
const response = await fetch("/v1/images?pipeline=text", {method: "POST", body: image});
const outcome = await response.json();
report({status: response.status, text: response.ok ? outcome.text : outcome.detail});`
	// useOldPage chooses an image in the page of /tyocr, presses its button, and waits for the text.
	useOldPage = `
const frame = document.createElement("iframe");
frame.src = "%[1]s";
await new Promise(loaded => {
	frame.addEventListener("load", loaded);
	document.body.append(frame);
});
const inside = frame.contentDocument;
const files = new DataTransfer();
files.items.add(new File([image], "image.png"));
inside.querySelector("input").files = files.files;
const out = inside.querySelector("pre");
new MutationObserver(() => {
	if (out.textContent !== "…") report({text: out.textContent});
}).observe(out, {childList: true, characterData: true, subtree: true});
inside.querySelector("button").click();`
	// watchJob submits an image and reads its event stream until the browser closes it.
	watchJob = `
const headers = {Prefer: "respond-async"};
const accepted = await fetch("%[1]s/v1/images?pipeline=text", {method: "POST", body: image, headers});
const source = new EventSource("%[1]s" + accepted.headers.get("Location") + "/events");
const events = [];
let text = "";
for (const name of ["accepted", "detecting", "classifying", "done", "failed"]) {
	source.addEventListener(name, event => {
		events.push(name);
		text = JSON.parse(event.data).text;
	});
}
source.addEventListener("error", () => {
	if (source.readyState === EventSource.CLOSED) report({status: accepted.status, events, text});
});`
	// openSession sends two frames over a WebSocket.
	openSession = `
const socket = new WebSocket("%[1]s/v1/stream?pipeline=text");
const messages = [];
socket.addEventListener("open", () => {
	socket.send(image);
	socket.send(image);
	socket.send(JSON.stringify({end: true}));
});
socket.addEventListener("message", event => messages.push(event.data));
socket.addEventListener("close", event => report({messages, code: event.code}));`
)

// TestClients_BrowserPost checks that a page of another origin cannot post an image unless --cors-origins of ingress
// has its origin.
func TestClients_BrowserPost(t *testing.T) {
	m := start(t, nil)
	site := newWebsite(t)
	for name, tt := range map[string]struct {
		args []string
		// posts are the records of the POST requests. The second one is sent only if the preflight request allows it.
		posts  []string
		stored int
	}{
		"origin not named": {nil, []string{"POST /v1/images 403"}, 0},
		"origin named":     {[]string{"--cors-origins", site.url}, []string{"POST /v1/images 200", "POST /v1/images 200"}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			nc := m.connect(t)
			images, err := nc.SubscribeSync("sight.v1.images.>")
			if err == nil {
				err = nc.Flush()
			}
			if err != nil {
				t.Fatal(err)
			}
			ingress := newRecorder(t, m.addIngress(t, tt.args...))
			seen := site.open(t, site.url, fmt.Sprintf(postImage, ingress.url))
			if got := ingress.recordsWithPrefix("POST"); !slices.Equal(got, tt.posts) {
				t.Errorf("the posts get %q, want %q", got, tt.posts)
			}
			if err := nc.Flush(); err != nil {
				t.Fatal(err)
			}
			switch stored, _, err := images.Pending(); {
			case err != nil:
				t.Error(err)
			case stored != tt.stored:
				t.Errorf("%d images were stored, want %d", stored, tt.stored)
			}
			if hasText, want := strings.Contains(seen.Text, "sightmesh reads this page"), tt.stored > 0; hasText != want {
				t.Errorf("the script reports %+v, want the text of the page: %v", seen, want)
			}
		})
	}
}

// TestClients_BrowserSameOrigin checks that a page of the same origin can post an image through nginx with the
// configuration of nginx.org, which does not pass the host, if the browser says that the page is of the same origin.
// Chromium says so if the origin is trustworthy: https, or an address of this machine.
func TestClients_BrowserSameOrigin(t *testing.T) {
	m := start(t, nil)
	site := newWebsite(t)
	recipe := startNginx(t, site.addPage(webSocketRecipe), m.http[0], "")
	documented := startNginx(t, site.addPage(nginxRecipe(t)), m.http[0], "")
	for name, tt := range map[string]struct {
		page   string
		status int
	}{
		"recipe of nginx.org":                 {recipe, http.StatusOK},
		"recipe of nginx.org, name of a host": {withHostName(recipe), http.StatusForbidden},
		"recipe, name of a host":              {withHostName(documented), http.StatusOK},
	} {
		t.Run(name, func(t *testing.T) {
			seen := site.open(t, tt.page, postSameOrigin)
			if seen.Status != tt.status {
				t.Fatalf("the script reports %+v: status %d, want %d", seen, seen.Status, tt.status)
			}
			if tt.status == http.StatusForbidden {
				checkAdvice(t, seen.Text, tt.page)
			} else if !strings.Contains(seen.Text, "sightmesh reads this page") {
				t.Errorf("the response has the text %q, want the text of the page", seen.Text)
			}
		})
	}
}

// TestClients_BrowserOldPage checks that the page of /tyocr reads an image below a prefix.
func TestClients_BrowserOldPage(t *testing.T) {
	m := start(t, nil)
	site := newWebsite(t)
	mesh := startNginx(t, site.addPage(withPrefix(t, nginxRecipe(t), true)), m.http[0], "")
	seen := site.open(t, mesh, fmt.Sprintf(useOldPage, mesh+"/vision/tyocr"))
	if !strings.Contains(seen.Text, "sightmesh reads this page") {
		t.Errorf("the script reports %+v, want the text of the page", seen)
	}
}

// TestClients_BrowserEventSource checks that the browser reconnects once when the event stream of a job has ended, and
// then stops.
func TestClients_BrowserEventSource(t *testing.T) {
	m := start(t, nil)
	site := newWebsite(t)
	ingress := newRecorder(t, m.addIngress(t, "--cors-origins", site.url))
	seen := site.open(t, site.url, fmt.Sprintf(watchJob, ingress.url))
	switch {
	case len(seen.Events) < 2:
		t.Errorf("the script reports %+v, want at least 2 events", seen)
	case seen.Events[0] != "accepted":
		t.Errorf("the events are %q, want accepted first", seen.Events)
	case seen.Events[len(seen.Events)-1] != "done":
		t.Errorf("the events are %q, want done last", seen.Events)
	}
	if !strings.Contains(seen.Text, "sightmesh reads this page") {
		t.Errorf("the last event has the text %q, want the text of the page", seen.Text)
	}
	var statuses []string
	for _, got := range ingress.recordsWithPrefix("GET") {
		statuses = append(statuses, got[strings.LastIndex(got, " ")+1:])
	}
	if want := []string{"200", "204"}; !slices.Equal(statuses, want) {
		t.Errorf("the requests of the browser got %q, want %q", statuses, want)
	}
}

// TestClients_BrowserSession checks that a page of the same origin can open a session through nginx, and that a page of
// another origin cannot.
func TestClients_BrowserSession(t *testing.T) {
	m := start(t, nil)
	site := newWebsite(t)
	recipe := startNginx(t, site.addPage(nginxRecipe(t)), m.http[0], "")
	hostless := startNginx(t, site.addPage(webSocketRecipe), m.http[0], "")
	at := freeAddresses(t, "127.0.0.1", 1)[0]
	public := startNginx(t, site.addPage(webSocketRecipe), m.addIngress(t, "--public-url", "http://"+at), at)
	allowing := m.addIngress(t, "--cors-origins", site.url)
	for name, tt := range map[string]struct {
		page, mesh string
		opened     bool
	}{
		"recipe":                           {recipe, recipe, true},
		"recipe, name of a host":           {withHostName(recipe), withHostName(recipe), true},
		"recipe of nginx.org":              {hostless, hostless, false},
		"recipe of nginx.org, public URL":  {public, public, true},
		"page of another port":             {site.url, recipe, false},
		"page of another host":             {withHostName(recipe), recipe, false},
		"page of an origin that is named":  {site.url, allowing, true},
		"page of a public URL, other host": {withHostName(public), public, false},
	} {
		t.Run(name, func(t *testing.T) {
			seen := site.open(t, tt.page, fmt.Sprintf(openSession, strings.Replace(tt.mesh, "http:", "ws:", 1)))
			if !tt.opened {
				if len(seen.Messages) != 0 {
					t.Errorf("the page has got the messages %q, want none", seen.Messages)
				}
				if seen.Code != 1006 {
					t.Errorf("the script reports %+v: close code %d, want 1006 of a failed connection", seen, seen.Code)
				}
				return
			}
			switch {
			case len(seen.Messages) != 3:
				t.Fatalf("the script reports %+v: %d messages, want two outcomes and the end", seen, len(seen.Messages))
			case seen.Code != 1000:
				t.Fatalf("the script reports %+v: close code %d, want 1000", seen, seen.Code)
			}
			for i, message := range seen.Messages[:2] {
				var outcome v1.FrameOutcome
				if err := json.Unmarshal([]byte(message), &outcome); err != nil {
					t.Fatal(err)
				}
				switch {
				case outcome.Frame != int64(i):
					t.Fatalf("outcome %d is %s: frame %d, want %d", i, message, outcome.Frame, i)
				case outcome.Status != v1.Done:
					t.Fatalf("outcome %d is %s: status %s, want done", i, message, outcome.Status)
				}
				checkPage(t, *outcome.Result)
			}
		})
	}
}

// checkAdvice checks that the detail of a problem names the settings for a proxy that does not pass the host.
func checkAdvice(t *testing.T, detail, page string) {
	t.Helper()
	for _, want := range []string{page, " Host", "X-Forwarded-Host", "trusted-proxies", "public-url"} {
		if !strings.Contains(detail, want) {
			t.Errorf("the detail of the problem is %q, want %s in it", detail, want)
		}
	}
}
