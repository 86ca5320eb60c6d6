package webhooks

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	webhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"go.opentelemetry.io/otel/trace/noop"
	"go.uber.org/goleak"

	"github.com/sightmesh/sightmesh/contracts/eventually"
	"github.com/sightmesh/sightmesh/contracts/retry"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/ingress/internal/fetch"
	"github.com/sightmesh/sightmesh/services/internal/bus"
	"github.com/sightmesh/sightmesh/services/internal/bustest"
	"github.com/sightmesh/sightmesh/services/internal/clock"
	"github.com/sightmesh/sightmesh/services/internal/consume"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newSecret(c byte) string {
	return "whsec_" + base64.StdEncoding.EncodeToString([]byte(strings.Repeat(string(c), 32)))
}

type bench struct {
	*Sender
	js jetstream.JetStream
}

func newBench(t *testing.T, maxAge time.Duration, allow ...netip.Prefix) bench {
	t.Helper()
	js, err := jetstream.New(bustest.Start(t, "text").Connect(t))
	if err != nil {
		t.Fatal(err)
	}
	tr := fetch.NewTransport(fetch.Config{Allow: allow})
	t.Cleanup(tr.CloseIdleConnections)
	secrets, err := ParseSecrets([]string{newSecret('a'), newSecret('b')})
	if err != nil {
		t.Fatal(err)
	}
	c := New(Config{
		JetStream: js, Clock: clock.New(time.Now),
		Publisher: bus.NewPublisher(js, clock.New(time.Now), noop.NewTracerProvider()),
		Transport: tr, Secrets: secrets, PerHost: 1, MaxAge: maxAge,
		Tracers: noop.NewTracerProvider(), Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Metrics: prometheus.NewRegistry(),
	})
	return bench{c, js}
}

// queue publishes a webhook of the job j1.
func (b bench) queue(t *testing.T, url string) {
	t.Helper()
	b.queueFor(t, "j1", url)
}

func (b bench) queueFor(t *testing.T, job, url string) {
	t.Helper()
	m := &nats.Msg{
		Subject: subject.Callbacks(job), Header: nats.Header{v1.HeaderCallback: {url}},
		Data: []byte(`{"type":"job.done"}`),
	}
	if _, err := b.js.PublishMsg(t.Context(), m); err != nil {
		t.Fatal(err)
	}
}

// run sends webhooks until the test ends.
func (b bench) run(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.Run(ctx, context.Background())
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
}

// awaitAttempts waits until n attempts for the job j1 are counted, and returns the state.
func (b bench) awaitAttempts(t *testing.T, n int) v1.Callback {
	t.Helper()
	return b.awaitAttemptsFor(t, "j1", n)
}

func (b bench) awaitAttemptsFor(t *testing.T, job string, n int) (s v1.Callback) {
	t.Helper()
	eventually.Succeeds(t, time.Minute, func() error {
		if s = b.state(t, job); s.Attempts < n {
			return fmt.Errorf("the state is %+v, want at least %d attempts", s, n)
		}
		return nil
	})
	return s
}

func (b bench) state(t *testing.T, job string) v1.Callback {
	t.Helper()
	var s v1.Callback
	if _, err := bus.ReadLast(t.Context(), b.js, streams.Jobs, subject.CallbackState(job), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// awaitEmpty waits until no webhook is left in the stream.
func (b bench) awaitEmpty(t *testing.T) {
	t.Helper()
	eventually.Succeeds(t, time.Minute, func() error {
		s, err := b.js.Stream(t.Context(), streams.Callbacks)
		if err != nil {
			return err
		}
		if n := s.CachedInfo().State.Msgs; n != 0 {
			return fmt.Errorf("%d messages are left in %s", n, streams.Callbacks)
		}
		return nil
	})
}

// awaitRedelivery waits until a message was delivered again.
func (b bench) awaitRedelivery(t *testing.T) {
	t.Helper()
	eventually.Succeeds(t, time.Minute, func() error {
		c, err := b.js.Consumer(t.Context(), streams.Callbacks, streams.WebhooksConsumer)
		if err != nil {
			return err
		}
		if c.CachedInfo().NumRedelivered == 0 {
			return errors.New("no message is redelivered")
		}
		return nil
	})
}

var loopback = netip.MustParsePrefix("127.0.0.0/8")

func TestSender_SignsWithEverySecret(t *testing.T) {
	t.Parallel()
	var verifiers []*webhooks.Webhook
	for _, s := range []string{newSecret('a'), newSecret('b')} {
		w, err := webhooks.NewWebhook(s)
		if err != nil {
			t.Fatal(err)
		}
		verifiers = append(verifiers, w)
	}
	var calls atomic.Int64
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		for _, w := range verifiers {
			if err := w.Verify(body, r.Header); err != nil {
				t.Errorf("the signature is invalid: %v", err)
			}
		}
		if r.Method != http.MethodPost {
			t.Errorf("the method is %s, want POST", r.Method)
		}
		for header, want := range map[string]string{"webhook-id": "j1", "Content-Type": "application/json"} {
			if got := r.Header.Get(header); got != want {
				t.Errorf("%s is %q, want %q", header, got, want)
			}
		}
	}))
	t.Cleanup(receiver.Close)
	b := newBench(t, time.Hour, loopback)
	b.queue(t, receiver.URL)
	b.run(t)
	if s := b.awaitAttempts(t, 1); s != (v1.Callback{State: v1.WebhookDelivered, Attempts: 1}) {
		t.Errorf("got %+v", s)
	}
	if n := calls.Load(); n != 1 {
		t.Errorf("%d calls, want 1", n)
	}
	b.awaitEmpty(t)
}

