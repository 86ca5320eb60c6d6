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

// Service is a service of the NATS service framework (ADR-32 of NATS). It has
// endpoints, and sends their descriptions and statistics to clients such as nats
// micro.
//
// Package micro of nats.go has the messages of the framework. This package does not
// use micro.Service, which calls handlers one at a time and counts a request as ended
// when its handler returns. The handlers here start a goroutine and return, so that
// requests are served concurrently. micro would only measure the start of the
// goroutine and would count no errors. A request of a Service ends with its reply.
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

// Endpoint is a subject on which a service receives requests.
type Endpoint struct {
	Name, Subject string
	Metadata      map[string]string
	// EveryInstance delivers each request to all instances of the service, instead
	// of to one of them.
	EveryInstance bool
	// Handle starts to serve a request and returns. It is called for one request
	// at a time, so it must not block.
	Handle func(*Request)
}

// NewService returns a Service. Clients cannot discover it before Start.
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

// Describe adds to the metadata of the service. It must be called before Start.
func (s *Service) Describe(metadata map[string]string) { maps.Copy(s.identity.Metadata, metadata) }

// AddEndpoint subscribes to the requests of an endpoint.
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

// Start makes the service discoverable. It replies to clients that ask for all
// services, for services with its name, or for this instance.
func (s *Service) Start() error {
	s.started = time.Now().UTC()
	for verb, response := range map[micro.Verb]func() any{
		micro.PingVerb:  func() any { return micro.Ping{ServiceIdentity: s.identity, Type: micro.PingResponseType} },
		micro.InfoVerb:  func() any { return s.info() },
		micro.StatsVerb: func() any { return s.stats() },
	} {
		for _, of := range []struct{ name, id string }{{}, {name: s.identity.Name}, {s.identity.Name, s.identity.ID}} {
			subj, err := micro.ControlSubject(verb, of.name, of.id)
			if err == nil {
				err = s.serveControl(subj, response)
			}
			if err != nil {
				return errors.Join(fmt.Errorf("serve %v of service %s: %w", verb, s.identity.Name, err), s.Stop())
			}
		}
	}
	return nil
}

// serveControl replies to all messages on a subject with what response returns.
func (s *Service) serveControl(subj string, response func() any) error {
	sub, err := s.conn.Subscribe(subj, func(m *nats.Msg) {
		body, err := json.Marshal(response())
		if err != nil { // the status of the service cannot be encoded
			body = fmt.Appendf(nil, `{"error":%q}`, err)
		}
		_ = m.Respond(body) // a client without an inbox gets no reply
	})
	if err != nil {
		return err //nolint:wrapcheck // the caller adds the verb
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
		data, _ = json.Marshal(s.status()) // omitted when it cannot be encoded
	}
	for _, e := range s.endpoints {
		stats := e.snapshot()
		stats.Data = data
		out.Endpoints = append(out.Endpoints, &stats)
	}
	return out
}

// Stop ends the subscriptions, so that other instances get the requests. Requests
// that the server has already sent are still passed to the handlers. Stop does
// nothing when the connection is closed.
func (s *Service) Stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, sub := range s.subscriptions {
		if err := sub.Drain(); err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
			errs = append(errs, fmt.Errorf("drain subscription to %s: %w", sub.Subject, err))
		}
	}
	s.subscriptions = nil
	return errors.Join(errs...)
}

// endpointStats has the description and statistics of an endpoint.
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

// end sends the reply of a request, if it has one, and counts the request and its
// problem. It holds the lock meanwhile, so that a client that has received its reply
// finds the request counted.
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

// Request is a request to an endpoint. The handler ends it by exactly one call of
// Respond, RespondProblem or Fail, from any goroutine.
type Request struct {
	Msg      *nats.Msg
	received time.Time
	endpoint *endpointStats
}

// Respond replies with body.
func (r *Request) Respond(body []byte, h nats.Header) error { return r.respond(body, h, nil) }

// RespondProblem replies with p as an error of the framework: the code is the HTTP
// status of p, the description has its code and detail, and the body is p as JSON. h
// has further headers and may be nil.
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

// Fail ends a request without a reply and counts err.
func (r *Request) Fail(err error) {
	_ = r.endpoint.end(r.received, func() error { return nil }, err)
}
