package results

import (
	"context"
	"fmt"
	"regexp"
	"time"

	"github.com/nats-io/nats.go"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/internal/bus"
	"github.com/sightmesh/sightmesh/services/internal/consume"
	"github.com/sightmesh/sightmesh/services/internal/telemetry"
)

// reply sends a stored result to the request that waits for it. It does nothing else, so
// that a reply depends only on the connection.
func (s *Service) reply(ctx context.Context, d *consume.Delivery) ([]bus.Message, error) {
	s.results.WithLabelValues(d.Job.Pipeline).Inc()
	s.formerResults.WithLabelValues(d.Job.Pipeline).Inc()
	return nil, s.sendReply(ctx, d)
}

// inbox matches the subjects that may get a reply: inboxes of nats.go, also with a custom
// prefix. Without the check, a client that publishes images could make the results
// service publish on any subject.
var inbox = regexp.MustCompile(`^` + subject.InboxPrefix + `[A-Za-z0-9_-]*\.[^\s*>]+$`)

// sendReply sends the result to the reply subject of its job, if it has one.
func (s *Service) sendReply(ctx context.Context, d *consume.Delivery) error {
	to := d.Header.Get(v1.HeaderReply)
	if to == "" {
		return nil
	}
	if !inbox.MatchString(to) {
		s.log.WarnContext(ctx, "no reply, because the reply subject is not an inbox", "subject", to)
		return nil
	}
	replyCtx, span := s.tracer.Start(ctx, "reply", trace.WithSpanKind(trace.SpanKindProducer),
		trace.WithAttributes(bus.ServerAttributes(s.conn)...), trace.WithAttributes(bus.JobAttributes(d.Job, d.Header)...),
		trace.WithAttributes(bus.ReplyAttributes("reply", semconv.MessagingOperationTypeSend, d.Body)...))
	defer span.End()
	h := nats.Header{}
	h.Set(v1.HeaderStored, d.Stored.UTC().Format(time.RFC3339Nano))
	telemetry.Inject(replyCtx, h)
	if err := s.conn.PublishMsg(&nats.Msg{Subject: to, Header: h, Data: d.Body}); err != nil {
		telemetry.Fail(span, err)
		return fmt.Errorf("reply: %w", err)
	}
	s.replies.Inc()
	return nil
}
