package ingress

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"image"
	"image/png"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"github.com/sightmesh/sightmesh/contracts/eventually"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane/pipeline"
	"github.com/sightmesh/sightmesh/services/internal/bustest"
	"github.com/sightmesh/sightmesh/services/internal/run"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("net/http.(*persistConn).readLoop"),
		goleak.IgnoreTopFunction("net/http.(*persistConn).writeLoop"))
}

// instance is a running ingress with a real server. The test replies to status requests as the
// workers, and stores results as they do.
type instance struct {
	url string
	nc  *nats.Conn
	js  jetstream.JetStream
	// stop stops ingress as a signal does. The end of the test waits for it.
	stop context.CancelFunc
	srv  *bustest.Server
	log  *logBuffer
	// stopResults ends the results service that startWorkers has started.
	stopResults func()
}

type logBuffer struct {
	mu sync.Mutex
	bytes.Buffer
	seen chan string
}

var httpAddr = regexp.MustCompile(`"name":"http","addr":"([^"]+)"`)

var adminAddr = regexp.MustCompile(`"name":"admin","addr":"([^"]+)"`)

// text returns all lines so far.
func (l *logBuffer) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.String()
}

// admin returns the address of the admin server.
func (l *logBuffer) admin() string {
	if m := adminAddr.FindStringSubmatch(l.text()); m != nil {
		return m[1]
	}
	return ""
}

func (l *logBuffer) Write(b []byte) (int, error) {
	if m := httpAddr.FindSubmatch(b); m != nil {
		l.seen <- string(m[1])
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Buffer.Write(b)
}

// testTimeout limits waits that only a test that hangs reaches.
const testTimeout = time.Minute

func start(t *testing.T, args ...string) *instance {
	t.Helper()
	s := bustest.Start(t, pipeline.BuiltInNames()...)
	return startAt(t, s, s.URL, args...)
}

// startServed opens an ingress beside workers and a results service, as [instance.startWorkers] starts them. They
// run before the ingress, which rejects images when it has found no results service for ten seconds. startServed
// returns when the ingress has the status of the workers.
func startServed(t *testing.T, lanes int, serviceMS float64, args ...string) *instance {
	t.Helper()
	s := bustest.Start(t, pipeline.BuiltInNames()...)
	beside := &instance{nc: s.Connect(t)}
	beside.startWorkers(t, lanes, serviceMS)
	d := startAt(t, s, s.URL, args...)
	d.stopResults = beside.stopResults
	d.awaitServed(t)
	return d
}

// awaitServed waits until the pipeline text is ready.
func (d *instance) awaitServed(t *testing.T) {
	t.Helper()
	eventually.Succeeds(t, testTimeout, func() error {
		if text := d.pipelines(t).Pipelines[0]; !text.Ready {
			return fmt.Errorf("text is not ready: %+v", text)
		}
		return nil
	})
}

// startAt opens an ingress that reaches the server s at url.
func startAt(t *testing.T, s *bustest.Server, url string, args ...string) *instance {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	log := &logBuffer{seen: make(chan string, 1)}
	done := make(chan error, 1)
	var options Options
	go func() {
		done <- run.Run(ctx, run.Spec{
			Name: "ingress", Flags: options.Register,
			Validate: func([]pipeline.Pipeline) error { return options.Validate() },
			New:      func(p *run.Process) (run.Service, error) { return New(p, options) },
		}, append([]string{"--nats", url, "--http", "127.0.0.1:0"}, args...), func(string) string { return "" }, log)
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("ingress ended with %v\n%s", err, log.text())
		}
	})
	d := &instance{nc: s.Connect(t), stop: cancel, srv: s, log: log}
	var err error
	if d.js, err = jetstream.New(d.nc); err != nil {
		t.Fatal(err)
	}
	select {
	case addr := <-log.seen:
		d.url = "http://" + addr
	case <-time.After(testTimeout):
		t.Fatalf("ingress does not listen:\n%s", log.text())
	}
	// HTTP listens before the NATS server has heard of the endpoints.
	eventually.Succeeds(t, testTimeout, func() error {
		if _, err := d.nc.Request(subject.Analyze("nosuch"), nil, time.Second); err != nil {
			return fmt.Errorf("ingress does not reply over NATS: %w\n%s", err, log.text())
		}
		return nil
	})
	return d
}

