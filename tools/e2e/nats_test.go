package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"

	"github.com/sightmesh/sightmesh/contracts/client"
	"github.com/sightmesh/sightmesh/contracts/eventually"
	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// testNATS uses the mesh without HTTP.
func testNATS(t *testing.T, m *mesh) {
	nc := m.connect(t)
	page := samplePage(t)
	t.Run("analyze", func(t *testing.T) {
		msg, err := nc.Request(subject.Analyze("text"), page, responseTimeout)
		if err != nil {
			t.Fatal(err)
		}
		var r v1.Result
		if err := json.Unmarshal(msg.Data, &r); err != nil {
			t.Fatalf("%v: %s", err, msg.Data)
		}
		switch {
		case r.Status != v1.Done:
			t.Errorf("got %s: status %s, want done", msg.Data, r.Status)
		case len(r.Regions) != 6:
			t.Errorf("got %s: %d regions, want 6", msg.Data, len(r.Regions))
		case msg.Header.Get("traceparent") == "":
			t.Errorf("header %v has no traceparent", msg.Header)
		}
	})
	t.Run("analyze problems", func(t *testing.T) {
		for _, tt := range []struct {
			pipeline string
			body     []byte
			want     v1.Code
		}{
			{"nosuch", page, v1.UnknownPipeline},
			{"text", nil, v1.EmptyBody},
			{"text", []byte("not an image"), v1.UnsupportedType},
			{"text", page[:len(page)/2], v1.Damaged},
		} {
			msg, err := nc.Request(subject.Analyze(tt.pipeline), tt.body, responseTimeout)
			if err != nil {
				t.Fatal(err)
			}
			var p v1.Problem
			if err := json.Unmarshal(msg.Data, &p); err != nil {
				t.Fatal(err)
			}
			want := v1.NewProblem(tt.want, "")
			switch {
			case p.Code != tt.want:
				t.Errorf("got %s: code %s, want %s", msg.Data, p.Code, tt.want)
			case msg.Header.Get(micro.ErrorCodeHeader) == "":
				t.Errorf("%s: header %v has no %s", tt.want, msg.Header, micro.ErrorCodeHeader)
			case p.Status != want.Status:
				t.Errorf("got %s: status %d, want %d", msg.Data, p.Status, want.Status)
			}
		}
	})
	t.Run("analyze problems as over HTTP", func(t *testing.T) { testSameProblems(t, m, nc) })
	t.Run("analyze later", func(t *testing.T) { testAnalyzeLater(t, m, nc) })
	t.Run("analyze some of the regions", func(t *testing.T) {
		msg, err := nc.RequestMsg(&nats.Msg{
			Subject: subject.Analyze("text"), Header: nats.Header{v1.HeaderTop: {"2"}}, Data: page,
		}, responseTimeout)
		if err != nil {
			t.Fatal(err)
		}
		var r v1.Result
		if err := json.Unmarshal(msg.Data, &r); err != nil {
			t.Fatal(err)
		}
		if len(r.Regions) != 2 {
			t.Errorf("the reply has %d regions, want the 2 with the highest scores", len(r.Regions))
		}
	})
	t.Run("published to the stream", func(t *testing.T) {
		inbox := nc.NewInbox()
		sub, err := nc.SubscribeSync(inbox)
		if err != nil {
			t.Fatal(err)
		}
		defer sub.Unsubscribe()
		js, err := jetstream.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		job := subject.Job{Pipeline: "text", Priority: subject.Bulk, ID: "straight-" + nats.NewInbox()[7:]}
		ack, err := js.PublishMsg(context.Background(),
			&nats.Msg{Subject: subject.Images(job), Data: page, Header: nats.Header{v1.HeaderReply: {inbox}}})
		switch {
		case err != nil:
			t.Fatalf("publish: %v", err)
		case ack.Stream != streams.Images:
			t.Fatalf("the image was stored in %s, want %s", ack.Stream, streams.Images)
		}
		msg, err := sub.NextMsg(responseTimeout)
		if err != nil {
			t.Fatal(err)
		}
		var r v1.Result
		if err := json.Unmarshal(msg.Data, &r); err != nil {
			t.Fatal(err)
		}
		switch {
		case r.ID != job.ID:
			t.Errorf("got %s: ID %v, want %v", msg.Data, r.ID, job.ID)
		case r.Status != v1.Done:
			t.Errorf("got %s: status %v, want done", msg.Data, r.Status)
		case len(r.Regions) != 6:
			t.Errorf("got %s: %d regions, want 6", msg.Data, len(r.Regions))
		}
		if a := m.get(t, "/v1/images/"+job.ID); a.result.Status != v1.Done {
			t.Errorf("over HTTP: %v", a)
		}
	})
	t.Run("invalid image published to the stream", func(t *testing.T) {
		js, err := jetstream.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		job := subject.Job{Pipeline: "text", Priority: subject.Interactive, ID: "bad-" + nats.NewInbox()[7:]}
		if _, err := js.Publish(context.Background(), subject.Images(job), []byte("19 bytes, no image")); err != nil {
			t.Fatal(err)
		}
		eventually.Succeeds(t, responseTimeout, func() error {
			switch r := m.get(t, "/v1/images/"+job.ID).result; {
			case r.Status != v1.Failed:
				return fmt.Errorf("the status is %q, want %s", r.Status, v1.Failed)
			case r.Problem == nil:
				return errors.New("the failed result has no problem")
			case r.Problem.Code != v1.UnsupportedType:
				return fmt.Errorf("the code is %s, want %s", r.Problem.Code, v1.UnsupportedType)
			}
			return nil
		})
	})
	t.Run("micro", func(t *testing.T) { testMicro(t, nc) })
}

