package bus

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"github.com/nats-io/nuid"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// Service is a service of the NATS service framework (ADR-32 of NATS): it has
// endpoints, and says what they are and how they do to a client such as nats micro.
//
// Package micro of nats.go has the messages of the framework. Its own service is not
// used, because it takes the return of a handler for the end of a request, and calls
// handlers one at a time. The handlers here begin work and return, so that requests
// are served at the same time: micro would count how long it takes to start a
// goroutine, and no problem. A request of a Service ends when it is replied to.
type Service struct {
	conn        *nats.Conn
	identity    micro.ServiceIdentity
	description string
	status      func() any

	mu            sync.Mutex
	started       time.Time
	endpoints     []*endpointStats
	subscriptions []*nats.Subscription
}

// ServiceConfig describes a service.
type ServiceConfig struct {
	Name, Version, Description string
	// Metadata of this instance.
	Metadata map[string]string
	// Status returns the data of every endpoint in the statistics; nil for none.
	Status func() any
}

// Endpoint is where a service takes requests.
type Endpoint struct {
	Name, Subject string
	Metadata      map[string]string
	// EveryInstance has all instances of the service get each request, and not only
	// one of them.
	EveryInstance bool
	// Handle begins to serve a request and returns: it is called for one request at
	// a time.
	Handle func(*Request)
}

// NewService returns a service that is not known to clients until Start.
func NewService(nc *nats.Conn, cfg ServiceConfig) *Service {
	metadata := maps.Clone(cfg.Metadata)
	if metadata == nil {
		metadata = map[string]string{}
	}
	return &Service{
		conn: nc, description: cfg.Description, status: cfg.Status,
		identity: micro.ServiceIdentity{Name: cfg.Name, ID: nuid.Next(), Version: cfg.Version, Metadata: metadata},
	}
}

// Describe adds to the metadata of the service, before Start.
func (s *Service) Describe(metadata map[string]string) { maps.Copy(s.identity.Metadata, metadata) }

// AddEndpoint begins to take the requests of an endpoint.
func (s *Service) AddEndpoint(e Endpoint) error {
	group := micro.DefaultQueueGroup
	if e.EveryInstance {
		group = ""
	}
	stats := &endpointStats{
		metadata: maps.Clone(e.Metadata),
		stats:    micro.EndpointStats{Name: e.Name, Subject: e.Subject, QueueGroup: group},
	}
	sub, err := s.conn.QueueSubscribe(e.Subject, group, func(m *nats.Msg) {
		e.Handle(&Request{Msg: m, received: time.Now(), endpoint: stats})
	})
	if err != nil {
		return fmt.Errorf("serve %s on %s: %w", e.Name, e.Subject, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endpoints = append(s.endpoints, stats)
	s.subscriptions = append(s.subscriptions, sub)
	return nil
}

// Start makes the service known: it answers clients that ask for all services, for
// those of its name, or for itself.
func (s *Service) Start() error {
	s.started = time.Now().UTC()
	for verb, answer := range map[micro.Verb]func() any{
		micro.PingVerb:  func() any { return micro.Ping{ServiceIdentity: s.identity, Type: micro.PingResponseType} },
		micro.InfoVerb:  func() any { return s.info() },
		micro.StatsVerb: func() any { return s.stats() },
	} {
		for _, of := range []struct{ name, id string }{{}, {name: s.identity.Name}, {s.identity.Name, s.identity.ID}} {
			subj, err := micro.ControlSubject(verb, of.name, of.id)
			if err == nil {
				err = s.answer(subj, answer)
			}
			if err != nil {
				return errors.Join(fmt.Errorf("answer %v of service %s: %w", verb, s.identity.Name, err), s.Stop())
			}
		}
	}
	return nil
}

// answer replies to all messages on a subject.
func (s *Service) answer(subj string, answer func() any) error {
	sub, err := s.conn.Subscribe(subj, func(m *nats.Msg) {
		body, err := json.Marshal(answer())
		if err != nil { // of the status, which is the service's own
			body = fmt.Appendf(nil, `{"error":%q}`, err)
		}
		_ = m.Respond(body) // a client without an inbox gets no reply
	})
	if err != nil {
		return err //nolint:wrapcheck // the caller says what it is of
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.subscriptions = append(s.subscriptions, sub)
	return nil
}

func (s *Service) info() micro.Info {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := micro.Info{
		ServiceIdentity: s.identity, Type: micro.InfoResponseType, Description: s.description,
		Endpoints: []micro.EndpointInfo{},
	}
	for _, e := range s.endpoints {
		out.Endpoints = append(out.Endpoints, e.info())
	}
	return out
}

func (s *Service) stats() micro.Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := micro.Stats{
		ServiceIdentity: s.identity, Type: micro.StatsResponseType, Started: s.started,
		Endpoints: []*micro.EndpointStats{},
	}
	var data json.RawMessage
	if s.status != nil {
		data, _ = json.Marshal(s.status()) // it is left out when it cannot be encoded
	}
	for _, e := range s.endpoints {
		stats := e.snapshot()
		stats.Data = data
		out.Endpoints = append(out.Endpoints, &stats)
	}
	return out
}

// Stop leaves requests to other instances. Those that the server has sent already
// are still handed over. It does nothing once the connection is closed.
func (s *Service) Stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, sub := range s.subscriptions {
		if err := sub.Drain(); err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
			errs = append(errs, fmt.Errorf("stop to listen on %s: %w", sub.Subject, err))
		}
	}
	s.subscriptions = nil
	return errors.Join(errs...)
}

