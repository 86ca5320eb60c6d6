//go:build cluster

package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/sightmesh/sightmesh/contracts/eventually"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/tools/internal/chaos"
)

// page is an image whose codes are known, and the pipeline that finds them.
type page struct {
	pipeline string
	file     []byte
	codes    []string
}

// load is a steady load of concurrent clients. Each client sends an image, waits for its
// outcome, and then for the rest of its interval.
type load struct {
	to     string // base URL of the mesh
	ledger *chaos.Ledger
	client *http.Client
	ending chan struct{} // closed when clients must not begin another round
	ended  sync.WaitGroup

	requests atomic.Int64
	mu       sync.Mutex
	failed   []string // failed requests with their responses
}

// outcomeTimeout is how long a client waits for an outcome. It is longer than the deadline of
// an interactive job.
const outcomeTimeout = 2 * time.Minute

// newLoad returns a load without clients.
func newLoad(to string) *load {
	return &load{
		to: to, ledger: chaos.NewLedger(uint64(time.Now().UnixNano()), time.Minute, nil),
		client: &http.Client{Timeout: 90 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 10}},
		ending: make(chan struct{}),
	}
}

// client is one client of a load.
type client struct {
	page  page
	async bool          // whether it polls instead of waiting in the request
	every time.Duration // from the begin of a round to the begin of the next
}

// mixedClients returns clients that send images in different ways.
func (s *suite) mixedClients() []client {
	return []client{
		{s.codes, false, 200 * time.Millisecond},
		{s.codes, false, 250 * time.Millisecond},
		{s.codes, true, 300 * time.Millisecond},
		{s.text, false, 2 * time.Second},
		{s.text, true, 2 * time.Second},
	}
}

// probePause is the pause of the client that opens a new connection for each request.
const probePause = 20 * time.Millisecond

// startLoad starts clients, which end with the test. One more client requests the
// pipelines on a new connection each time, because clients that keep their connection do
// not notice a listener that is closed too early.
func startLoad(t *testing.T, to string, clients []client) *load {
	l := newLoad(to)
	for n, c := range clients {
		l.ended.Go(func() {
			ticks := time.NewTicker(c.every)
			defer ticks.Stop()
			for {
				l.send(fmt.Sprintf("client %d, %s", n, c.page.pipeline), c.page, c.async)
				select {
				case <-ticks.C:
				case <-l.ending:
					return
				}
			}
		})
	}
	l.ended.Go(func() {
		ticks := time.NewTicker(probePause)
		defer ticks.Stop()
		for {
			select {
			case <-ticks.C:
				l.probe()
			case <-l.ending:
				return
			}
		}
	})
	t.Cleanup(l.stop)
	return l
}

// probe sends a request on a new connection. A failure is counted.
func (l *load) probe() {
	client := &http.Client{Timeout: l.client.Timeout, Transport: &http.Transport{DisableKeepAlives: true}}
	_, _, _ = l.requestBy(client, http.MethodGet, "/v1/pipelines", nil)
}

// stop waits until every client has the outcome of its last image.
func (l *load) stop() {
	select {
	case <-l.ending:
	default:
		close(l.ending)
	}
	l.ended.Wait()
}

// request sends a request. It counts as failed without a response and with status 429 or
// 5xx.
func (l *load) request(method, path string, body []byte, header ...string) (status int, content []byte, err error) {
	return l.requestBy(l.client, method, path, body, header...)
}

func (l *load) requestBy(client *http.Client, method, path string, body []byte, header ...string) (
	status int, content []byte, err error,
) {
	l.requests.Add(1)
	defer func() {
		if err != nil || status == http.StatusTooManyRequests || status >= http.StatusInternalServerError {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.failed = append(l.failed, fmt.Sprintf("%s %s: %d %s %v", method, path, status, content, err))
		}
	}()
	req, err := http.NewRequest(method, l.to+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	content, err = io.ReadAll(res.Body)
	return res.StatusCode, content, err
}

// failures returns the requests that failed.
func (l *load) failures() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.failed)
}

// send sends an image and waits for its outcome.
func (l *load) send(client string, p page, async bool) {
	query, header := "", []string{}
	if async {
		query, header = "&priority=bulk", []string{"Prefer", "respond-async"}
	}
	if i, id := l.post(client, p, query, header...); id != "" {
		l.awaitOutcome(i, id)
	}
}