// testSameProblems sends the same invalid requests over HTTP and over NATS, and
// compares the problems.
func testSameProblems(t *testing.T, m *mesh, nc *nats.Conn) {
	long := strings.Repeat("k", 256)
	longURL := "https://a/" + strings.Repeat("x", 2048)
	for name, tt := range map[string]struct {
		query  string
		http   []string // names and values of headers
		header nats.Header
	}{
		"priority":       {"&priority=now", nil, nats.Header{"Sight-Priority": {"now"}}},
		"empty priority": {"&priority=", nil, nats.Header{"Sight-Priority": {""}}},
		"two priorities": {"&priority=bulk&priority=bulk", nil, nats.Header{"Sight-Priority": {"bulk", "bulk"}}},
		"callback":       {"&callback=file:///etc", nil, nats.Header{"Sight-Callback": {"file:///etc"}}},
		"min_score":      {"&min_score=2", nil, nats.Header{"Sight-Min-Score": {"2"}}},
		"labels":         {"&labels=a,,b", nil, nats.Header{"Sight-Labels": {"a,,b"}}},
		"top":            {"&top=0", nil, nats.Header{"Sight-Top": {"0"}}},
		"key":            {"", []string{"Idempotency-Key", long}, nats.Header{"Idempotency-Key": {long}}},
		"empty key":      {"", []string{"Idempotency-Key", ""}, nats.Header{"Idempotency-Key": {""}}},
		"unknown header": {"", []string{"X-Sight-Prio", "bulk"}, nats.Header{"X-Sight-Prio": {"bulk"}}},
		"long callback":  {"&callback=" + longURL, nil, nats.Header{"Sight-Callback": {longURL}}},
		"prefer":         {"", []string{"Prefer", "wait=long"}, nats.Header{"Prefer": {"wait=long"}}},
		"metadata": {"", []string{"X-Sight-Meta-A", strings.Repeat("x", 4096)},
			nats.Header{"X-Sight-Meta-A": {strings.Repeat("x", 4096)}}},
		"name of metadata": {"", []string{"X-Sight-Meta-" + long, "x"}, nats.Header{"X-Sight-Meta-" + long: {"x"}}},
	} {
		want := m.post(t, "?pipeline=text"+tt.query, []byte("no image"), tt.http...).problem
		msg, err := nc.RequestMsg(&nats.Msg{Subject: subject.Analyze("text"), Header: tt.header, Data: []byte("no image")},
			responseTimeout)
		if err != nil {
			t.Fatal(err)
		}
		var got v1.Problem
		if err := json.Unmarshal(msg.Data, &got); err != nil {
			t.Fatal(err)
		}
		switch {
		case got.Code != want.Code:
			t.Errorf("%s: code %s over NATS, %s over HTTP", name, got.Code, want.Code)
		case got.Field != want.Field:
			t.Errorf("%s: field %q over NATS, %q over HTTP", name, got.Field, want.Field)
		case got.Limit != want.Limit:
			t.Errorf("%s: limit %d over NATS, %d over HTTP", name, got.Limit, want.Limit)
		case got.Status != want.Status:
			t.Errorf("%s: status %d over NATS, %d over HTTP", name, got.Status, want.Status)
		}
		if got.Code == v1.UnsupportedType {
			t.Errorf("%s: the problem is about the image, want one about the request", name)
		}
	}
}

