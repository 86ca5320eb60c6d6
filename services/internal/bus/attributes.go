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

// system is the value of messaging.system.
const system = "nats"

// destinations are the streams whose messages have spans: the subjects of each,
// and how they name a job.
var destinations = map[string]struct {
	subjects string
	parse    func(string) (subject.Job, error)
}{
	streams.Images:     {subject.AllImages(), subject.ParseImages},
	streams.Crops:      {subject.AllCrops(), subject.ParseCrops},
	streams.Parts:      {subject.AllParts(), subject.ParseParts},
	streams.Results:    {subject.AllResults(), subject.ParseResults},
	streams.Fetches:    {subject.AllFetches(), subject.ParseFetches},
	streams.Reports:    {subject.AllReports(), jobOf(subject.ParseReport)},
	streams.Callbacks:  {subject.AllCallbacks(), jobOf(subject.ParseCallbacks)},
	streams.Quarantine: {subject.AllQuarantine(), nil},
}

// jobOf makes a job of the ID alone.
func jobOf(parse func(string) (string, error)) func(string) (subject.Job, error) {
	return func(s string) (job subject.Job, err error) {
		job.ID, err = parse(s)
		return job, err
	}
}

// DestinationAttributes returns the attributes of a span that say where a message
// is: its stream, which is the destination, and the subjects of that.
func DestinationAttributes(stream string) []attribute.KeyValue {
	return []attribute.KeyValue{
		semconv.MessagingSystemKey.String(system),
		semconv.MessagingDestinationName(stream),
		semconv.MessagingDestinationTemplate(destinations[stream].subjects),
	}
}

// ServerAttributes returns the attributes of a span of a message that say to which
// server nc is connected, and which client it is there.
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

// RequestAttributes returns the attributes of the span of a server that answers m.
// subjects are all those that it answers on.
func RequestAttributes(m *nats.Msg, operation, subjects string) []attribute.KeyValue {
	return []attribute.KeyValue{
		semconv.MessagingSystemKey.String(system),
		semconv.MessagingOperationName(operation), semconv.MessagingOperationTypeProcess,
		semconv.MessagingDestinationName(m.Subject), semconv.MessagingDestinationTemplate(subjects),
		semconv.MessagingMessageBodySize(len(m.Data)),
	}
}

// ReplyAttributes returns the attributes of a span that sends or receives a reply on
// an inbox.
func ReplyAttributes(operation string, kind attribute.KeyValue, body []byte) []attribute.KeyValue {
	return []attribute.KeyValue{
		semconv.MessagingSystemKey.String(system),
		semconv.MessagingOperationName(operation), kind,
		semconv.MessagingDestinationTemplate(subject.InboxPrefix), semconv.MessagingDestinationTemporary(true),
		semconv.MessagingMessageBodySize(len(body)),
	}
}

// JobAttributes returns the attributes of a span that say which job a message with
// header h is of. What the job does not have is left out.
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
		if job, err := parse(m.Subject); err == nil { // a subject of no job is stored all the same
			attrs = append(attrs, JobAttributes(job, m.Header)...)
		}
	}
	return attrs
}
