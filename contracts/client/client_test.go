package client_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/trace"

	"github.com/sightmesh/sightmesh/contracts/retry"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// checkProblem checks that err has a problem with a code, and returns it.
func checkProblem(t *testing.T, err error, want v1.Code) *v1.Problem {
	t.Helper()
	var p *v1.Problem
	if !errors.As(err, &p) {
		t.Fatalf("the error is %v, want a problem", err)
	}
	if p.Code != want {
		t.Errorf("the code is %s, want %s (%v)", p.Code, want, err)
	}
	return p
}

// checkDelay checks when an error says that another try may succeed.
func checkDelay(t *testing.T, err error, want time.Duration) {
	t.Helper()
	got, ok := retry.Delay(err)
	if !ok {
		t.Errorf("%v does not say when to try again", err)
	}
	if got != want {
		t.Errorf("the delay is %v, want %v", got, want)
	}
}

func newDoneResult(id, label string) v1.Result {
	return v1.Result{ID: id, Pipeline: "text", Status: v1.Done, Regions: []v1.Region{{Label: label}}}
}

func newQueuedResult(id string) v1.Result {
	return v1.Result{ID: id, Pipeline: "text", Status: v1.Queued}
}

func TestClient_AnalyzeReturnsTheResult(t *testing.T) {
	t.Parallel()
	url := startServer(t)
	requests := serve(t, url, subject.Analyze("text"), reply(t, newDoneResult("j1", "line")))
	r, err := newClient(t, url).Analyze(t.Context(), "text", []byte("an image"))
	if err != nil {
		t.Fatal(err)
	}
	if r.ID != "j1" {
		t.Errorf("the job is %q, want j1", r.ID)
	}
	if len(r.Regions) != 1 {
		t.Fatalf("got the regions %+v, want one", r.Regions)
	}
	if got := r.Regions[0].Label; got != "line" {
		t.Errorf("the label is %q, want line", got)
	}
	if got := string(receive(t, requests).Data); got != "an image" {
		t.Errorf("the request has %q, want the image", got)
	}
}

// TestClient_AnalyzeAwaitsAJobThatContinues: the ingress replied before the job had
// its outcome.
func TestClient_AnalyzeAwaitsAJobThatContinues(t *testing.T) {
	t.Parallel()
	url := startServer(t)
	serve(t, url, subject.Analyze("text"), reply(t, newQueuedResult("j1")))
	serve(t, url, subject.Lookup("j1"), reply(t, newDoneResult("j1", "line")))
	r, err := newClient(t, url).Analyze(t.Context(), "text", []byte("an image"))
	if err != nil {
		t.Fatal(err)
	}
	if r.Status != v1.Done {
		t.Errorf("the status is %s, want %s", r.Status, v1.Done)
	}
}

func TestClient_AnalyzeReturnsAFailedJobWithItsProblem(t *testing.T) {
	t.Parallel()
	url := startServer(t)
	failed := v1.Result{ID: "j1", Status: v1.Failed, Problem: v1.NewProblem(v1.Damaged, "half of it")}
	serve(t, url, subject.Analyze("text"), reply(t, failed))
	r, err := newClient(t, url).Analyze(t.Context(), "text", []byte("an image"))
	checkProblem(t, err, v1.Damaged)
	if r.ID != "j1" {
		t.Errorf("the job is %q, want j1", r.ID)
	}
}

func TestClient_AnalyzeReturnsTheProblemOfTheService(t *testing.T) {
	t.Parallel()
	url := startServer(t)
	serve(t, url, subject.Analyze("text"), problemReply(t, v1.NewProblem(v1.Overloaded, "busy"), "7"))
	serve(t, url, subject.Analyze("faces"), problemReply(t, v1.NewProblem(v1.UnknownPipeline, "no faces"), ""))
	c := newClient(t, url)

	_, err := c.Analyze(t.Context(), "text", nil)
	if p := checkProblem(t, err, v1.Overloaded); p.Detail != "busy" {
		t.Errorf("the detail is %q, want that of the service", p.Detail)
	}
	checkDelay(t, err, 7*time.Second)

	_, err = c.Analyze(t.Context(), "faces", nil)
	checkProblem(t, err, v1.UnknownPipeline)
	if d, ok := retry.Delay(err); ok {
		t.Errorf("a problem that stays has a delay of %v", d)
	}
}

