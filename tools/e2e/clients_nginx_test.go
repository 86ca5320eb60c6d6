//go:build interop_clients

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
	"github.com/getkin/kin-openapi/openapi3"

	"github.com/sightmesh/sightmesh/contracts/eventually"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// meshInRecipe is the address of the mesh in the recipe of docs/operating.md.
const meshInRecipe = "127.0.0.1:8080"

// nginxRecipe returns the configuration for nginx of docs/operating.md.
func nginxRecipe(t *testing.T) string {
	t.Helper()
	_, block, found := strings.Cut(readOperatingPage(t), "```nginx\n")
	if !found {
		t.Fatal("docs/operating.md has no configuration for nginx")
	}
	recipe, _, ended := strings.Cut(block, "```\n")
	if !ended {
		t.Fatal("the configuration for nginx in docs/operating.md has no end")
	}
	return recipe
}

// readOperatingPage returns the page docs/operating.md.
func readOperatingPage(t *testing.T) string {
	t.Helper()
	page, err := os.ReadFile(filepath.Join(root(t), "docs", "operating.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(page)
}

// webSocketRecipe is the configuration for WebSockets of nginx.org, with a larger limit for bodies.
const webSocketRecipe = `
map $http_upgrade $connection_upgrade { default upgrade; '' close; }
server {
	listen 80;
	location / {
		proxy_pass http://127.0.0.1:8080;
		proxy_http_version 1.1;
		proxy_set_header Upgrade $http_upgrade;
		proxy_set_header Connection $connection_upgrade;
		client_max_body_size 65m;
	}
}`

// Controllers generate these configurations from an Ingress without annotations. directives has what annotations add.
const (
	ingressNginx = `
map $http_upgrade $connection_upgrade { default upgrade; '' ''; }
map $http_x_request_id $req_id { default $http_x_request_id; '' $request_id; }
server {
	listen 80;
	location / {
		proxy_pass http://127.0.0.1:8080;
		proxy_http_version 1.1;
		proxy_buffering off;
		proxy_set_header Host $http_host;
		proxy_set_header Upgrade $http_upgrade;
		proxy_set_header Connection $connection_upgrade;
		proxy_set_header X-Request-ID $req_id;
		proxy_set_header X-Real-IP $remote_addr;
		proxy_set_header X-Forwarded-For $remote_addr;
		proxy_set_header X-Forwarded-Host $http_host;
		proxy_set_header X-Forwarded-Proto $scheme;
	}
}`
	nginxIngressController = `
map $http_upgrade $connection_upgrade { default upgrade; '' ''; }
server {
	listen 80;
	location / {
		proxy_pass http://127.0.0.1:8080;
		proxy_http_version 1.1;
		proxy_set_header Host $host;
		proxy_set_header X-Real-IP $remote_addr;
		proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
		proxy_set_header X-Forwarded-Host $host;
		proxy_set_header X-Forwarded-Proto $scheme;
	}
}`
)

// directives are the nginx directives of the annotations in docs/operating.md.
var directives = map[string]string{
	"nginx.ingress.kubernetes.io/proxy-body-size":    "client_max_body_size %s;",
	"nginx.ingress.kubernetes.io/proxy-read-timeout": "proxy_read_timeout %ss;",
	"nginx.org/client-max-body-size":                 "client_max_body_size %s;",
	"nginx.org/proxy-read-timeout":                   "proxy_read_timeout %s;",
	"nginx.org/proxy-buffering":                      "proxy_buffering %s;",
	"nginx.org/websocket-services": "# %s\n" +
		"proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;",
}

// addAnnotations adds the directives of the annotations of a controller in docs/operating.md to a configuration.
func addAnnotations(t *testing.T, controller, configuration string) string {
	t.Helper()
	rows := regexp.MustCompile(`(?m)^\| ` + regexp.QuoteMeta(controller) + `.*? \| (.*) \|$`)
	row := rows.FindStringSubmatch(readOperatingPage(t))
	if row == nil {
		t.Fatalf("docs/operating.md has no row for %s", controller)
	}
	var added strings.Builder
	prefix := ""
	for _, m := range regexp.MustCompile("`(\\S+?)/(\\S+): \"?([^\"`]+)\"?`").FindAllStringSubmatch(row[1], -1) {
		if m[1] != "…" {
			prefix = m[1]
		}
		directive, ok := directives[prefix+"/"+m[2]]
		if !ok {
			t.Fatalf("%s: this test does not know the annotation %s/%s", controller, prefix, m[2])
		}
		fmt.Fprintf(&added, directive+"\n", strings.ReplaceAll(m[3], "false", "off"))
	}
	return strings.Replace(configuration, "location / {", "location / {\n"+added.String(), 1)
}

// startNginx runs nginx before an ingress, and returns the URL of nginx. nginx listens on the address at, or on a free
// address when at is empty.
func startNginx(t *testing.T, configuration, ingress, at string) string {
	t.Helper()
	if at == "" {
		at = freeAddresses(t, "127.0.0.1", 1)[0]
	}
	for old, replacement := range map[string]string{
		"listen 80;": "listen " + at + ";",
		meshInRecipe: strings.TrimPrefix(ingress, "http://"),
	} {
		if !strings.Contains(configuration, old) {
			t.Fatalf("no %q in the configuration:\n%s", old, configuration)
		}
		configuration = strings.ReplaceAll(configuration, old, replacement)
	}
	dir := t.TempDir()
	var paths strings.Builder
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		fmt.Fprintf(&paths, "%s_temp_path %s/%s;\n", kind, dir, kind)
	}
	file := filepath.Join(dir, "nginx.conf")
	whole := fmt.Sprintf("daemon off; master_process off; pid %s/pid; error_log stderr warn;\nevents {}\n"+
		"http {\naccess_log off;\n%s%s\n}\n", dir, &paths, configuration)
	if err := os.WriteFile(file, []byte(whole), 0o600); err != nil {
		t.Fatal(err)
	}
	log := newLines()
	cmd := exec.Command("nginx", "-p", dir, "-c", file, "-e", "stderr")
	cmd.Stderr = log.writer()
	p, err := startProcess(cmd)
	if err != nil {
		t.Fatalf("%v: make interop-clients installs nginx", err)
	}
	t.Cleanup(func() {
		p.stop(t)
		if t.Failed() {
			t.Logf("nginx:\n%s", log)
		}
	})
	eventually.Succeeds(t, responseTimeout, func() error {
		select {
		case <-p.done:
			t.Fatalf("nginx ended with %v:\n%s", p.err, log)
		default:
		}
		conn, err := net.Dial("tcp", at)
		if err == nil {
			conn.Close()
		}
		return err
	})
	return "http://" + at
}

// addIngress starts an ingress with additional arguments, and returns its URL.
func (m *mesh) addIngress(t *testing.T, args ...string) string {
	t.Helper()
	m.join(t, "ingress", args...)
	return m.http[len(m.http)-1]
}

// clientAt returns an HTTP client that connects from an address of the loopback network.
func clientAt(t *testing.T, address string) *http.Client {
	t.Helper()
	transport := &http.Transport{DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}).DialContext}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: responseTimeout}
}

