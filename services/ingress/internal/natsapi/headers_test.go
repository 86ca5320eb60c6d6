package natsapi

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/ingress/internal/intake"
)

// TestAnalyze_StoresTheHeaders checks that the headers of a request have their effect on the
// stored job, with names in any case.
func TestAnalyze_StoresTheHeaders(t *testing.T) {
	t.Parallel()
	for name, h := range map[string]nats.Header{
		"names as documented": {
			v1.HeaderPriority: {"bulk"}, v1.HeaderCallback: {"https://client.example/done"},
			v1.HTTPMetadataPrefix + "Camera-Id": {"3 ü"}, v1.HeaderKey: {"k1"}, "Prefer": {"respond-async"},
			"traceparent": {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}, "X-Other": {"of another program"},
		},
		"names in lower case": {
			"sight-priority": {"bulk"}, "sight-callback": {"https://client.example/done"},
			"x-sight-meta-camera-id": {"3 ü"}, "idempotency-key": {"k1"}, "prefer": {"respond-async"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, testTimeout, 8)
			reply := b.requestWith(t, "text", h, newImage(t))
			var r v1.Result
			if err := json.Unmarshal(reply.Data, &r); err != nil {
				t.Fatal(err)
			}
			if want := (v1.Result{ID: r.ID, Pipeline: "text", Status: v1.Queued}); !reflect.DeepEqual(r, want) {
				t.Errorf("the reply is %s, want only ID, pipeline and status", reply.Data)
			}
			if got := reply.Header.Get("Preference-Applied"); got != "respond-async" {
				t.Errorf("Preference-Applied is %q, want respond-async", got)
			}
			images, err := b.js.Stream(t.Context(), streams.Images)
			if err != nil {
				t.Fatal(err)
			}
			job := subject.Job{Pipeline: "text", Priority: subject.Bulk, ID: r.ID}
			m, err := images.GetLastMsgForSubject(t.Context(), subject.Images(job))
			if err != nil {
				t.Fatalf("the bulk job %s: %v", r.ID, err)
			}
			if got := m.Header.Get(v1.HeaderMetadata); got != `{"camera-id":"3 ü"}` {
				t.Errorf("the metadata are %s", got)
			}
			if got := m.Header.Get(v1.HeaderCallback); got != "https://client.example/done" {
				t.Errorf("the callback is %q", got)
			}
		})
	}
}

func TestAnalyze_NamesTheInvalidHeader(t *testing.T) {
	t.Parallel()
	b := newBench(t, testTimeout, 8)
	for name, tt := range map[string]struct {
		h     nats.Header
		code  v1.Code
		field string
		limit int64
	}{
		"priority":       {nats.Header{"Sight-Priority": {"now"}}, v1.InvalidParameter, "priority", 0},
		"no priority":    {nats.Header{"Sight-Priority": {""}}, v1.InvalidParameter, "priority", 0},
		"two priorities": {nats.Header{"Sight-Priority": {"bulk", "bulk"}}, v1.InvalidParameter, "priority", 0},
		"callback":       {nats.Header{"Sight-Callback": {"file:///etc/passwd"}}, v1.InvalidParameter, "callback", 0},
		"long key": {nats.Header{"Idempotency-Key": {strings.Repeat("k", intake.MaxKey+1)}},
			v1.InvalidHeader, "Idempotency-Key", intake.MaxKey},
		"empty key": {nats.Header{"Idempotency-Key": {""}}, v1.InvalidHeader, "Idempotency-Key", 0},
		"two keys": {nats.Header{"Idempotency-Key": {"a"}, "idempotency-key": {"b"}},
			v1.InvalidHeader, "Idempotency-Key", 0},
		"callback with a password": {nats.Header{"Sight-Callback": {"http://u:p@client.example/"}}, v1.InvalidParameter,
			"callback", 0},
		"long callback": {nats.Header{"Sight-Callback": {"https://a/" + strings.Repeat("x", 2048)}},
			v1.InvalidParameter, "callback", 2048},
		"much metadata": {nats.Header{"X-Sight-Meta-A": {strings.Repeat("x", 4096)}},
			v1.InvalidHeader, "X-Sight-Meta-a", 4096},
		"metadata twice":    {nats.Header{"X-Sight-Meta-A": {"1", "2"}}, v1.InvalidHeader, "X-Sight-Meta-A", 0},
		"metadata of bytes": {nats.Header{"X-Sight-Meta-A": {"\xff"}}, v1.InvalidHeader, "X-Sight-Meta-a", 0},
		"prefer":            {nats.Header{"Prefer": {"wait=long"}}, v1.InvalidHeader, "Prefer", 0},
		"score":             {nats.Header{"Sight-Min-Score": {"2"}}, v1.InvalidParameter, "min_score", 0},
		"empty top":         {nats.Header{"Sight-Top": {""}}, v1.InvalidParameter, "top", 0},
		"top":               {nats.Header{"Sight-Top": {"0"}}, v1.InvalidParameter, "top", 10_000},
		"unknown":           {nats.Header{"Sight-Prio": {"bulk"}}, v1.UnknownField, "Sight-Prio", 0},
		"of a job":          {nats.Header{"Sight-Metadata": {"{}"}}, v1.UnknownField, "Sight-Metadata", 0},
		"unknown of HTTP":   {nats.Header{"x-sight-metadata": {"{}"}}, v1.UnknownField, "x-sight-metadata", 0},
	} {
		t.Run(name, func(t *testing.T) {
			p := checkRejection(t, b.requestWith(t, "text", tt.h, newImage(t)), tt.code, "")
			if p.Field != tt.field {
				t.Errorf("the field is %q, want %q", p.Field, tt.field)
			}
			if p.Limit != tt.limit {
				t.Errorf("the limit is %d, want %d", p.Limit, tt.limit)
			}
		})
	}
	images, err := b.js.Stream(t.Context(), streams.Images)
	if err != nil {
		t.Fatal(err)
	}
	if n := images.CachedInfo().State.Msgs; n != 0 {
		t.Errorf("%d images of rejected requests are stored, want 0", n)
	}
}