// TestSender_SendsADeliveredWebhookOnce publishes a delivered webhook again, after the duplicate
// window of the stream.
func TestSender_SendsADeliveredWebhookOnce(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { calls.Add(1) }))
	t.Cleanup(receiver.Close)
	b := newBench(t, time.Hour, loopback)
	b.queue(t, receiver.URL)
	b.run(t)
	b.awaitAttempts(t, 1)
	b.queue(t, receiver.URL) // without an ID, as after the duplicate window
	b.awaitEmpty(t)
	if n := calls.Load(); n != 1 {
		t.Errorf("%d calls, want 1", n)
	}
	if s := b.state(t, "j1"); s != (v1.Callback{State: v1.WebhookDelivered, Attempts: 1}) {
		t.Errorf("the state is %+v", s)
	}
}

// TestSender_SendsNoCredentials checks that the webhook of a URL with a password fails without a call. A job that is
// published over NATS can have such a URL.
func TestSender_SendsNoCredentials(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { calls.Add(1) }))
	t.Cleanup(receiver.Close)
	b := newBench(t, time.Hour, loopback)
	b.queue(t, strings.Replace(receiver.URL, "http://", "http://u:p@", 1))
	b.run(t)
	want := v1.Callback{State: v1.WebhookFailed, Attempts: 1, Error: "the URL contains a user or password"}
	if s := b.awaitAttempts(t, 1); s != want {
		t.Errorf("the state is %+v, want %+v", s, want)
	}
	b.awaitEmpty(t)
	if n := calls.Load(); n != 0 {
		t.Errorf("%d calls, want 0", n)
	}
}

// startFailing starts a receiver that fails every call, and returns its URL and the number of
// calls.
func startFailing(t *testing.T) (url string, calls *atomic.Int64) {
	t.Helper()
	calls = new(atomic.Int64)
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		calls.Add(1)
		w.WriteHeader(http.StatusInternalServerError)
	}))
	t.Cleanup(receiver.Close)
	return receiver.URL, calls
}

// TestSender_RetriesAfterTheFirstDelay runs in real time: the stream delivers the message again
// after the delay.
func TestSender_RetriesAfterTheFirstDelay(t *testing.T) {
	t.Parallel()
	url, _ := startFailing(t)
	b := newBench(t, time.Hour, loopback)
	b.queue(t, url)
	start := time.Now()
	b.run(t)
	s := b.awaitAttempts(t, 1)
	least, most := start.Add(schedule[0]), time.Now().Add(schedule[0]*5/4) // retryDelay adds up to a quarter
	if s.Next.Before(least) || s.Next.After(most) {
		t.Errorf("the next attempt is at %v, want %v to %v", s.Next, least, most)
	}
	s.Next = time.Time{}
	if want := (v1.Callback{State: v1.WebhookPending, Attempts: 1, Error: "the receiver answered 500"}); s != want {
		t.Errorf("after the first attempt the state is %+v, want %+v", s, want)
	}
	s = b.awaitAttempts(t, 2)
	s.Next = time.Time{}
	if want := (v1.Callback{State: v1.WebhookPending, Attempts: 2, Error: "the receiver answered 500"}); s != want {
		t.Errorf("after the second attempt the state is %+v, want %+v", s, want)
	}
}