func TestClient_RequestsContinueTheTrace(t *testing.T) {
	t.Parallel()
	url := startServer(t)
	requests := serve(t, url, subject.Lookup("j1"), reply(t, newQueuedResult("j1")))
	span := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}})
	ctx := trace.ContextWithSpanContext(t.Context(), span)
	if _, err := newClient(t, url).Lookup(ctx, "j1"); err != nil {
		t.Fatal(err)
	}
	const want = "00-01000000000000000000000000000000-0200000000000000-00"
	if got := receive(t, requests).Header["traceparent"]; !slices.Equal(got, []string{want}) {
		t.Errorf("traceparent is %q, want %q", got, want)
	}
}

func TestClient_CancelReturnsTheStateOfTheJob(t *testing.T) {
	t.Parallel()
	url := startServer(t)
	want := v1.Cancellation{ID: "j1", Was: v1.Running, Status: v1.Failed}
	serve(t, url, subject.Cancel("j1"), reply(t, want))
	got, err := newClient(t, url).Cancel(t.Context(), "j1")
	if err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// requestsByID returns the methods of a client that send a request about a job.
func requestsByID(t *testing.T, url string) map[string]func(ctx context.Context, id string) error {
	t.Helper()
	c := newClient(t, url)
	return map[string]func(context.Context, string) error{
		"Lookup": func(ctx context.Context, id string) error { _, err := c.Lookup(ctx, id); return err },
		"Cancel": func(ctx context.Context, id string) error { _, err := c.Cancel(ctx, id); return err },
		"Await":  func(ctx context.Context, id string) error { _, err := c.Await(ctx, id); return err },
	}
}

// TestClient_RejectsAnIDThatCannotBeOne: such an ID would change the subject.
func TestClient_RejectsAnIDThatCannotBeOne(t *testing.T) {
	t.Parallel()
	url := startServer(t)
	requests, _ := subscribe(t, url, "sight.>")
	for name, request := range requestsByID(t, url) {
		for _, id := range []string{"", "*", "a.b", strings.Repeat("a", 65)} {
			if p := checkProblem(t, request(t.Context(), id), v1.UnknownJob); p.Detail == "" {
				t.Errorf("%s of %q: the problem has no detail", name, id)
			}
		}
	}
	if n := len(requests); n != 0 {
		t.Errorf("%d requests were sent, want none", n)
	}
}

func TestClient_RequestsWithoutAServiceAreUnavailable(t *testing.T) {
	t.Parallel()
	url := startServer(t)
	for name, request := range requestsByID(t, url) {
		if p := checkProblem(t, request(t.Context(), "j1"), v1.Unavailable); !strings.Contains(p.Detail, ".j1") {
			t.Errorf("%s: the detail is %q, want the subject in it", name, p.Detail)
		}
	}
}

// TestClient_LostReplyEndsARequest: the service gets the request, and does not reply.
func TestClient_LostReplyEndsARequest(t *testing.T) {
	t.Parallel()
	url := startServer(t)
	subscribe(t, url, subject.Lookup("j1"))
	subscribe(t, url, subject.Cancel("j1"))
	for name, request := range requestsByID(t, url) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
			defer cancel()
			err := request(ctx, "j1")
			if ctx.Err() != nil {
				t.Error("it waited as long as its context")
			}
			if p := checkProblem(t, err, v1.Unavailable); !strings.Contains(p.Detail, "in time") {
				t.Errorf("the detail is %q, want that no reply came in time", p.Detail)
			}
		})
	}
}

func TestClient_ReplyThatIsNotJSONIsAnError(t *testing.T) {
	t.Parallel()
	broken := nats.Header{"Nats-Service-Error-Code": {"404"}}
	for want, reply := range map[string]*nats.Msg{
		"decode reply":   {Data: []byte("done")},
		"decode problem": {Header: broken, Data: []byte("not found")},
	} {
		url := startServer(t)
		serve(t, url, subject.Lookup("j1"), reply)
		_, err := newClient(t, url).Lookup(t.Context(), "j1")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error is %v, want %q in it", err, want)
		}
		if p, ok := errors.AsType[*v1.Problem](err); ok {
			t.Errorf("the error is the problem %v, want another error", p)
		}
	}
}

func TestClient_RequestEndsWithItsContext(t *testing.T) {
	t.Parallel()
	url := startServer(t)
	requests, _ := subscribe(t, url, subject.Analyze("text"))
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-requests
		cancel()
	}()
	if _, err := newClient(t, url).Analyze(ctx, "text", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v, want %v", err, context.Canceled)
	}
}