// TestAnalyze_Prefer checks that a request gets the state of its job after its wait, and that a
// wait over MaxWait is reduced.
func TestAnalyze_Prefer(t *testing.T) {
	t.Parallel()
	b := newBench(t, testTimeout, 8)
	b.MaxWait = time.Millisecond // before its first request
	for prefer, applied := range map[string]string{
		"wait=0": "wait=0", "wait=600": "wait=0", "respond-async, wait=0": "respond-async, wait=0",
	} {
		reply := b.requestWith(t, "text", nats.Header{"Prefer": {prefer}}, newImage(t))
		if got := reply.Header.Get("Preference-Applied"); got != applied {
			t.Errorf("Prefer %s: Preference-Applied is %q, want %q", prefer, got, applied)
		}
		var r v1.Result
		if err := json.Unmarshal(reply.Data, &r); err != nil {
			t.Fatal(err)
		}
		if r.Status != v1.Queued {
			t.Errorf("Prefer %s: the status is %q, want %s", prefer, r.Status, v1.Queued)
		}
	}
}

// TestAnalyze_Statistics checks that the processing time includes the wait for the result, and
// that a rejected request counts as an error.
func TestAnalyze_Statistics(t *testing.T) {
	t.Parallel()
	const wait = 200 * time.Millisecond
	b := newBench(t, wait, 8)
	b.request(t, "text", newImage(t))
	problem := checkRejection(t, b.request(t, "cats", newImage(t)), v1.UnknownPipeline, "")
	m, err := b.nc.Request("$SRV.STATS.ingress", nil, testTimeout)
	if err != nil {
		t.Fatal(err)
	}
	var stats micro.Stats
	if err := json.Unmarshal(m.Data, &stats); err != nil {
		t.Fatal(err)
	}
	e := stats.Endpoints[0]
	if e.NumRequests != 2 {
		t.Errorf("%d requests are counted, want 2", e.NumRequests)
	}
	if e.NumErrors != 1 {
		t.Errorf("%d errors are counted, want 1", e.NumErrors)
	}
	if want := "404:" + problem.Error(); e.LastError != want {
		t.Errorf("the last error is %q, want %q", e.LastError, want)
	}
	if e.ProcessingTime < wait {
		t.Errorf("the processing time is %v, want %v or more", e.ProcessingTime, wait)
	}
	if e.AverageProcessingTime != e.ProcessingTime/2 {
		t.Errorf("the average processing time is %v, want half of %v", e.AverageProcessingTime, e.ProcessingTime)
	}
}

// TestDocs_NATSListsTheHeaders compares the table of docs/nats.md with the code.
func TestDocs_NATSListsTheHeaders(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join("..", "..", "..", "..", "docs", "nats.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(page), "\n### Headers of a request\n")
	if !found {
		t.Fatal("the page has no section on the headers of a request")
	}
	section, _, _ = strings.Cut(section, "\n#")
	var documented []string
	for _, row := range regexp.MustCompile("(?m)^\\| (`[^|]+)\\|").FindAllStringSubmatch(section, -1) {
		documented = append(documented, regexp.MustCompile("[A-Za-z-]+").FindAllString(row[1], -1)...)
	}
	slices.Sort(documented)
	if !slices.Equal(documented, requestHeaders) {
		t.Errorf("the page has %q, want %q", documented, requestHeaders)
	}
}