// startWorkers replies to status requests as detect, classify and results, with this number of
// lanes and this service time.
func (d *instance) startWorkers(t *testing.T, lanes int, serviceMS float64) {
	t.Helper()
	for _, stage := range []string{"detect", "classify"} {
		body, err := json.Marshal(v1.WorkerStatus{Service: stage, Lanes: lanes, Pipelines: map[string]v1.PipelineStatus{
			"text": {Ready: true, ServiceMS: serviceMS}, "faces": {Reason: "no such cascade"},
		}})
		if err != nil {
			t.Fatal(err)
		}
		sub, err := d.nc.Subscribe(subject.Status(stage), func(m *nats.Msg) { m.Respond(body) })
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { sub.Unsubscribe() })
	}
	d.stopResults = d.startResults(t)
}

// startResults replies to status requests as the results service until the returned function is
// called, or the test ends.
func (d *instance) startResults(t *testing.T) (stop func()) {
	t.Helper()
	sub, err := d.nc.Subscribe(subject.Status("results"), func(m *nats.Msg) { m.Respond([]byte("{}")) })
	if err != nil {
		t.Fatal(err)
	}
	if err := d.nc.Flush(); err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() { sub.Unsubscribe() })
	t.Cleanup(stop)
	return stop
}

// updateImagesStream changes the configuration of the stream IMAGES.
func (d *instance) updateImagesStream(t *testing.T, change func(*jetstream.StreamConfig)) {
	t.Helper()
	s, err := d.js.Stream(t.Context(), streams.Images)
	if err != nil {
		t.Fatal(err)
	}
	cfg := s.CachedInfo().Config
	change(&cfg)
	if _, err := d.js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
}