// TestClients_Nginx uses a mesh through nginx with the documented configuration and with those of Kubernetes
// controllers.
func TestClients_Nginx(t *testing.T) {
	m := start(t, nil)
	trusting := m.addIngress(t, "--trusted-proxies", "127.0.0.1/32", "--client-event-streams", "1")
	for name, configuration := range map[string]string{
		"recipe":                  nginxRecipe(t),
		"recipe of nginx.org":     webSocketRecipe,
		"ingress-nginx":           addAnnotations(t, "ingress-nginx", ingressNginx),
		"F5 NGINX Ingress":        addAnnotations(t, "F5 NGINX Ingress Controller", nginxIngressController),
		"recipe, with a prefix":   withPrefix(t, nginxRecipe(t), false),
		"recipe, prefix stripped": withPrefix(t, nginxRecipe(t), true),
		"recipe, no buffering": strings.Replace(nginxRecipe(t), "location / {",
			"location / {\nproxy_buffering off; proxy_request_buffering off;", 1),
	} {
		t.Run(name, func(t *testing.T) {
			prefix := ""
			if strings.Contains(name, "prefix") {
				prefix = "/vision"
			}
			url := startNginx(t, configuration, trusting, "") + prefix
			client := clientAt(t, "127.0.0.1")
			// nginx closes a connection after a keep-alive response when it has not read the whole body.
			unbuffered := strings.Contains(configuration, "proxy_request_buffering off;")
			client.Transport.(*http.Transport).DisableKeepAlives = unbuffered
			t.Run("too large", func(t *testing.T) { testNginxTooLarge(t, client, url) })
			t.Run("location", func(t *testing.T) { testNginxLocation(t, url, prefix) })
			t.Run("API description", func(t *testing.T) { testNginxOpenAPI(t, url) })
			t.Run("request ID", func(t *testing.T) { testNginxRequestID(t, url) })
			t.Run("events", func(t *testing.T) { testNginxEvents(t, m, url) })
			t.Run("session", func(t *testing.T) { testNginxSession(t, url) })
			if !strings.Contains(configuration, "X-Forwarded-For") {
				return
			}
			t.Run("clients", func(t *testing.T) { testNginxClients(t, m, url, true) })
		})
	}
	t.Run("untrusted proxy", func(t *testing.T) {
		ingress := m.addIngress(t, "--client-event-streams", "1")
		testNginxClients(t, m, startNginx(t, nginxRecipe(t), ingress, ""), false)
	})
	t.Run("public URL", func(t *testing.T) {
		for _, stripped := range []bool{false, true} {
			t.Run(fmt.Sprintf("stripped %v", stripped), func(t *testing.T) {
				at := freeAddresses(t, "127.0.0.1", 1)[0]
				ingress := m.addIngress(t, "--public-url", "http://"+at+"/vision")
				url := startNginx(t, withPrefix(t, webSocketRecipe, stripped), ingress, at) + "/vision"
				testNginxLocation(t, url, url)
				testNginxOpenAPI(t, url)
			})
		}
	})
}

