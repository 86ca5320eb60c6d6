package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	webhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/tools/internal/chaos"
)

// chaosLoad is a steady load of concurrent clients. Each client sends one or a few
// images, and waits for their outcomes before it sends the next ones.
type chaosLoad struct {
	ledger *chaos.Ledger
	web    string        // images to fetch, and the receiver of webhooks
	every  time.Duration // from the begin of a round to the begin of the next

	ctx     context.Context // context of the requests
	abort   context.CancelFunc
	ending  chan struct{} // closed when clients must not begin another round
	running sync.WaitGroup

	mu      sync.Mutex
	to      []string             // base URLs of the ingresses
	webOpen chan struct{}        // closed while the web server responds
	rounds  map[string]time.Time // by client: begin of its last round that ended with an outcome
	more    chan struct{}        // closed and replaced when rounds changes
}

// chaosPause is the minimum time between the begins of two rounds of a client, for
// each server of the mesh. When a mesh has more interactive work than it can
// process, it processes no bulk work, and every bulk job expires. `make test` uses
// a longer pause, because its NATS servers run with the race detector.
const (
	chaosPause    = 60 * time.Millisecond
	fewFaultPause = 120 * time.Millisecond
)

// chaosPatience is how long a client waits for an outcome. It is longer than the
// deadline of a job.
const chaosPatience = chaosDeadline + bulkMargin + 20*time.Second

// newChaosLoad starts the clients.
func newChaosLoad(t testing.TB, ledger *chaos.Ledger, to []string, every time.Duration) *chaosLoad {
	t.Helper()
	l := &chaosLoad{
		ledger: ledger, to: to, every: every, ending: make(chan struct{}),
		webOpen: make(chan struct{}), rounds: map[string]time.Time{}, more: make(chan struct{}),
	}
	close(l.webOpen)
	l.ctx, l.abort = context.WithCancel(context.Background())
	l.web = l.serve(t)
	for name, round := range map[string]func(*chaosClient) bool{
		"sync one-part":      func(c *chaosClient) bool { return c.postSync("one-part") },
		"sync many-parts":    func(c *chaosClient) bool { return c.postSync("many-parts") },
		"sync many-parts 2":  func(c *chaosClient) bool { return c.postSync("many-parts") },
		"async one-part":     func(c *chaosClient) bool { return c.postAsync("one-part", false) },
		"async many-parts":   func(c *chaosClient) bool { return c.postAsync("many-parts", false) },
		"webhook many-parts": func(c *chaosClient) bool { return c.postAsync("many-parts", true) },
		"key many-parts":     (*chaosClient).postWithKey,
		"report many-parts":  (*chaosClient).report,
		"session many-parts": (*chaosClient).session,
	} {
		l.rounds[name] = time.Time{}
		l.running.Go(func() { l.runClient(&chaosClient{chaosLoad: l, name: name}, round) })
	}
	t.Cleanup(func() { l.stop(0) })
	return l
}

func (l *chaosLoad) runClient(c *chaosClient, round func(*chaosClient) bool) {
	pause := time.NewTicker(c.every)
	defer pause.Stop()
	for {
		select {
		case <-l.ending:
			return
		case <-pause.C:
		}
		begin := time.Now()
		if !round(c) {
			continue
		}
		l.mu.Lock()
		l.rounds[c.name] = begin
		close(l.more)
		l.more = make(chan struct{})
		l.mu.Unlock()
	}
}

// awaitRound waits until every client has ended a round that it began after the
// given time. It returns the clients that were the last to do so.
func (l *chaosLoad) awaitRound(after time.Time, within time.Duration) (last []string, err error) {
	timeout := time.After(within)
	for {
		var waits []string
		l.mu.Lock()
		for name, begin := range l.rounds {
			if !begin.After(after) {
				waits = append(waits, name)
			}
		}
		more := l.more
		l.mu.Unlock()
		if len(waits) == 0 {
			return last, nil
		}
		last = waits
		select {
		case <-more:
		case <-timeout:
			return last, fmt.Errorf("clients without an outcome of an image that they sent after the fault: %q", waits)
		}
	}
}

// awaitRounds waits until about n more rounds have ended, or the time is over.
func (l *chaosLoad) awaitRounds(n int, within time.Duration) {
	timeout := time.After(within)
	for range n {
		l.mu.Lock()
		more := l.more
		l.mu.Unlock()
		select {
		case <-more:
		case <-timeout:
			return
		}
	}
}

