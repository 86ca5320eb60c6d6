package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"

	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// testNATS uses the mesh without HTTP.
func testNATS(t *testing.T, m *mesh) {
	nc := m.connect(t)
	page := samplePage(t)
	t.Run("analyze", func(t *testing.T) {
		msg, err := nc.Request(subject.Analyze("text"), page, timeoutAnswer)
		if err != nil {
			t.Fatal(err)
		}
		var r v1.Result
		if err := json.Unmarshal(msg.Data, &r); err != nil {
			t.Fatalf("%v: %s", err, msg.Data)
		}
		if r.Status != v1.Done || len(r.Regions) != 6 || msg.Header.Get("traceparent") == "" {
			t.Errorf("got %s %v", msg.Data, msg.Header)
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
			{"text", []byte("not a picture"), v1.UnsupportedType},
			{"text", page[:len(page)/2], v1.Damaged},
		} {
			msg, err := nc.Request(subject.Analyze(tt.pipeline), tt.body, timeoutAnswer)
			if err != nil {
				t.Fatal(err)
			}
			var p v1.Problem
			if err := json.Unmarshal(msg.Data, &p); err != nil {
				t.Fatal(err)
			}
			want := v1.NewProblem(tt.want, "")
			if p.Code != tt.want || msg.Header.Get(micro.ErrorCodeHeader) == "" || p.Status != want.Status {
				t.Errorf("%s: got %s %v", tt.want, msg.Data, msg.Header)
			}
		}
	})
	t.Run("published straight to the stream", func(t *testing.T) {
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
		ack, err := js.PublishMsg(context.Background(), &nats.Msg{Subject: subject.Images(job), Data: page, Header: nats.Header{v1.HeaderReply: {inbox}}})
		if err != nil || ack.Stream != streams.Images {
			t.Fatalf("publish: %v %+v", err, ack)
		}
		msg, err := sub.NextMsg(timeoutAnswer)
		if err != nil {
			t.Fatal(err)
		}
		var r v1.Result
		if err := json.Unmarshal(msg.Data, &r); err != nil {
			t.Fatal(err)
		}
		if r.ID != job.ID || r.Status != v1.Done || len(r.Regions) != 6 {
			t.Errorf("got %s", msg.Data)
		}
		if a := m.get(t, "/v1/images/"+job.ID); a.result.Status != v1.Done {
			t.Errorf("over HTTP: %v", a)
		}
	})
	t.Run("published straight, bad", func(t *testing.T) {
		js, err := jetstream.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		job := subject.Job{Pipeline: "text", Priority: subject.Interactive, ID: "bad-" + nats.NewInbox()[7:]}
		if _, err := js.Publish(context.Background(), subject.Images(job), []byte("19 bytes, no picture")); err != nil {
			t.Fatal(err)
		}
		eventually(t, timeoutAnswer, func() error {
			a := m.get(t, "/v1/images/"+job.ID)
			if a.result.Status == v1.Failed && a.result.Problem != nil && a.result.Problem.Code == v1.UnsupportedType {
				return nil
			}
			return errNotYet{a}
		})
	})
	t.Run("micro", func(t *testing.T) { testMicro(t, nc) })
}

type errNotYet struct{ a answer }

func (e errNotYet) Error() string { return "not yet: " + e.a.String() }

// testMicro asks as `nats micro ls`, `info` and `stats` do.
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
			msg, err := sub.NextMsg(5 * time.Second)
			if err != nil {
				t.Fatalf("%v: only %d services answered: %v", verb, len(seen), err)
			}
			var id struct {
				Name    string `json:"name"`
				Version string `json:"version"`
			}
			if err := json.Unmarshal(msg.Data, &id); err != nil || id.Version == "" {
				t.Fatalf("%v: %s", verb, msg.Data)
			}
			seen[id.Name] = msg.Data
		}
		for _, name := range []string{"ingress", "detect", "classify", "results", "draw"} {
			if seen[name] == nil {
				t.Errorf("%v: no answer of %s", verb, name)
			}
		}
		if verb == micro.StatsVerb && !bytes.Contains(seen["detect"], []byte(`"lanes":`)) {
			t.Errorf("statistics of detect say nothing of lanes: %s", seen["detect"])
		}
		if verb == micro.InfoVerb && !bytes.Contains(seen["ingress"], []byte(subject.AllAnalyze())) {
			t.Errorf("info of ingress does not name its endpoint: %s", seen["ingress"])
		}
	}
}