// post sends an image. It returns the ID of the job when the job has no outcome yet.
func (l *load) post(client string, p page, query string, header ...string) (i chaos.Image, id string) {
	i, err := l.ledger.NewCopy(client, p.file, p.codes)
	if err != nil {
		l.ledger.Violate(chaos.Wrong, "%s: %v", client, err)
		return i, ""
	}
	status, content, err := l.request(http.MethodPost, "/v1/images?pipeline="+p.pipeline+query, i.File,
		append(header, "Content-Type", "image/png")...)
	var result v1.Result
	var problem v1.Problem
	if err == nil && status < http.StatusBadRequest {
		err = json.Unmarshal(content, &result)
	} else if err == nil {
		err = json.Unmarshal(content, &problem)
	}
	switch {
	case err != nil:
		l.ledger.MarkInterrupted(i)
	case status == http.StatusOK:
		l.ledger.Accept(i, result.ID, false)
		l.ledger.RecordResult(i, result, time.Now())
	case status == http.StatusAccepted:
		l.ledger.Accept(i, result.ID, false)
		return i, result.ID
	case status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable:
		l.ledger.Reject(i, problem)
	case problem.Job != "": // the problem is the outcome of the job
		l.ledger.Accept(i, problem.Job, false)
		l.ledger.RecordResult(i, v1.Result{ID: problem.Job, Status: v1.Failed, Problem: &problem}, time.Now())
	default:
		l.ledger.MarkInterrupted(i)
	}
	return i, ""
}

// awaitOutcome looks up a job until it has an outcome, for at most outcomeTimeout. The
// ledger records a job without an outcome.
func (l *load) awaitOutcome(i chaos.Image, id string) {
	eventually.Retry(outcomeTimeout, func() error {
		final, err := l.lookUp(i, id)
		if err == nil && !final {
			err = fmt.Errorf("job %s has no outcome", id)
		}
		return err
	})
}

func (l *load) lookUp(i chaos.Image, id string) (final bool, err error) {
	asked := time.Now()
	status, content, err := l.request(http.MethodGet, "/v1/images/"+id, nil)
	if err != nil {
		return false, err
	}
	if status != http.StatusOK {
		return false, fmt.Errorf("look up job %s: %d %s", id, status, content)
	}
	var r v1.Result
	if err := json.Unmarshal(content, &r); err != nil {
		return false, fmt.Errorf("look up job %s: %w", id, err)
	}
	l.ledger.RecordResult(i, r, asked)
	return r.Final(), nil
}

// settle stops the load and checks that every accepted job has exactly one outcome, which
// the mesh has stored once and returns again.
func (l *load) settle(t *testing.T, natsURL string) chaos.Counts {
	t.Helper()
	l.stop()
	requests, failed := l.requests.Load(), l.failures()
	for _, j := range l.ledger.Open() {
		l.awaitOutcome(j.Image, j.ID)
	}
	for _, j := range l.ledger.Open() {
		l.ledger.Violate(chaos.Lost, "%s: job %s has no outcome", j.Image.Client, j.ID)
	}
	if err := readOutcomes(t.Context(), natsURL, l.ledger); err != nil {
		t.Error(err)
	}
	for _, j := range l.ledger.Jobs() {
		if final, err := l.lookUp(j.Image, j.ID); err != nil || !final {
			l.ledger.Violate(chaos.Changed, "%s: job %s had an outcome, and has none when it is looked up: %v",
				j.Image.Client, j.ID, err)
		}
	}
	l.requests.Store(requests) // only the requests of the clients, not those above
	l.failed = failed
	c := l.ledger.Close()
	t.Logf("%d requests, %d failed, %d accepted, %d rejected %v, %d unanswered, %d expired",
		requests, len(failed), c.Accepted, c.Rejected, c.Codes, c.Unanswered, len(c.Expired))
	for guarantee, all := range c.Broken {
		t.Errorf("%d %s: %q", len(all), guarantee, all[:min(len(all), 5)])
	}
	return c
}

// readOutcomes records the outcomes in the stream RESULTS.
func readOutcomes(ctx context.Context, url string, ledger *chaos.Ledger) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	nc, err := nats.Connect(url, nats.Timeout(time.Minute))
	if err != nil {
		return fmt.Errorf("read RESULTS: %w", err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return fmt.Errorf("read RESULTS: %w", err)
	}
	consumer, err := js.OrderedConsumer(ctx, streams.Results, jetstream.OrderedConsumerConfig{})
	if err != nil {
		return fmt.Errorf("read RESULTS: %w", err)
	}
	seen := map[string]bool{}
	for pending := uint64(1); pending > 0; {
		msg, err := consumer.Next(jetstream.FetchContext(ctx))
		if err != nil {
			return fmt.Errorf("read RESULTS: %w", err)
		}
		meta, err := msg.Metadata()
		if err != nil {
			return fmt.Errorf("read RESULTS: %w", err)
		}
		pending = meta.NumPending
		job, err := subject.ParseResults(msg.Subject())
		if err != nil || msg.Headers().Get(v1.HeaderMarker) != "" {
			continue // a marker of the NATS server in place of a deleted outcome
		}
		var r v1.Result
		if err := json.Unmarshal(msg.Data(), &r); err != nil {
			return fmt.Errorf("read RESULTS: job %s: %w", job.ID, err)
		}
		if seen[job.ID] {
			ledger.Violate(chaos.Changed, "job %s was stored twice", job.ID)
		}
		seen[job.ID] = true
		if r.Image != nil {
			ledger.Store(job.ID, r.Image.SHA256)
		}
	}
	return nil
}