// stop lets the clients end their rounds. After the given time it aborts their
// requests.
func (l *chaosLoad) stop(within time.Duration) {
	select {
	case <-l.ending:
	default:
		close(l.ending)
	}
	timer := time.AfterFunc(within, l.abort)
	defer timer.Stop()
	l.running.Wait()
}

// serve starts the web server that serves the images of reports and receives the
// webhooks.
func (l *chaosLoad) serve(t testing.TB) string {
	t.Helper()
	verify, err := webhooks.NewWebhook(webSecret)
	if err != nil {
		t.Fatal(err)
	}
	url, _ := serveOn(t, webHost, func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-l.webOpenChannel():
		case <-r.Context().Done():
			return // the mesh retries
		}
		kind, sum, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		image, known := l.ledger.Find(sum)
		if !known {
			l.ledger.Violate(chaos.Wrong, "a request for %s, which belongs to no image", r.URL.Path)
			w.WriteHeader(http.StatusNotFound)
			return
		}
		if kind == "image" {
			w.Write(image.File) // after an error the mesh retries
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the body is incomplete: the mesh retries
		}
		if err := verify.Verify(body, r.Header); err != nil {
			l.ledger.Violate(chaos.Wrong, "verify the signature of a webhook: %v", err)
		}
		var call struct {
			Type string          `json:"type"`
			Data json.RawMessage `json:"data"`
		}
		var result v1.Result
		if err := errors.Join(json.Unmarshal(body, &call), json.Unmarshal(call.Data, &result)); err != nil {
			l.ledger.Violate(chaos.Wrong, "a webhook with %q: %v", body, err)
			return
		}
		if call.Type != "report.done" {
			l.ledger.RecordWebhook(image, result)
		}
	})
	return url
}

// webOpenChannel returns a channel that is closed while the web server responds.
func (l *chaosLoad) webOpenChannel() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.webOpen
}

// blockWeb stops the web server from responding until release is called. Until then,
// images to fetch and webhooks wait in the mesh.
func (l *chaosLoad) blockWeb() (release func()) {
	held := make(chan struct{})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.webOpen = held
	return func() { close(held) }
}

// sendTo replaces the base URLs of the ingresses.
func (l *chaosLoad) sendTo(to []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.to = to
}

// anyIngress returns the base URL of a random ingress.
func (l *chaosLoad) anyIngress() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.to[rand.N(len(l.to))]
}

// chaosClient is one client of a load.
type chaosClient struct {
	*chaosLoad
	name string
}

func (c *chaosClient) image() chaos.Image { return c.ledger.NewImage(c.name, false) }