// nextImage receives the next message of IMAGES, as detect does.
func (d *instance) nextImage(t *testing.T) jetstream.Msg {
	t.Helper()
	c, err := d.js.Consumer(context.Background(), streams.Images,
		streams.WorkConsumer(subject.Detect, "text", subject.Interactive))
	if err != nil {
		t.Fatal(err)
	}
	m, err := c.Next(jetstream.FetchMaxWait(testTimeout))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// storeResult stores the result of a job, and sends the reply if reply is true. It returns the ID of the job.
func (d *instance) storeResult(t *testing.T, m jetstream.Msg, reply bool) string {
	t.Helper()
	id, err := d.publishResult(m, reply)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// publishResult is storeResult for goroutines other than that of the test.
func (d *instance) publishResult(m jetstream.Msg, reply bool) (id string, err error) {
	job, err := subject.ParseImages(m.Subject())
	if err != nil {
		return "", err
	}
	body, err := json.Marshal(v1.Result{
		ID: job.ID, Pipeline: "text", Status: v1.Done, Regions: []v1.Region{}, Timings: &v1.Timings{},
	})
	if err != nil {
		return "", err
	}
	if _, err := d.js.Publish(context.Background(), subject.Results("text", job.ID), body); err != nil {
		return "", err
	}
	if reply {
		if err := d.nc.Publish(m.Headers().Get(v1.HeaderReply), body); err != nil {
			return "", err
		}
	}
	return job.ID, m.Ack()
}

func (d *instance) reply(t *testing.T, to string, body []byte) {
	t.Helper()
	if err := d.nc.Publish(to, body); err != nil {
		t.Fatal(err)
	}
}

func smallImage() []byte {
	var b bytes.Buffer
	png.Encode(&b, image.NewGray(image.Rect(0, 0, 8, 8)))
	return b.Bytes()
}

type response struct {
	status  int
	header  http.Header
	result  v1.Result
	problem v1.Problem
}

func (d *instance) post(ctx context.Context, query string, header ...string) (response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.url+"/v1/images"+query, bytes.NewReader(smallImage()))
	if err != nil {
		return response{}, err
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return response{}, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return response{}, err
	}
	a := response{status: res.StatusCode, header: res.Header}
	return a, json.Unmarshal(body, map[bool]any{true: &a.problem, false: &a.result}[res.StatusCode >= 400])
}

func (d *instance) mustPost(t *testing.T, query string, header ...string) response {
	t.Helper()
	a, err := d.post(context.Background(), query, header...)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (d *instance) postLater(query string, header ...string) <-chan response {
	c := make(chan response, 1)
	go func() {
		a, err := d.post(context.Background(), query, header...)
		if err != nil {
			a.problem.Detail = err.Error()
		}
		c <- a
	}()
	return c
}

// checkResponse fails the test unless the response has this status, and this code in its problem;
// "" means no problem.
func checkResponse(t *testing.T, name string, a response, status int, code v1.Code) {
	t.Helper()
	if a.status != status {
		t.Errorf("%s: got %d %+v, want %d", name, a.status, a.problem, status)
	}
	if a.problem.Code != code {
		t.Errorf("%s: the code is %q, want %q", name, a.problem.Code, code)
	}
}

// checkResult fails the test unless the response is the result of this job.
func checkResult(t *testing.T, a response, id string) {
	t.Helper()
	checkResponse(t, "job "+id, a, http.StatusOK, "")
	if a.result.ID != id {
		t.Errorf("got the result of job %q, want %s", a.result.ID, id)
	}
}

// checkHeader fails the test unless a header has this value.
func checkHeader(t *testing.T, h http.Header, name, want string) {
	t.Helper()
	if got := h.Get(name); got != want {
		t.Errorf("%s is %q, want %q", name, got, want)
	}
}

// checkHasHeader fails the test unless a header is set.
func checkHasHeader(t *testing.T, h http.Header, name string) {
	t.Helper()
	if h.Get(name) == "" {
		t.Errorf("the response has no %s", name)
	}
}

func TestPost_ReceivesItsOwnResult(t *testing.T) {
	d := startServed(t, 2, 10)
	one := d.postLater("")
	first := d.nextImage(t)
	two := d.postLater("")
	second := d.nextImage(t)
	// Replies in the reverse order. A second reply is ignored.
	idTwo := d.storeResult(t, second, true)
	d.reply(t, second.Headers().Get(v1.HeaderReply), []byte("again"))
	checkResult(t, <-two, idTwo)
	idOne := d.storeResult(t, first, true)
	checkResult(t, <-one, idOne)
}

func TestPost_FindsTheResultOfALostReply(t *testing.T) {
	d := startServed(t, 2, 10)
	waiting := d.postLater("")
	id := d.storeResult(t, d.nextImage(t), false)
	checkResult(t, <-waiting, id)
}

func TestPost_WaitEnds(t *testing.T) {
	d := startServed(t, 2, 10)
	a := d.mustPost(t, "", "Prefer", "wait=0")
	checkResponse(t, "no result in time", a, http.StatusAccepted, "")
	checkHeader(t, a.header, "Location", "/v1/images/"+a.result.ID)
	checkHeader(t, a.header, "Preference-Applied", "wait=0")
	checkHasHeader(t, a.header, "Retry-After")
}

// TestPost_CancelsTheJobWhenTheClientDisconnects checks that a job with a key is not cancelled, because
// another request can get its result.
func TestPost_CancelsTheJobWhenTheClientDisconnects(t *testing.T) {
	for name, noAck := range map[string]bool{"during the wait": false, "before the acknowledgement": true} {
		t.Run(name, func(t *testing.T) {
			d := startServed(t, 2, 10)
			d.updateImagesStream(t, func(c *jetstream.StreamConfig) { c.NoAck = noAck })
			cancels, err := d.nc.SubscribeSync(subject.AllCancel())
			if err != nil {
				t.Fatal(err)
			}
			if err := d.nc.Flush(); err != nil {
				t.Fatal(err)
			}
			d.postAndDisconnect(t, "Idempotency-Key", "k")
			id := d.postAndDisconnect(t)
			m, err := cancels.NextMsg(testTimeout)
			if err != nil {
				t.Fatal(err)
			}
			if want := subject.Cancel(id); m.Subject != want {
				t.Fatalf("got a request on %s, want %s only", m.Subject, want)
			}
			m.Respond([]byte("{}"))
		})
	}
}

// postAndDisconnect posts an image, disconnects when its job is stored, and returns the ID of the job.
func (d *instance) postAndDisconnect(t *testing.T, header ...string) string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := d.post(ctx, "", header...)
		ended <- err
	}()
	job, err := subject.ParseImages(d.nextImage(t).Subject())
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-ended; err == nil {
		t.Error("the request has a response")
	}
	return job.ID
}

