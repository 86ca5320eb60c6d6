package client_test

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/sightmesh/sightmesh/contracts/client"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// checkHeader checks that a message has exactly these headers.
func checkHeader(t *testing.T, name string, got, want nats.Header) {
	t.Helper()
	if !maps.EqualFunc(got, want, func(a, b []string) bool { return strings.Join(a, "\n") == strings.Join(b, "\n") }) {
		t.Errorf("%s: the headers are %q, want %q", name, got, want)
	}
}

func TestClient_AnalyzeSendsItsOptions(t *testing.T) {
	t.Parallel()
	url := startServer(t)
	requests := serve(t, url, subject.Analyze("text"), reply(t, newDoneResult("j1", "line")))
	c := newClient(t, url)
	for name, tt := range map[string]struct {
		option client.AnalyzeOption
		want   nats.Header
	}{
		"priority": {client.WithPriority(subject.Bulk), nats.Header{"Sight-Priority": {"bulk"}}},
		"key":      {client.WithKey("scan 17"), nats.Header{"Idempotency-Key": {"scan 17"}}},
		"webhook": {
			client.WithWebhook("https://client.example/done"),
			nats.Header{"Sight-Callback": {"https://client.example/done"}},
		},
		"metadata": {
			client.WithMetadata(map[string]string{"Camera-Id": "3 ü", "note": ""}),
			nats.Header{"X-Sight-Meta-camera-id": {"3 ü"}, "X-Sight-Meta-note": {""}},
		},
		"no metadata":   {client.WithMetadata(nil), nats.Header{}},
		"lowest score":  {client.WithMinScore(0.25), nats.Header{"Sight-Min-Score": {"0.25"}}},
		"labels":        {client.WithLabels("car", "bus"), nats.Header{"Sight-Labels": {"car,bus"}}},
		"most regions":  {client.WithTop(3), nats.Header{"Sight-Top": {"3"}}},
		"invalid value": {client.WithTop(0), nats.Header{"Sight-Top": {"0"}}}, // the mesh rejects it
	} {
		if _, err := c.Analyze(t.Context(), "text", nil, tt.option); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		tt.want.Set("Prefer", "wait=20")
		checkHeader(t, name, receive(t, requests).Header, tt.want)
	}
}

// TestClient_AnalyzeSelectsTheRegionsOfAJobThatContinues: the result then comes from a
// look-up.
func TestClient_AnalyzeSelectsTheRegionsOfAJobThatContinues(t *testing.T) {
	t.Parallel()
	url := startServer(t)
	serve(t, url, subject.Analyze("text"), reply(t, newQueuedResult("j1")))
	lookups := serve(t, url, subject.Lookup("j1"), reply(t, newDoneResult("j1", "line")))
	_, err := newClient(t, url).Analyze(t.Context(), "text", nil,
		client.WithKey("k1"), client.WithTop(3), client.WithLabels("line"))
	if err != nil {
		t.Fatal(err)
	}
	want := nats.Header{"Sight-Top": {"3"}, "Sight-Labels": {"line"}}
	checkHeader(t, "the look-up", receive(t, lookups).Header, want)
}

func TestClient_LookupSendsItsOptions(t *testing.T) {
	t.Parallel()
	url := startServer(t)
	lookups := serve(t, url, subject.Lookup("j1"), reply(t, newDoneResult("j1", "line")))
	if _, err := newClient(t, url).Lookup(t.Context(), "j1", client.WithMinScore(0.5)); err != nil {
		t.Fatal(err)
	}
	checkHeader(t, "the look-up", receive(t, lookups).Header, nats.Header{"Sight-Min-Score": {"0.5"}})
}

// TestClient_AnalyzeRespondAsyncReturnsTheState: there is no service for a look-up.
func TestClient_AnalyzeRespondAsyncReturnsTheState(t *testing.T) {
	t.Parallel()
	url := startServer(t)
	requests := serve(t, url, subject.Analyze("text"), reply(t, newQueuedResult("j1")))
	r, err := newClient(t, url).Analyze(t.Context(), "text", nil, client.WithRespondAsync())
	if err != nil {
		t.Fatal(err)
	}
	if r.ID != "j1" {
		t.Errorf("the job is %q, want j1", r.ID)
	}
	if r.Status != v1.Queued {
		t.Errorf("the status is %s, want %s", r.Status, v1.Queued)
	}
	checkHeader(t, "the request", receive(t, requests).Header, nats.Header{"Prefer": {"respond-async"}})
}