// pause waits before a retry. It returns false when the load is over.
func (c *chaosClient) pause(d time.Duration) bool {
	select {
	case <-c.ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// request sends a request to a random ingress.
func (c *chaosClient) request(method, path, contentType string, body []byte, header ...string) (response, error) {
	url := c.anyIngress() + path
	req, err := http.NewRequestWithContext(c.ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return response{}, err
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("X-Sight-Meta-Client", c.name)
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	return exchange(chaosHTTP, req)
}

func (c *chaosClient) post(i chaos.Image, query string, header ...string) (response, error) {
	return c.request(http.MethodPost, "/v1/images"+query, "image/bmp", i.File, header...)
}

// postSync posts an image and waits for the result in the same request.
func (c *chaosClient) postSync(pipeline string) bool {
	i := c.image()
	a, err := c.post(i, "?pipeline="+pipeline)
	if err != nil {
		c.ledger.MarkInterrupted(i)
		return false
	}
	return c.recordResponse(i, a, false)
}

// postAsync posts an image with Prefer: respond-async, and polls for the outcome.
func (c *chaosClient) postAsync(pipeline string, webhook bool) bool {
	i := c.image()
	query := "?priority=bulk&pipeline=" + pipeline
	if webhook {
		query += "&callback=" + c.web + "/webhook/" + i.Sum
	}
	a, err := c.post(i, query, "Prefer", "respond-async")
	if err != nil {
		c.ledger.MarkInterrupted(i)
		return false
	}
	return c.recordResponse(i, a, webhook)
}

// recordResponse records the response to an image. When the response is no
// outcome, recordResponse waits for the outcome.
func (c *chaosClient) recordResponse(i chaos.Image, a response, webhook bool) bool {
	switch {
	case a.status == http.StatusOK:
		c.ledger.Accept(i, a.result.ID, webhook)
		c.ledger.RecordResult(i, a.result, time.Now())
		return true
	case a.status == http.StatusAccepted:
		c.ledger.Accept(i, a.result.ID, webhook)
		return c.awaitOutcome(i, a.result.ID)
	case a.status == http.StatusTooManyRequests || a.status == http.StatusServiceUnavailable:
		c.ledger.Reject(i, a.problem)
		return false
	case a.problem.Job == "": // the job has failed, and the problem does not name it
		c.ledger.MarkInterrupted(i)
		return false
	}
	// The problem is the outcome of the job.
	c.ledger.Accept(i, a.problem.Job, webhook)
	c.ledger.RecordResult(i, v1.Result{ID: a.problem.Job, Status: v1.Failed, Problem: &a.problem}, time.Now())
	return true
}

// lookup requests the outcome of a job once.
func (c *chaosClient) lookup(i chaos.Image, id, query string) (final bool, err error) {
	asked := time.Now()
	a, err := c.request(http.MethodGet, "/v1/images/"+id+query, "", nil)
	switch {
	case err != nil:
		return false, err
	case a.status != http.StatusOK:
		return false, fmt.Errorf("%v", a)
	}
	c.ledger.RecordResult(i, a.result, asked)
	return a.result.Final(), nil
}

// awaitOutcome polls for at most chaosPatience.
func (c *chaosClient) awaitOutcome(i chaos.Image, id string) bool {
	for deadline := time.Now().Add(chaosPatience); time.Now().Before(deadline); {
		query := ""
		if rand.N(2) == 0 {
			query = "?wait=2"
		}
		if final, err := c.lookup(i, id, query); err == nil && final {
			return true
		}
		if !c.pause(100 * time.Millisecond) {
			return false
		}
	}
	return false
}

// postWithKey sends an image with an Idempotency-Key until it has the outcome. It
// retries after a broken connection and after every response without the outcome.
func (c *chaosClient) postWithKey() bool {
	i := c.image()
	for deadline := time.Now().Add(chaosPatience); time.Now().Before(deadline); {
		a, err := c.post(i, "?pipeline=many-parts", "Idempotency-Key", "chaos "+i.Sum, "Prefer", "wait=2")
		switch {
		case err != nil:
			c.ledger.MarkInterrupted(i)
		case a.status == http.StatusAccepted:
			c.ledger.Accept(i, a.result.ID, false)
		default:
			if c.recordResponse(i, a, false) {
				return true
			}
		}
		if !c.pause(100 * time.Millisecond) {
			return false
		}
	}
	return false
}

// report submits a report whose images the mesh fetches, and polls until all images
// have outcomes.
func (c *chaosClient) report() bool {
	var images []chaos.Image
	var sources []string
	for range 5 {
		i := c.image()
		images = append(images, i)
		sources = append(sources, fmt.Sprintf(`{"url":%q}`, c.web+"/image/"+i.Sum))
	}
	body := []byte(`{"images":[` + strings.Join(sources, ",") + `]}`)
	path := "/v1/reports?pipeline=many-parts&callback=" + c.web + "/webhook/" + images[0].Sum
	var report v1.Report
	for deadline := time.Now().Add(chaosPatience); report.ID == ""; {
		if time.Now().After(deadline) {
			return false
		}
		a, err := c.request(http.MethodPost, path, "application/json", body, "Idempotency-Key", "chaos "+images[0].Sum)
		switch {
		case err != nil:
			for _, i := range images {
				c.ledger.MarkInterrupted(i)
			}
		case a.status == http.StatusAccepted || a.status == http.StatusOK:
			if err := json.Unmarshal(a.body, &report); err != nil {
				c.ledger.Violate(chaos.Wrong, "%s: %v: %v", c.name, a, err)
				return false
			}
		default:
			for _, i := range images {
				c.ledger.Reject(i, a.problem)
			}
		}
		if report.ID == "" && !c.pause(100*time.Millisecond) {
			return false
		}
	}
	for n, i := range images {
		c.ledger.Accept(i, fmt.Sprint(report.ID, "-", n), false)
	}
	for deadline := time.Now().Add(chaosPatience); time.Now().Before(deadline); {
		a, err := c.request(http.MethodGet, "/v1/reports/"+report.ID, "", nil)
		if err == nil && a.status == http.StatusOK {
			err = json.Unmarshal(a.body, &report)
			if err == nil && report.Status == v1.Done {
				c.recordReport(images, report)
				return true
			}
		}
		if !c.pause(200 * time.Millisecond) {
			return false
		}
	}
	return false
}

func (c *chaosClient) recordReport(images []chaos.Image, r v1.Report) {
	if len(r.Images) != len(images) {
		c.ledger.Violate(chaos.Wrong, "%s: report %s has %d images, want %d", c.name, r.ID, len(r.Images), len(images))
		return
	}
	for n, i := range images {
		if r.Images[n].Result == nil {
			c.ledger.Violate(chaos.Lost, "%s: report %s is done without a result of image %d", c.name, r.ID, n)
			continue
		}
		c.ledger.RecordResult(i, *r.Images[n].Result, time.Now())
	}
}

// session sends frames over WebSocket. When a session breaks, it opens another one
// from the first frame without an outcome.
func (c *chaosClient) session() bool {
	images := make([]chaos.Image, 8)
	for n := range images {
		images[n] = c.ledger.NewImage(c.name, true)
	}
	next, got := 0, false
	for deadline := time.Now().Add(chaosPatience); next < len(images) && time.Now().Before(deadline); {
		before := next
		next = c.sessionFrom(images, next)
		got = got || next > before
		if next < len(images) && !c.pause(100*time.Millisecond) {
			return false
		}
	}
	return got && next == len(images)
}

// sessionFrom opens a session and returns the number of the first frame without an
// outcome.
func (c *chaosClient) sessionFrom(images []chaos.Image, next int) int {
	ctx, cancel := context.WithTimeout(c.ctx, chaosPatience)
	defer cancel()
	url := fmt.Sprintf("%s/v1/stream?pipeline=many-parts&window=4&from=%d",
		strings.Replace(c.anyIngress(), "http://", "ws://", 1), next)
	ws, _, err := websocket.Dial(ctx, url, nil) //nolint:bodyclose // a session has no body
	if err != nil {
		return next
	}
	defer ws.CloseNow() // the session was read to its end, or is broken
	var sending sync.WaitGroup
	defer sending.Wait()
	defer cancel()
	sending.Go(func() {
		for _, i := range images[next:] {
			if ws.Write(ctx, websocket.MessageBinary, i.File) != nil {
				return
			}
		}
		ws.Write(ctx, websocket.MessageText, []byte(`{"end":true}`)) // the reader notices an error
	})
	for {
		_, data, err := ws.Read(ctx)
		if err != nil {
			return next
		}
		if bytes.Contains(data, []byte(`"next":`)) {
			var end v1.SessionEnd
			if err := json.Unmarshal(data, &end); err != nil || end.Next != int64(next) {
				c.ledger.Violate(chaos.Wrong, "%s: the last message is %s, want the next frame %d, %v", c.name, data, next, err)
			}
			return next
		}
		var a v1.FrameOutcome
		if err := json.Unmarshal(data, &a); err != nil || a.Frame != int64(next) {
			c.ledger.Violate(chaos.Wrong, "%s: got %s, want frame %d, %v", c.name, data, next, err)
			return next
		}
		c.recordFrame(images[next], a)
		next++
	}
}

func (c *chaosClient) recordFrame(i chaos.Image, a v1.FrameOutcome) {
	r := a.Result
	if r == nil && a.Problem != nil && a.Problem.Job != "" && a.Problem.Code != v1.Unavailable {
		r = &v1.Result{ID: a.Problem.Job, Status: v1.Failed, Problem: a.Problem}
	}
	switch {
	case r != nil:
		c.ledger.Accept(i, r.ID, false)
		c.ledger.RecordResult(i, *r, time.Now())
	case a.Problem != nil:
		c.ledger.Reject(i, *a.Problem)
	default:
		c.ledger.Violate(chaos.Wrong, "%s: frame %d is %s without a result", c.name, a.Frame, a.Status)
	}
}