// withPrefix changes a configuration so that the mesh is below the prefix /vision.
func withPrefix(t *testing.T, configuration string, stripped bool) string {
	t.Helper()
	const pass = "proxy_pass http://" + meshInRecipe
	for _, want := range []string{"location / {", pass + ";"} {
		if !strings.Contains(configuration, want) {
			t.Fatalf("no %q in the configuration:\n%s", want, configuration)
		}
	}
	const prefixed = "location /vision/ {\nproxy_set_header X-Forwarded-Prefix /vision;"
	out := strings.Replace(configuration, "location / {", prefixed, 1)
	if stripped {
		out = strings.Replace(out, pass+";", pass+"/;", 1)
	}
	return out
}

// testNginxTooLarge checks that each client that sends an image that is too large gets the problem.
func testNginxTooLarge(t *testing.T, client *http.Client, url string) {
	image := make([]byte, 20<<20)
	for i := range 20 {
		var body io.Reader = bytes.NewReader(image)
		if i%2 == 1 {
			body = io.MultiReader(body) // without Content-Length
		}
		req, err := http.NewRequest(http.MethodPost, url+"/v1/images", body)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "image/png")
		a, err := exchange(client, req)
		switch {
		case err != nil:
			t.Errorf("image %d: %v", i, err)
		case a.status != http.StatusRequestEntityTooLarge:
			t.Errorf("image %d: got %v, want status 413", i, a)
		case a.problem.Code != v1.TooLarge:
			t.Errorf("image %d: got %v, want the problem %s", i, a, v1.TooLarge)
		}
	}
}

