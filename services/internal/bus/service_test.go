package bus

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/internal/bustest"
)

// startService returns a service with the endpoint, and a connection of a client.
func startService(t *testing.T, cfg ServiceConfig, e Endpoint) (*Service, *nats.Conn) {
	t.Helper()
	server := bustest.StartEmpty(t)
	s := NewService(server.Connect(t), cfg)
	s.Describe(map[string]string{"lanes": "2"})
	if err := s.AddEndpoint(e); err != nil {
		t.Fatal(err)
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	if err := s.conn.Flush(); err != nil {
		t.Fatal(err)
	}
	return s, server.Connect(t)
}

// requestControl returns the response of a service to a verb, and checks its type.
func requestControl[T any](t *testing.T, nc *nats.Conn, verb micro.Verb, name, id string) (answer T) {
	t.Helper()
	subj, err := micro.ControlSubject(verb, name, id)
	if err != nil {
		t.Fatal(err)
	}
	m, err := nc.Request(subj, nil, testTimeout)
	if err != nil {
		t.Fatalf("%s: %v", subj, err)
	}
	if err := json.Unmarshal(m.Data, &answer); err != nil {
		t.Fatalf("%s: %v", subj, err)
	}
	return answer
}

// TestService_RepliesLikeMicro compares the responses with those of package micro, so that
// clients such as nats micro work with both.
func TestService_RepliesLikeMicro(t *testing.T) {
	t.Parallel()
	s, nc := startService(t,
		ServiceConfig{
			Name: "ours", Version: "1.2.3", Description: "A service.", Metadata: map[string]string{"instance": "i1"},
		},
		Endpoint{Name: "ask", Subject: "ask.*", Metadata: map[string]string{"max_bytes": "9"}, Handle: func(*Request) {}})
	other, err := micro.AddService(s.conn, micro.Config{
		Name: "micro", Version: "1.2.3", Description: "A service.",
		Metadata: map[string]string{"instance": "i1", "lanes": "2"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Stop()
	if err := other.AddEndpoint("ask", micro.HandlerFunc(func(micro.Request) {}), micro.WithEndpointSubject("ask.*"),
		micro.WithEndpointMetadata(map[string]string{"max_bytes": "9"})); err != nil {
		t.Fatal(err)
	}
	for _, verb := range []micro.Verb{micro.PingVerb, micro.InfoVerb, micro.StatsVerb} {
		got := requestControl[map[string]any](t, nc, verb, "ours", "")
		want := requestControl[map[string]any](t, nc, verb, "micro", "")
		for _, differs := range []string{"id", "name", "started"} {
			if reflect.TypeOf(got[differs]) != reflect.TypeOf(want[differs]) {
				t.Errorf("%v: %s is %v, want one such as %v", verb, differs, got[differs], want[differs])
			}
			delete(got, differs)
			delete(want, differs)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%v: got\n%v, want\n%v", verb, got, want)
		}
	}
	id := requestControl[micro.Ping](t, nc, micro.PingVerb, "ours", "").ID
	if got := requestControl[micro.Ping](t, nc, micro.PingVerb, "ours", id).ID; got != id {
		t.Errorf("asked by its ID %s, the service says %s", id, got)
	}
}

// TestService_CountsUntilTheReply: the time is that from the request to its reply, which
// is sent when the handler has returned, and every problem is an error.
func TestService_CountsUntilTheReply(t *testing.T) {
	t.Parallel()
	const work = 20 * time.Millisecond
	problem := v1.NewProblem(v1.UnknownJob, "no job %q", "j1")
	_, nc := startService(t, ServiceConfig{Name: "results", Version: "1.0.0", Status: func() any { return []int{3} }},
		Endpoint{Name: "ask", Subject: "ask", Handle: func(r *Request) {
			time.AfterFunc(work, func() {
				var err error
				if len(r.Msg.Data) > 0 {
					err = r.RespondProblem(problem, nats.Header{"Retry-After": {"5"}})
				} else {
					err = r.Respond([]byte("done"), nil)
				}
				if err != nil {
					t.Error(err)
				}
			})
		}})
	for _, body := range []string{"", "bad", ""} {
		m, err := nc.Request("ask", []byte(body), testTimeout)
		if err != nil {
			t.Fatal(err)
		}
		if body == "" {
			continue
		}
		for k, v := range map[string]string{
			micro.ErrorCodeHeader: "404", micro.ErrorHeader: problem.Error(), "Retry-After": "5",
		} {
			if got := m.Header.Get(k); got != v {
				t.Errorf("%s is %q, want %q", k, got, v)
			}
		}
		want, err := json.Marshal(problem)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(m.Data, want) {
			t.Errorf("body %s, want %s", m.Data, want)
		}
	}
	stats := requestControl[micro.Stats](t, nc, micro.StatsVerb, "results", "").Endpoints[0]
	if stats.NumRequests != 3 {
		t.Errorf("%d requests are counted, want 3", stats.NumRequests)
	}
	if stats.NumErrors != 1 {
		t.Errorf("%d errors are counted, want 1", stats.NumErrors)
	}
	if want := "404:" + problem.Error(); stats.LastError != want {
		t.Errorf("the last error is %q, want %q", stats.LastError, want)
	}
	if stats.ProcessingTime < 3*work {
		t.Errorf("the processing time is %v, want that of the work, %v or more", stats.ProcessingTime, 3*work)
	}
	if stats.AverageProcessingTime != stats.ProcessingTime/3 {
		t.Errorf("the average is %v of 3 times %v", stats.AverageProcessingTime, stats.ProcessingTime)
	}
	if string(stats.Data) != "[3]" {
		t.Errorf("the data are %s, want the status", stats.Data)
	}
}

// TestService_CountsARequestWithoutAReply has a client that has disconnected, and one without an inbox.
func TestService_CountsARequestWithoutAReply(t *testing.T) {
	t.Parallel()
	replied := make(chan error, 1)
	_, nc := startService(t, ServiceConfig{Name: "results", Version: "1.0.0"}, Endpoint{
		Name: "ask", Subject: "ask",
		Handle: func(r *Request) { replied <- r.Respond(nil, nil) },
	})
	if err := nc.Publish("ask", nil); err != nil {
		t.Fatal(err)
	}
	if err := <-replied; err == nil {
		t.Error("a request without an inbox was replied to")
	}
	stats := requestControl[micro.Stats](t, nc, micro.StatsVerb, "results", "").Endpoints[0]
	if stats.NumErrors != 1 {
		t.Errorf("%d errors are counted, want 1", stats.NumErrors)
	}
	if stats.LastError == "" {
		t.Error("the last error is empty, want that there was no reply")
	}
}

// TestService_EveryInstanceOrOneReplies: the reply has the ID of its instance.
func TestService_EveryInstanceOrOneReplies(t *testing.T) {
	t.Parallel()
	server := bustest.StartEmpty(t)
	services := map[string]*Service{}
	for _, name := range []string{"a", "b"} {
		s := NewService(server.Connect(t), ServiceConfig{Name: "results", Version: "1.0.0"})
		answer := func(r *Request) {
			if err := r.Respond([]byte(name), nil); err != nil {
				t.Error(err)
			}
		}
		for _, e := range []Endpoint{
			{Name: "one", Subject: "one", Handle: answer},
			{Name: "all", Subject: "all", Handle: answer, EveryInstance: true},
		} {
			if err := s.AddEndpoint(e); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.conn.Flush(); err != nil {
			t.Fatal(err)
		}
		services[name] = s
	}
	nc := server.Connect(t)
	replies, err := nc.SubscribeSync(nc.NewInbox())
	if err != nil {
		t.Fatal(err)
	}
	receive := func() string {
		t.Helper()
		m, err := replies.NextMsg(testTimeout)
		if err != nil {
			t.Fatal(err)
		}
		return string(m.Data)
	}
	if err := nc.PublishRequest("all", replies.Subject, nil); err != nil {
		t.Fatal(err)
	}
	if first, second := receive(), receive(); first == second {
		t.Errorf("%s has replied twice, want each instance", first)
	}
	if err := services["a"].Stop(); err != nil {
		t.Fatal(err)
	}
	if err := services["a"].conn.Flush(); err != nil {
		t.Fatal(err)
	}
	for range 8 {
		if err := nc.PublishRequest("one", replies.Subject, nil); err != nil {
			t.Fatal(err)
		}
		if got := receive(); got != "b" {
			t.Fatalf("%s has replied after Stop", got)
		}
	}
}