// TestPost_RespondAsyncAndWait uses both preferences, which request the result if it is available within the
// wait (RFC 7240, section 4.3).
func TestPost_RespondAsyncAndWait(t *testing.T) {
	d := startServed(t, 2, 10)
	waiting := d.postLater("", "Prefer", "respond-async, wait=20")
	id := d.storeResult(t, d.nextImage(t), true)
	a := <-waiting
	checkResult(t, a, id)
	checkHeader(t, a.header, "Preference-Applied", "respond-async, wait=20")
	checkResponse(t, "no result in time", d.mustPost(t, "", "Prefer", "respond-async, wait=1"), http.StatusAccepted, "")
}

// TestTyocr_TimesOut checks the text that its clients expect.
func TestTyocr_TimesOut(t *testing.T) {
	d := startServed(t, 2, 10, "--old-routes", "--wait", "200ms")
	res, err := http.PostForm(d.url+"/tyocr", url.Values{"imgbase64": {base64.StdEncoding.EncodeToString(smallImage())}})
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != http.StatusOK {
		t.Errorf("the status is %d, want 200", res.StatusCode)
	}
	if got, want := string(bytes.TrimSpace(body)), `{"sign":-1,"text":"time out"}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestStop_EndsLongPollsAndEventStreams checks that clients get the state, so that they can use another
// instance.
func TestStop_EndsLongPollsAndEventStreams(t *testing.T) {
	d := start(t)
	lookups := make(chan struct{}, 10)
	sub, err := d.nc.Subscribe(subject.AllLookup(), func(m *nats.Msg) {
		m.Respond([]byte(`{"id":"j1","pipeline":"text","status":"running"}`))
		lookups <- struct{}{}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sub.Unsubscribe() })
	if err := d.nc.Flush(); err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 2)
	for _, path := range []string{"/v1/images/j1?wait=60", "/v1/images/j1/events"} {
		go func() {
			res, err := http.Get(d.url + path)
			if err != nil {
				got <- err.Error()
				return
			}
			defer res.Body.Close()
			body, err := io.ReadAll(res.Body)
			got <- fmt.Sprint(res.StatusCode, " ", string(body), err)
		}()
		<-lookups
	}
	d.stop()
	for range 2 {
		select {
		case s := <-got:
			if !strings.HasPrefix(s, "200 ") {
				t.Errorf("got %s, want 200", s)
			}
			if !strings.Contains(s, "running") {
				t.Errorf("got %s, want the state running", s)
			}
		case <-time.After(testTimeout):
			t.Fatal("a request has not ended")
		}
	}
}

func TestPost_RejectsWithoutAWorker(t *testing.T) {
	d := start(t)
	a := d.mustPost(t, "")
	checkResponse(t, "without workers", a, http.StatusServiceUnavailable, v1.NoWorker)
	checkHasHeader(t, a.header, "Retry-After")
	d.startWorkers(t, 2, 10)
	a = d.mustPost(t, "?pipeline=faces")
	checkResponse(t, "a pipeline that is not loaded", a, http.StatusServiceUnavailable, v1.NoWorker)
	if want := "no such cascade"; !strings.Contains(a.problem.Detail, want) {
		t.Errorf("the detail is %q, want %q", a.problem.Detail, want)
	}
	// Ingress reads the status again before it rejects, so that this needs no wait.
	checkResponse(t, "a loaded pipeline", d.mustPost(t, "", "Prefer", "respond-async"), http.StatusAccepted, "")
}

// TestPost_RejectsWhenTheBacklogIsTooLong has a backlog of 200 images of one second each for two lanes.
func TestPost_RejectsWhenTheBacklogIsTooLong(t *testing.T) {
	d := startServed(t, 2, 1000)
	for i := range 200 {
		job := subject.Job{Pipeline: "text", Priority: subject.Interactive, ID: fmt.Sprint("ahead", i)}
		if _, err := d.js.Publish(context.Background(), subject.Images(job), smallImage()); err != nil {
			t.Fatal(err)
		}
	}
	eventually.Succeeds(t, testTimeout, func() error {
		a := d.mustPost(t, "", "Prefer", "respond-async")
		// 100 s of work, and a maximum wait of 15 s, once all of the backlog is read.
		n, _ := strconv.Atoi(a.header.Get("Retry-After"))
		if a.problem.Code != v1.Overloaded {
			return fmt.Errorf("got %+v, want %s", a, v1.Overloaded)
		}
		if n < 85 {
			return fmt.Errorf("Retry-After is %d s, want at least 85 s", n)
		}
		return nil
	})
	checkResponse(t, "a bulk job", d.mustPost(t, "?priority=bulk", "Prefer", "respond-async"), http.StatusAccepted, "")
}

func TestPost_RejectsWhenTheStreamIsFull(t *testing.T) {
	d := startServed(t, 2, 10)
	d.updateImagesStream(t, func(c *jetstream.StreamConfig) { c.MaxMsgs = 1 })
	d.mustPost(t, "", "Prefer", "respond-async")
	a := d.mustPost(t, "", "Prefer", "respond-async")
	checkResponse(t, "a full stream", a, http.StatusTooManyRequests, v1.Overloaded)
	checkHasHeader(t, a.header, "Retry-After")
}

func TestNATS_LimitsConcurrentRequests(t *testing.T) {
	d := startServed(t, 2, 10, "--max-nats-requests", "1")
	first, err := d.nc.SubscribeSync(d.nc.NewInbox())
	if err != nil {
		t.Fatal(err)
	}
	if err := d.nc.PublishRequest(subject.Analyze("text"), first.Subject, smallImage()); err != nil {
		t.Fatal(err)
	}
	m := d.nextImage(t) // the first request waits for its result
	res, err := d.nc.Request(subject.Analyze("text"), smallImage(), testTimeout)
	if err != nil {
		t.Fatal(err)
	}
	checkHeader(t, http.Header(res.Header), "Nats-Service-Error-Code", "429")
	checkHasHeader(t, http.Header(res.Header), "Retry-After")
	id := d.storeResult(t, m, true)
	got, err := first.NextMsg(testTimeout)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(got.Data, []byte(id)) {
		t.Errorf("the first request got %s, want the result of %s", got.Data, id)
	}
}

func TestOptions_ValidateNamesTheFlag(t *testing.T) {
	t.Parallel()
	for name, value := range map[string]string{
		"body-memory": "1000", "nats-memory": "1000", "client-body-memory": "1000", "min-body-rate": "0",
		"allow-networks": "10.0.0.0/33", "trusted-proxies": "proxy", "public-url": "mesh.example",
		"callback-secrets": "whsec_short", "callback-give-up": "24h1s",
	} {
		var options Options
		fs := flag.NewFlagSet("ingress", flag.ContinueOnError)
		options.Register(fs)
		if err := fs.Set(name, value); err != nil {
			t.Errorf("set --%s %s: %v", name, value, err)
		}
		if err := options.Validate(); err == nil || !strings.HasPrefix(err.Error(), name+": ") {
			t.Errorf("--%s %s: got %v, want an error that begins with %q", name, value, err, name+": ")
		}
	}
}

func TestNew_RejectsLimitsThatDoNotFit(t *testing.T) {
	s := bustest.Start(t, pipeline.BuiltInNames()...)
	for flag, value := range map[string]string{"max-bytes": "20000000", "body-memory": "1000"} {
		var options Options
		err := run.Run(t.Context(), run.Spec{
			Name: "ingress", Flags: options.Register,
			Validate: func([]pipeline.Pipeline) error { return options.Validate() },
			New:      func(p *run.Process) (run.Service, error) { return New(p, options) },
		}, []string{"--nats", s.URL, "--http", "127.0.0.1:0", "--" + flag, value},
			func(string) string { return "" }, io.Discard)
		if want := flag + ": " + value; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("--%s %s: got %v, want an error with %q", flag, value, err, want)
		}
	}
}