// testNginxLocation checks that a client that follows the Location of an accepted image gets its result.
func testNginxLocation(t *testing.T, url, base string) {
	client := clientAt(t, "127.0.0.1")
	req, err := http.NewRequest(http.MethodPost, url+"/v1/images?pipeline=text", bytes.NewReader(samplePage(t)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Prefer", "respond-async")
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusAccepted {
		t.Fatalf("the image got %s, want 202", res.Status)
	}
	if location := res.Header.Get("Location"); !strings.HasPrefix(location, base+"/v1/images/") {
		t.Errorf("Location is %s, want it to begin with %s/v1/images/", location, base)
	}
	job, err := res.Location()
	if err != nil {
		t.Fatal(err)
	}
	req, err = http.NewRequest(http.MethodGet, job.String()+"?wait=30", nil)
	if err != nil {
		t.Fatal(err)
	}
	a, err := exchange(client, req)
	switch {
	case err != nil:
		t.Fatalf("GET %s: %v", job, err)
	case a.result.Status != v1.Done:
		t.Fatalf("GET %s: %v: status %s, want done", job, a, a.result.Status)
	}
	checkPage(t, a.result)
}

// testNginxOpenAPI checks that the first server of the API description is the mesh behind nginx.
func testNginxOpenAPI(t *testing.T, url string) {
	client := clientAt(t, "127.0.0.1")
	res, err := client.Get(url + "/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	document, err := openapi3.NewLoader().LoadFromIoReader(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	mesh, err := res.Request.URL.Parse(strings.TrimSuffix(document.Servers[0].URL, "/") + "/v1/pipelines")
	if err != nil {
		t.Fatal(err)
	}
	if want := url + "/v1/pipelines"; mesh.String() != want {
		t.Errorf("a generated client requests %s, want %s", mesh, want)
	}
	pipelines, err := client.Get(mesh.String())
	if err != nil {
		t.Fatal(err)
	}
	defer pipelines.Body.Close()
	if pipelines.StatusCode != http.StatusOK {
		t.Errorf("GET %s: %s, want 200", mesh, pipelines.Status)
	}
}

func testNginxRequestID(t *testing.T, url string) {
	req, err := http.NewRequest(http.MethodGet, url+"/v1/pipelines", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Request-Id", "of-the-client-1")
	a, err := exchange(clientAt(t, "127.0.0.1"), req)
	if err != nil {
		t.Fatal(err)
	}
	if got := a.header.Get("X-Request-Id"); got != "of-the-client-1" {
		t.Errorf("X-Request-Id is %q, want of-the-client-1 as in the request", got)
	}
}

// storeUnservedJob stores an image of a pipeline without workers, so that its job ends only when it is cancelled.
func storeUnservedJob(t *testing.T, m *mesh) (id string) {
	t.Helper()
	id = rand.Text()
	nc := m.connect(t)
	image := subject.Images(subject.Job{Pipeline: "unserved", Priority: subject.Bulk, ID: id})
	if _, err := nc.Request(image, samplePage(t), responseTimeout); err != nil {
		t.Fatal(err)
	}
	return id
}

// testNginxEvents checks that events reach the client while the stream is open.
func testNginxEvents(t *testing.T, m *mesh, url string) {
	id := storeUnservedJob(t, m)
	events := watchEvents(t, clientAt(t, "127.0.0.1"), url, id)
	if name := events.next(t); name != v1.EventAccepted {
		t.Fatalf("the first event is %s, want accepted", name)
	}
	nc := m.connect(t)
	for _, name := range []v1.EventName{v1.EventDetecting, v1.EventClassifying} {
		if err := nc.Publish(subject.Events(id), fmt.Appendf(nil, `{"id":%q,"event":%q}`, id, name)); err != nil {
			t.Fatal(err)
		}
		if got := events.next(t); got != name {
			t.Fatalf("the next event is %s, want %s", got, name)
		}
	}
	req, err := http.NewRequest(http.MethodDelete, url+"/v1/images/"+id, nil)
	if err != nil {
		t.Fatal(err)
	}
	switch a, err := exchange(clientAt(t, "127.0.0.1"), req); {
	case err != nil:
		t.Fatalf("cancel: %v", err)
	case a.status != http.StatusOK:
		t.Fatalf("cancel: %v, want 200", a)
	}
	if got := events.next(t); got != v1.EventFailed {
		t.Errorf("the last event is %s, want failed", got)
	}
	if got := events.next(t); got != "" {
		t.Errorf("the event %s comes after the last one, want the end of the stream", got)
	}
}

// testNginxSession sends frames in a session and reads their outcomes.
func testNginxSession(t *testing.T, url string) {
	ctx, cancel := context.WithTimeout(t.Context(), responseTimeout)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, url+"/v1/stream?pipeline=text", nil) //nolint:bodyclose // a session has no body
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	conn.SetReadLimit(-1)
	page := samplePage(t)
	for range 3 {
		if err := conn.Write(ctx, websocket.MessageBinary, page); err != nil {
			t.Fatal(err)
		}
	}
	if err := wsjson.Write(ctx, conn, v1.SessionControl{End: true}); err != nil {
		t.Fatal(err)
	}
	for i := range int64(3) {
		var outcome v1.FrameOutcome
		if err := wsjson.Read(ctx, conn, &outcome); err != nil {
			t.Fatal(err)
		}
		switch {
		case outcome.Frame != i:
			t.Fatalf("outcome %+v: frame %d, want %d", outcome, outcome.Frame, i)
		case outcome.Status != v1.Done:
			t.Fatalf("outcome %+v: status %s, want done", outcome, outcome.Status)
		}
		checkPage(t, *outcome.Result)
	}
	var end v1.SessionEnd
	switch err := wsjson.Read(ctx, conn, &end); {
	case err != nil:
		t.Errorf("read the last message: %v", err)
	case !end.End:
		t.Errorf("the last message is %+v, want the end of the session", end)
	case end.Frames != 3:
		t.Errorf("the session ends with %d frames, want 3", end.Frames)
	}
}

// testNginxClients tests an ingress that allows one event stream per client. If the ingress trusts the proxy, every
// client may have one. If not, all clients behind the proxy share one. X-Forwarded-For of a client has no effect.
func testNginxClients(t *testing.T, m *mesh, url string, trusted bool) {
	id := storeUnservedJob(t, m)
	first := watchEvents(t, clientAt(t, "127.0.0.11"), url, id)
	first.next(t)
	status := func(address string) int {
		t.Helper()
		req, err := http.NewRequest(http.MethodGet, url+"/v1/images/"+id+"/events", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Forwarded-For", "192.0.2.1")
		res, err := clientAt(t, address).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.StatusCode
	}
	if got := status("127.0.0.11"); got != http.StatusTooManyRequests {
		t.Errorf("the second stream of a client got %d, want 429", got)
	}
	want := http.StatusOK
	if !trusted {
		want = http.StatusTooManyRequests
	}
	if got := status("127.0.0.12"); got != want {
		t.Errorf("the stream of another client got %d, want %d", got, want)
	}
}

// eventReader reads an event stream.
type eventReader struct{ lines *bufio.Scanner }

func watchEvents(t *testing.T, client *http.Client, url, id string) eventReader {
	t.Helper()
	res, err := client.Get(url + "/v1/images/" + id + "/events")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	if res.StatusCode != http.StatusOK {
		t.Fatalf("GET events: %s, want 200", res.Status)
	}
	return eventReader{bufio.NewScanner(res.Body)}
}

// next returns the name of the next event, or "" at the end of the stream.
func (r eventReader) next(t *testing.T) v1.EventName {
	t.Helper()
	for r.lines.Scan() {
		if name, ok := strings.CutPrefix(r.lines.Text(), "event: "); ok {
			return v1.EventName(name)
		}
	}
	if err := r.lines.Err(); err != nil {
		t.Fatal(err)
	}
	return ""
}