// TestClient_AnalyzeRespondAsyncReturnsTheResultOfAnEarlierJob: the reply about a job that
// has ended has its status only.
func TestClient_AnalyzeRespondAsyncReturnsTheResultOfAnEarlierJob(t *testing.T) {
	t.Parallel()
	url := startServer(t)
	serve(t, url, subject.Analyze("text"), reply(t, v1.Result{ID: "j1", Pipeline: "text", Status: v1.Done}))
	serve(t, url, subject.Lookup("j1"), reply(t, newDoneResult("j1", "line")))
	r, err := newClient(t, url).Analyze(t.Context(), "text", nil, client.WithRespondAsync(), client.WithKey("k1"))
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Regions) != 1 {
		t.Errorf("the result has %d regions, want 1", len(r.Regions))
	}
}

func TestClient_SubmitStoresItsOptions(t *testing.T) {
	t.Parallel()
	url := startMesh(t)
	deadline := time.Date(2030, 1, 2, 3, 4, 5, 6, time.FixedZone("", 3600))
	id, err := newClient(t, url).Submit(t.Context(), "text", subject.Bulk, []byte("an image"),
		client.WithMetadata(map[string]string{"Camera-Id": "3 ü", "note": ""}),
		client.WithWebhook("https://client.example/done"), client.WithDeadline(deadline))
	if err != nil {
		t.Fatal(err)
	}
	m := checkOneJob(t, url, id)
	for header, want := range map[string]string{
		v1.HeaderMetadata: `{"camera-id":"3 ü","note":""}`,
		v1.HeaderCallback: "https://client.example/done",
		v1.HeaderDeadline: "2030-01-02T02:04:05.000000006Z",
	} {
		if got := m.Header.Get(header); got != want {
			t.Errorf("%s is %q, want %q", header, got, want)
		}
	}
}

// TestClient_RejectsValuesThatAHeaderCannotHave: the connection would change them. The rules
// are the same for requests and jobs.
func TestClient_RejectsValuesThatAHeaderCannotHave(t *testing.T) {
	t.Parallel()
	url := startMesh(t)
	published, _ := subscribe(t, url, "sight.>")
	c := newClient(t, url)
	for name, tt := range map[string]struct {
		option client.JobOption
		field  string
	}{
		"metadata without a name":     {client.WithMetadata(map[string]string{"": "1"}), "X-Sight-Meta-"},
		"metadata with a blank":       {client.WithMetadata(map[string]string{"camera id": "1"}), "X-Sight-Meta-camera id"},
		"metadata with another name":  {client.WithMetadata(map[string]string{"ü": "1"}), "X-Sight-Meta-ü"},
		"metadata given twice":        {client.WithMetadata(map[string]string{"a": "", "A": "1"}), "X-Sight-Meta-a"},
		"metadata of two lines":       {client.WithMetadata(map[string]string{"a": "1\n2"}), "X-Sight-Meta-a"},
		"metadata that ends with tab": {client.WithMetadata(map[string]string{"a": "1\t"}), "X-Sight-Meta-a"},
		"metadata that is not UTF-8":  {client.WithMetadata(map[string]string{"a": "\xff"}), "X-Sight-Meta-a"},
		"a webhook of two lines":      {client.WithWebhook("https://client.example/\r\n"), "Sight-Callback"},
	} {
		_, analyzeErr := c.Analyze(t.Context(), "text", nil, tt.option)
		_, submitErr := c.Submit(t.Context(), "text", subject.Bulk, nil, tt.option)
		for method, err := range map[string]error{"Analyze": analyzeErr, "Submit": submitErr} {
			if p := checkProblem(t, err, v1.InvalidHeader); p.Field != tt.field {
				t.Errorf("%s: %s: the field is %q, want %q", method, name, p.Field, tt.field)
			}
		}
	}
	_, err := c.Lookup(t.Context(), "j1", client.WithLabels("car "))
	if p := checkProblem(t, err, v1.InvalidHeader); p.Field != v1.HeaderLabels {
		t.Errorf("Lookup: the field is %q, want %q", p.Field, v1.HeaderLabels)
	}
	_, err = c.Lookup(t.Context(), "j1", client.WithLabels("car", "text,bus"))
	if p := checkProblem(t, err, v1.InvalidHeader); p.Field != v1.HeaderLabels {
		t.Errorf("Lookup: a label with a comma: the field is %q, want %q", p.Field, v1.HeaderLabels)
	}
	_, err = c.Analyze(t.Context(), "text", nil, client.WithLabels("text,bus"))
	if p := checkProblem(t, err, v1.InvalidHeader); p.Field != v1.HeaderLabels {
		t.Errorf("Analyze: a label with a comma: the field is %q, want %q", p.Field, v1.HeaderLabels)
	}
	if n := len(published); n != 0 {
		t.Errorf("%d messages were published, want none", n)
	}
}
