package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// ServiceNamespace begins the names of the services in traces: other systems
// that send to the same place have an ingress of their own.
const ServiceNamespace = "sightmesh"

// NewTracerProvider returns a provider configured by the usual OTEL_*
// variables, which getenv looks up here and the SDK reads itself. Spans are
// exported when OTEL_EXPORTER_OTLP_ENDPOINT (or its _TRACES_ form) is set, or
// OTEL_TRACES_EXPORTER is "otlp"; otherwise they only give every job a trace
// id. The service is called sightmesh-ingress and so on, unless OTEL_SERVICE_NAME
// or OTEL_RESOURCE_ATTRIBUTES says otherwise. The caller ends the provider with
// Shutdown, which sends what is left.
func NewTracerProvider(ctx context.Context, service, instance, version string, getenv func(string) string) (*sdktrace.TracerProvider, error) {
	res, err := resource.New(ctx,
		resource.WithAttributes(
			semconv.ServiceNamespace(ServiceNamespace), semconv.ServiceName(ServiceNamespace+"-"+service),
			semconv.ServiceInstanceID(instance), semconv.ServiceVersion(version)),
		resource.WithTelemetrySDK(), resource.WithHost(), resource.WithProcessPID(),
		resource.WithFromEnv()) // last: the operator's words win
	if err != nil && !errors.Is(err, resource.ErrPartialResource) {
		return nil, fmt.Errorf("describe the process for traces: %w", err)
	}
	opts := []sdktrace.TracerProviderOption{sdktrace.WithResource(res)}
	exp, err := newExporter(ctx, getenv)
	if err != nil {
		return nil, err
	}
	if exp != nil {
		opts = append(opts, sdktrace.WithBatcher(exp))
	}
	return sdktrace.NewTracerProvider(opts...), nil
}

func newExporter(ctx context.Context, getenv func(string) string) (sdktrace.SpanExporter, error) {
	switch which := getenv("OTEL_TRACES_EXPORTER"); which {
	case "none":
		return nil, nil
	case "":
		if getenv("OTEL_EXPORTER_OTLP_ENDPOINT") == "" && getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") == "" {
			return nil, nil
		}
	case "otlp":
	default:
		return nil, fmt.Errorf("OTEL_TRACES_EXPORTER=%q: want otlp or none", which)
	}
	if getenv("OTEL_SDK_DISABLED") == "true" {
		return nil, nil
	}
	protocol := getenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
	if protocol == "" {
		protocol = getenv("OTEL_EXPORTER_OTLP_PROTOCOL")
	}
	var client otlptrace.Client
	switch protocol {
	case "", "http/protobuf":
		client = otlptracehttp.NewClient()
	case "grpc":
		client = otlptracegrpc.NewClient()
	default:
		return nil, fmt.Errorf("OTEL_EXPORTER_OTLP_PROTOCOL=%q: want http/protobuf or grpc", protocol)
	}
	exp, err := otlptrace.New(ctx, client)
	if err != nil {
		return nil, fmt.Errorf("start the trace exporter: %w", err)
	}
	return exp, nil
}

// LogErrors makes what OpenTelemetry cannot do, such as export spans to a
// collector that is away, a line of log at most once in errorPeriod for each
// reason. OpenTelemetry has one such handler for the process.
func LogErrors(log *slog.Logger) {
	h := &errorLog{log: log, now: time.Now, logged: map[string]time.Time{}}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(h.handle))
}

const errorPeriod = time.Minute

type errorLog struct {
	log *slog.Logger
	now func() time.Time

	mu     sync.Mutex
	logged map[string]time.Time // when each reason was
}

func (h *errorLog) handle(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.now()
	maps.DeleteFunc(h.logged, func(_ string, at time.Time) bool { return now.Sub(at) >= errorPeriod })
	reason := err.Error()
	if _, ok := h.logged[reason]; ok {
		return
	}
	h.logged[reason] = now
	h.log.Warn("OpenTelemetry reported an error", "error", err)
}

// Propagator speaks W3C trace context and baggage.
func Propagator() propagation.TextMapPropagator {
	return propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{})
}

// Inject writes the span context of ctx into h.
func Inject(ctx context.Context, h nats.Header) { Propagator().Inject(ctx, carrier(h)) }

// Extract returns ctx with the span context found in h.
func Extract(ctx context.Context, h nats.Header) context.Context {
	return Propagator().Extract(ctx, carrier(h))
}

type jobSpanKey struct{}

// WithJobSpan returns ctx for work on a message of a job. span is the parent of
// all spans of that job which messages lead to: the request that brought it.
// [InjectCreated] hands it on, so that those spans lie within the time of the
// request that waits, and not behind the end of a span that published them.
func WithJobSpan(ctx context.Context, span trace.SpanContext) context.Context {
	return context.WithValue(ctx, jobSpanKey{}, span)
}

// JobContext returns ctx with the span of [WithJobSpan], if it has one, as the parent
// of the spans that are begun with it.
func JobContext(ctx context.Context) context.Context {
	if span, ok := ctx.Value(jobSpanKey{}).(trace.SpanContext); ok {
		return trace.ContextWithSpanContext(ctx, span)
	}
	return ctx
}

// stateKey is the member of the W3C trace state that has the ID of the span that
// created a message.
const stateKey = "sightmesh"

// InjectCreated writes into h the span context of the job in ctx, or else the span
// of ctx, and which span has created the message.
func InjectCreated(ctx context.Context, created trace.SpanContext, h nats.Header) {
	parent, ok := ctx.Value(jobSpanKey{}).(trace.SpanContext)
	if !ok {
		parent = trace.SpanContextFromContext(ctx)
	}
	if parent.TraceID() != created.TraceID() { // the message begins a trace
		parent = created
	}
	if state, err := parent.TraceState().Insert(stateKey, created.SpanID().String()); err == nil {
		parent = parent.WithTraceState(state)
	}
	Inject(trace.ContextWithSpanContext(ctx, parent), h)
}

// CreationLinks returns the link to the span that created the message whose span
// context, as [InjectCreated] wrote it, is that of ctx. There is none in a message
// of an older version, or of a client.
func CreationLinks(ctx context.Context) []trace.Link {
	parent := trace.SpanContextFromContext(ctx)
	id, err := trace.SpanIDFromHex(parent.TraceState().Get(stateKey))
	if err != nil || id == parent.SpanID() {
		return nil
	}
	return []trace.Link{{SpanContext: parent.WithSpanID(id)}}
}

// carrier keeps header names as they are: NATS names are case-sensitive, and
// the W3C names are lower-case.
type carrier nats.Header

func (c carrier) Get(k string) string { return nats.Header(c).Get(k) }
func (c carrier) Set(k, v string)     { nats.Header(c).Set(k, v) }
func (c carrier) Keys() []string {
	keys := make([]string, 0, len(c))
	for k := range c {
		keys = append(keys, k)
	}
	return keys
}