// endpointStats is what is known of an endpoint.
type endpointStats struct {
	metadata map[string]string

	mu    sync.Mutex
	stats micro.EndpointStats
}

func (e *endpointStats) info() micro.EndpointInfo {
	return micro.EndpointInfo{
		Name: e.stats.Name, Subject: e.stats.Subject, QueueGroup: e.stats.QueueGroup, Metadata: e.metadata,
	}
}

func (e *endpointStats) snapshot() micro.EndpointStats {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.stats
}

// end ends a request with its reply, if there is one, and counts it, with the problem
// that it has. A client that has its reply finds it counted.
func (e *endpointStats) end(received time.Time, reply func() error, problem error) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	err := reply()
	e.stats.NumRequests++
	e.stats.ProcessingTime += time.Since(received)
	e.stats.AverageProcessingTime = e.stats.ProcessingTime / time.Duration(e.stats.NumRequests)
	if problem = errors.Join(problem, err); problem != nil {
		e.stats.NumErrors++
		e.stats.LastError = problem.Error()
	}
	return err
}

// Request is a request to an endpoint. It is ended by exactly one of Respond,
// RespondProblem and Fail, in any goroutine.
type Request struct {
	Msg      *nats.Msg
	received time.Time
	endpoint *endpointStats
}

// Respond replies with body.
func (r *Request) Respond(body []byte, h nats.Header) error { return r.respond(body, h, nil) }

// RespondProblem replies with p as an error of the framework: the code is the HTTP
// status, the description is the problem's code and detail, and the body is the
// problem as JSON. h has further headers.
func (r *Request) RespondProblem(p *v1.Problem, h nats.Header) error {
	body, err := json.Marshal(p)
	if err != nil {
		err = fmt.Errorf("encode problem: %w", err)
		r.Fail(err)
		return err
	}
	out := nats.Header{micro.ErrorCodeHeader: {strconv.Itoa(p.Status)}, micro.ErrorHeader: {p.Error()}}
	maps.Copy(out, h)
	return r.respond(body, out, fmt.Errorf("%d:%w", p.Status, p))
}

func (r *Request) respond(body []byte, h nats.Header, problem error) error {
	return r.endpoint.end(r.received, func() error {
		if err := r.Msg.RespondMsg(&nats.Msg{Header: h, Data: body}); err != nil {
			return fmt.Errorf("reply: %w", err)
		}
		return nil
	}, problem)
}

// Fail ends a request without a reply, because of err.
func (r *Request) Fail(err error) {
	_ = r.endpoint.end(r.received, func() error { return nil }, err)
}
