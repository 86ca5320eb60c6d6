package bus

import (
	"net/url"
	"strconv"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/contracts/subject"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/internal/telemetry"
)

// systemName is the value of messaging.system.
const systemName = "nats"

// destinations has the streams whose messages have spans, with the subjects of each
// stream and the function that parses a job from a subject.
var destinations = map[string]struct {
	subjects string
	parse    func(string) (subject.Job, error)
}{
	streams.Images:     {subject.AllImages(), subject.ParseImages},
	streams.Crops:      {subject.AllCrops(), subject.ParseCrops},
	streams.Parts:      {subject.AllParts(), subject.ParseParts},
	streams.Results:    {subject.AllResults(), subject.ParseResults},
	streams.Fetches:    {subject.AllFetches(), subject.ParseFetches},
	streams.Reports:    {subject.AllReports(), parseJobID(subject.ParseReport)},
	streams.Callbacks:  {subject.AllCallbacks(), parseJobID(subject.ParseCallbacks)},
	streams.Quarantine: {subject.AllQuarantine(), nil},
}

// parseJobID returns a function that parses a job of which only the ID is known.
func parseJobID(parse func(string) (string, error)) func(string) (subject.Job, error) {
	return func(s string) (job subject.Job, err error) {
		job.ID, err = parse(s)
		return job, err
	}
}

// DestinationAttributes returns the span attributes of the destination of a message:
// its stream and the subjects of the stream.
func DestinationAttributes(stream string) []attribute.KeyValue {
	return []attribute.KeyValue{
		semconv.MessagingSystemKey.String(systemName),
		semconv.MessagingDestinationName(stream),
		semconv.MessagingDestinationTemplate(destinations[stream].subjects),
	}
}

// ServerAttributes returns the span attributes of the server that nc is connected to,
// and of nc as its client.
func ServerAttributes(nc *nats.Conn) []attribute.KeyValue {
	attrs := []attribute.KeyValue{semconv.MessagingClientID(nc.Opts.Name)}
	at, err := url.Parse(nc.ConnectedUrl())
	if err != nil || at.Hostname() == "" { // not connected now
		return attrs
	}
	attrs = append(attrs, semconv.ServerAddress(at.Hostname()))
	if port, err := strconv.Atoi(at.Port()); err == nil {
		attrs = append(attrs, semconv.ServerPort(port))
	}
	return attrs
}

// RequestAttributes returns the attributes of the server span of a request m.
// subjects is the wildcard of the subjects that the server subscribes to.
func RequestAttributes(m *nats.Msg, operation, subjects string) []attribute.KeyValue {
	return []attribute.KeyValue{
		semconv.MessagingSystemKey.String(systemName),
		semconv.MessagingOperationName(operation), semconv.MessagingOperationTypeProcess,
		semconv.MessagingDestinationName(m.Subject), semconv.MessagingDestinationTemplate(subjects),
		semconv.MessagingMessageBodySize(len(m.Data)),
	}
}

// ReplyAttributes returns the attributes of a span that sends or receives a reply on
// an inbox.
func ReplyAttributes(operation string, kind attribute.KeyValue, body []byte) []attribute.KeyValue {
	return []attribute.KeyValue{
		semconv.MessagingSystemKey.String(systemName),
		semconv.MessagingOperationName(operation), kind,
		semconv.MessagingDestinationTemplate(subject.InboxPrefix), semconv.MessagingDestinationTemporary(true),
		semconv.MessagingMessageBodySize(len(body)),
	}
}

// JobAttributes returns the span attributes of the job of a message with header h. It
// omits attributes for which the job has no value.
func JobAttributes(job subject.Job, h nats.Header) []attribute.KeyValue {
	attrs := []attribute.KeyValue{telemetry.AttrJob.String(job.ID), telemetry.AttrPart.Int(job.Part)}
	if job.Pipeline != "" {
		attrs = append(attrs, telemetry.AttrPipeline.String(job.Pipeline))
	}
	if job.Priority != "" {
		attrs = append(attrs, telemetry.AttrPriority.String(string(job.Priority)))
	}
	if item, err := v1.ParseReportItem(h.Get(v1.HeaderReport)); err == nil {
		attrs = append(attrs, telemetry.AttrReport.String(item.Report))
	}
	return attrs
}

// attributes returns those of the span that publishes m.
func (m Message) attributes() []attribute.KeyValue {
	attrs := append(DestinationAttributes(m.Stream),
		semconv.MessagingOperationName("publish"), semconv.MessagingOperationTypeSend,
		semconv.MessagingMessageID(m.ID), semconv.MessagingMessageBodySize(len(m.Body)))
	if parse := destinations[m.Stream].parse; parse != nil {
		if job, err := parse(m.Subject); err == nil { // the message is published even if its subject has no job
			attrs = append(attrs, JobAttributes(job, m.Header)...)
		}
	}
	return attrs
}