// testAnalyzeLater sends an image with Prefer: respond-async, and waits for the
// result as docs/nats.md describes.
func testAnalyzeLater(t *testing.T, m *mesh, nc *nats.Conn) {
	msg, err := nc.RequestMsg(&nats.Msg{
		Subject: subject.Analyze("text"), Data: samplePage(t),
		Header: nats.Header{"Prefer": {"respond-async"}, "Sight-Priority": {"bulk"}, "X-Sight-Meta-Camera": {"3"}},
	}, responseTimeout)
	if err != nil {
		t.Fatal(err)
	}
	var r v1.Result
	if err := json.Unmarshal(msg.Data, &r); err != nil {
		t.Fatal(err)
	}
	if r.Status != v1.Queued {
		t.Errorf("the reply is %s, want the state queued", msg.Data)
	}
	c, err := client.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), responseTimeout)
	defer cancel()
	done, err := c.Await(ctx, r.ID)
	if err != nil {
		t.Fatal(err)
	}
	switch {
	case done.Status != v1.Done:
		t.Errorf("result %+v: status %s, want done", done, done.Status)
	case done.Metadata["camera"] != "3":
		t.Errorf("the metadata is %v, want camera 3", done.Metadata)
	}
	if a := m.get(t, "/v1/images/"+r.ID); a.result.Status != v1.Done {
		t.Errorf("over HTTP: %v", a)
	}
}

// pendingError is the error of a condition that a response does not fulfil yet.
type pendingError struct{ a response }

func (e pendingError) Error() string { return "not yet: " + e.a.String() }

// testMicro sends the requests of `nats micro ls`, `info` and `stats`.
func testMicro(t *testing.T, nc *nats.Conn) {
	for _, verb := range []micro.Verb{micro.PingVerb, micro.InfoVerb, micro.StatsVerb} {
		seen := map[string][]byte{}
		subj, err := micro.ControlSubject(verb, "", "")
		if err != nil {
			t.Fatal(err)
		}
		inbox := nc.NewInbox()
		sub, err := nc.SubscribeSync(inbox)
		if err != nil {
			t.Fatal(err)
		}
		defer sub.Unsubscribe()
		if err := nc.PublishRequest(subj, inbox, nil); err != nil {
			t.Fatal(err)
		}
		for len(seen) < 5 {
			msg, err := sub.NextMsg(responseTimeout)
			if err != nil {
				t.Fatalf("%v: only %d of 5 services replied: %v", verb, len(seen), err)
			}
			var id struct {
				Name    string `json:"name"`
				Version string `json:"version"`
			}
			switch err := json.Unmarshal(msg.Data, &id); {
			case err != nil:
				t.Fatalf("%v: %s: %v", verb, msg.Data, err)
			case id.Version == "":
				t.Fatalf("%v: %s has no version", verb, msg.Data)
			}
			seen[id.Name] = msg.Data
		}
		for _, name := range []string{"ingress", "detect", "classify", "results", "draw"} {
			if seen[name] == nil {
				t.Errorf("%v: no reply of %s", verb, name)
			}
		}
		if verb == micro.StatsVerb && !bytes.Contains(seen["detect"], []byte(`"lanes":`)) {
			t.Errorf("the statistics of detect have no lanes: %s", seen["detect"])
		}
		if verb == micro.InfoVerb {
			testInfo(t, seen)
		}
	}
}

// testInfo checks that the metadata of every endpoint names the type of its replies
// and a schema that exists, and that the metadata of analyze has its limits.
func testInfo(t *testing.T, services map[string][]byte) {
	for name, data := range services {
		var info micro.Info
		if err := json.Unmarshal(data, &info); err != nil {
			t.Fatal(err)
		}
		if info.Description == "" {
			t.Errorf("%s has no description", name)
		}
		for _, e := range info.Endpoints {
			if e.Metadata["response_schema"] == "" && e.Metadata["response_types"] == "" {
				t.Errorf("%s: the metadata of %s has no type of its replies: %v", name, e.Name, e.Metadata)
			}
			for key, id := range e.Metadata {
				if strings.HasSuffix(key, "_schema") {
					checkSchemaID(t, id)
				}
			}
			if e.Subject != subject.AllAnalyze() {
				continue
			}
			for key, want := range map[string]string{
				"max_bytes": "8388608", "max_pixels": "50000000", "max_wait_seconds": "60",
			} {
				if got := e.Metadata[key]; got != want {
					t.Errorf("analyze: %s is %q, want %q", key, got, want)
				}
			}
			if !slices.Contains(strings.Split(e.Metadata["pipelines"], ","), "text") {
				t.Errorf("analyze has the pipelines %q, want text among them", e.Metadata["pipelines"])
			}
		}
	}
}

// checkSchemaID checks that a file of contracts/schema/v1 has the $id. A fragment of
// id is ignored.
func checkSchemaID(t *testing.T, id string) {
	id, _, _ = strings.Cut(id, "#")
	data, err := os.ReadFile(filepath.Join(root(t), "contracts", "schema", "v1", path.Base(id)))
	if err != nil {
		t.Error(err)
		return
	}
	var schema struct {
		ID string `json:"$id"`
	}
	if err := json.Unmarshal(data, &schema); err != nil {
		t.Fatal(err)
	}
	if schema.ID != id {
		t.Errorf("the schema is %s, want %s", schema.ID, id)
	}
}