// TestSender_FailsAfterMaxAge uses a MaxAge of one hour, in which the schedule has four attempts:
// after 0 s, 5 s, 5 min and 36 min. The next attempt would be two hours later. A fake clock jumps
// from one attempt to the next.
func TestSender_FailsAfterMaxAge(t *testing.T) {
	t.Parallel()
	url, calls := startFailing(t)
	b := newBench(t, time.Hour, loopback)
	stored := time.Now()
	now := stored
	b.clock = clock.New(func() time.Time { return now })
	const attempts = 4
	for n := 1; n <= attempts; n++ {
		_, err := b.process(t.Context(), &consume.Delivery{
			Job: subject.Job{ID: "j1"}, Header: nats.Header{v1.HeaderCallback: {url}}, Stored: stored, Deliveries: n,
		})
		if got := calls.Load(); got != int64(n) {
			t.Fatalf("%d calls after %d deliveries", got, n)
		}
		s := b.state(t, "j1")
		if s.Attempts != n {
			t.Errorf("the state counts %d attempts, want %d", s.Attempts, n)
		}
		after, transient := retry.Delay(err)
		if n == attempts {
			if s.State != v1.WebhookFailed {
				t.Errorf("after the last attempt the state is %s, want %s", s.State, v1.WebhookFailed)
			}
			return
		}
		if s.State != v1.WebhookPending {
			t.Errorf("after attempt %d the state is %s, want %s", n, s.State, v1.WebhookPending)
		}
		if !transient {
			t.Errorf("attempt %d ends with %v, want a retry", n, err)
		}
		if d := s.Next.Sub(now.Add(after)).Abs(); d > time.Millisecond {
			t.Errorf("after attempt %d the times of the next attempt and of the redelivery differ by %v", n, d)
		}
		now = s.Next
	}
}

// TestSender_ASlowReceiverDelaysNoOther checks that a webhook is snoozed while its receiver has no
// free permit, that this counts as no attempt, and that the webhook of another receiver is sent meanwhile.
func TestSender_ASlowReceiverDelaysNoOther(t *testing.T) {
	t.Parallel()
	called, respond := make(chan struct{}, 2), make(chan struct{})
	receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		called <- struct{}{}
		<-respond
	}))
	t.Cleanup(receiver.Close)
	release := sync.OnceFunc(func() { close(respond) })
	t.Cleanup(release)
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	t.Cleanup(other.Close)
	b := newBench(t, time.Hour, loopback)
	checkDelivered := func(job string) {
		t.Helper()
		if s := b.awaitAttemptsFor(t, job, 1); s != (v1.Callback{State: v1.WebhookDelivered, Attempts: 1}) {
			t.Errorf("the state of %s is %+v, want one attempt", job, s)
		}
	}
	b.queueFor(t, "j1", receiver.URL)
	b.queueFor(t, "j2", receiver.URL)
	b.run(t)
	<-called
	b.queueFor(t, "j3", other.URL)
	checkDelivered("j3")
	if s := b.state(t, "j1"); s.Attempts != 0 {
		t.Errorf("the first attempt ended before that of the other receiver: %+v", s)
	}
	b.awaitRedelivery(t) // of the second webhook of the slow receiver
	if n := len(called); n != 0 {
		t.Errorf("%d more calls during the first, want 0", n)
	}
	release()
	checkDelivered("j1")
	checkDelivered("j2")
	b.awaitEmpty(t)
}

// TestSender_AnUnreachableReceiverBlocksNoOther has more webhooks that wait for their next attempt than the default
// maximum of pending messages of a consumer. A webhook of another receiver is sent.
func TestSender_AnUnreachableReceiverBlocksNoOther(t *testing.T) {
	t.Parallel()
	called := make(chan struct{}, 1)
	receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { called <- struct{}{} }))
	t.Cleanup(receiver.Close)
	b := newBench(t, time.Hour, loopback)
	const waiting = 4200 // the default maximum is 4096
	for i := range waiting {
		if _, err := b.js.PublishAsync(subject.Callbacks(fmt.Sprint("away", i)), []byte(`{}`)); err != nil {
			t.Fatal(err)
		}
		if i%500 == 499 {
			<-b.js.PublishAsyncComplete()
		}
	}
	<-b.js.PublishAsyncComplete()
	c, err := b.js.Consumer(t.Context(), streams.Callbacks, streams.WebhooksConsumer)
	if err != nil {
		t.Fatal(err)
	}
	failed, err := c.Fetch(waiting, jetstream.FetchMaxWait(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for m := range failed.Messages() {
		if err := m.NakWithDelay(time.Hour); err != nil { // as after an attempt that failed
			t.Fatal(err)
		}
		n++
	}
	if err := failed.Error(); err != nil {
		t.Fatal(err)
	}
	if n != waiting {
		t.Fatalf("%d webhooks wait, want %d", n, waiting)
	}
	b.run(t)
	b.queue(t, receiver.URL)
	select {
	case <-called:
	case <-time.After(time.Minute):
		t.Fatal("the webhook of another receiver is not sent")
	}
}

func TestSender_StopsWithoutAnotherAttempt(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		status int
		maxAge time.Duration
		allow  []netip.Prefix
		why    string
	}{
		"after MaxAge": {http.StatusInternalServerError, time.Second, []netip.Prefix{loopback},
			"the receiver answered 500"},
		"the receiver responds 410":     {http.StatusGone, time.Hour, []netip.Prefix{loopback}, "the receiver answered 410"},
		"an address that is not public": {http.StatusOK, time.Hour, nil, "the address it leads to is not a public one"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if tt.allow == nil {
					t.Error("the receiver was called")
				}
				w.WriteHeader(tt.status)
			}))
			t.Cleanup(receiver.Close)
			b := newBench(t, tt.maxAge, tt.allow...)
			b.queue(t, receiver.URL)
			b.run(t)
			if s := b.awaitAttempts(t, 1); s != (v1.Callback{State: v1.WebhookFailed, Attempts: 1, Error: tt.why}) {
				t.Errorf("got %+v", s)
			}
			b.awaitEmpty(t)
		})
	}
}

func TestSender_FollowsNoRedirect(t *testing.T) {
	t.Parallel()
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("the redirect was followed")
	}))
	t.Cleanup(other.Close)
	receiver := httptest.NewServer(http.RedirectHandler(other.URL, http.StatusTemporaryRedirect))
	t.Cleanup(receiver.Close)
	b := newBench(t, time.Hour, loopback)
	b.queue(t, receiver.URL)
	b.run(t)
	s := b.awaitAttempts(t, 1)
	if s.State != v1.WebhookPending {
		t.Errorf("the state is %s, want %s", s.State, v1.WebhookPending)
	}
	if want := "the receiver answered 307"; s.Error != want {
		t.Errorf("the error is %q, want %q", s.Error, want)
	}
}

func TestSender_DropsAMessageWithoutURL(t *testing.T) {
	t.Parallel()
	b := newBench(t, time.Hour)
	if _, err := b.js.Publish(t.Context(), subject.Callbacks("j1"), []byte("no address")); err != nil {
		t.Fatal(err)
	}
	b.run(t)
	b.awaitEmpty(t)
}

func TestParseSecrets_RejectsInvalidSecrets(t *testing.T) {
	t.Parallel()
	withoutPrefix := base64.StdEncoding.EncodeToString([]byte("0123456789012345678901234"))
	for _, s := range []string{"", "whsec_", "whsec_!", "plain", withoutPrefix} {
		_, err := ParseSecrets([]string{newSecret('a'), s})
		if err == nil {
			t.Errorf("%q: no error", s)
			continue
		}
		if !strings.Contains(err.Error(), "secret 2") {
			t.Errorf("%q: got %v, want the number of the secret", s, err)
		}
		if len(s) > 10 && strings.Contains(err.Error(), s) {
			t.Errorf("%q: the error %v contains the secret", s, err)
		}
	}
}

// TestPoster_SpecificationVector signs the example of the specification's own test.
func TestPoster_SpecificationVector(t *testing.T) {
	t.Parallel()
	w, err := webhooks.NewWebhook("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		t.Fatal(err)
	}
	sig, err := w.Sign("msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0), []byte(`{"test": 2432232314}`))
	if err != nil {
		t.Fatal(err)
	}
	if want := "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; sig != want {
		t.Errorf("the signature is %s, want %s", sig, want)
	}
}

func TestRetryDelay(t *testing.T) {
	t.Parallel()
	for n := 1; n <= 2*len(schedule); n++ {
		want := schedule[min(n, len(schedule))-1]
		if d := retryDelay(n, 0); d < want || d > want+want/4 {
			t.Errorf("after attempt %d: %v, want %v and up to a quarter more", n, d, want)
		}
	}
	if d := retryDelay(1, 10*time.Minute); d != 10*time.Minute {
		t.Errorf("the receiver requests 10 minutes: the delay is %v", d)
	}
	if d := retryDelay(1, 240*time.Hour); d > time.Hour {
		t.Errorf("the receiver requests ten days: the delay is %v, want an hour at most", d)
	}
}
