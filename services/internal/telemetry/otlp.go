package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/contrib/bridges/otelslog"
	prometheusbridge "go.opentelemetry.io/contrib/bridges/prometheus"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploggrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploghttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// ServiceNamespace is the prefix of the service names in traces, because other systems
// that export to the same backend may also have a service named ingress.
const ServiceNamespace = "sightmesh"

// Providers exports the spans, metrics and log records of a process over OTLP.
type Providers struct {
	tracers *sdktrace.TracerProvider
	meters  *sdkmetric.MeterProvider // nil when no metrics are exported
	logs    *sdklog.LoggerProvider   // nil when no log records are exported
}

// NewProviders returns the providers that the standard OTEL_* variables select.
// NewProviders reads with getenv which signals are exported, and by which protocol. The
// exporters read the other variables, such as addresses and headers, themselves.
//
// OTEL_TRACES_EXPORTER, OTEL_METRICS_EXPORTER and OTEL_LOGS_EXPORTER are otlp or none,
// or a list. By default a signal is exported when it has an address of its own, such as
// OTEL_EXPORTER_OTLP_LOGS_ENDPOINT, and traces also with OTEL_EXPORTER_OTLP_ENDPOINT:
// that may be a Jaeger, which accepts only traces. Without these variables nothing is
// exported, and spans only give every job a trace ID.
//
// The exported metrics are those of the gatherer. The service name is sightmesh-ingress
// and so on, unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES sets another. The
// caller stops the providers with Shutdown.
func NewProviders(
	ctx context.Context, service, instance, version string, metrics prometheus.Gatherer, getenv func(string) string,
) (_ *Providers, err error) {
	res, err := resource.New(ctx,
		resource.WithAttributes(
			semconv.ServiceNamespace(ServiceNamespace), semconv.ServiceName(ServiceNamespace+"-"+service),
			semconv.ServiceInstanceID(instance), semconv.ServiceVersion(version)),
		resource.WithTelemetrySDK(), resource.WithHost(), resource.WithProcessPID(),
		resource.WithFromEnv()) // last, so that the environment has precedence
	if err != nil && !errors.Is(err, resource.ErrPartialResource) {
		return nil, fmt.Errorf("describe the process for OpenTelemetry: %w", err)
	}
	p := &Providers{}
	defer func() {
		if err != nil {
			p.Shutdown(ctx)
		}
	}()
	if p.tracers, err = newTracers(ctx, res, getenv); err != nil {
		return nil, err
	}
	if p.meters, err = newMeters(ctx, res, metrics, getenv); err != nil {
		return nil, err
	}
	if p.logs, err = newLogs(ctx, res, getenv); err != nil {
		return nil, err
	}
	return p, nil
}

// Tracers returns the tracer provider.
func (p *Providers) Tracers() trace.TracerProvider { return p.tracers }

// Logger returns a logger that writes each record with log and, when log records are
// exported, also exports it.
func (p *Providers) Logger(log *slog.Logger) *slog.Logger {
	if p.logs == nil {
		return log
	}
	return slog.New(exportHandler{
		Handler:  log.Handler(),
		exporter: otelslog.NewHandler("github.com/sightmesh/sightmesh/services", otelslog.WithLoggerProvider(p.logs)),
	})
}

// Shutdown exports the remaining data of all signals concurrently, until ctx ends. An
// error is reported to the error handler of OpenTelemetry and is not an error of the
// service.
func (p *Providers) Shutdown(ctx context.Context) {
	var sending sync.WaitGroup
	stop := func(signal string, shutdown func(context.Context) error) {
		sending.Go(func() {
			if err := shutdown(ctx); err != nil {
				otel.Handle(fmt.Errorf("send the last %s: %w", signal, err))
			}
		})
	}
	if p.tracers != nil {
		stop("spans", p.tracers.Shutdown)
	}
	if p.meters != nil {
		stop("metrics", p.meters.Shutdown)
	}
	if p.logs != nil {
		stop("log records", p.logs.Shutdown)
	}
	sending.Wait()
}

func newTracers(
	ctx context.Context, res *resource.Resource, getenv func(string) string,
) (*sdktrace.TracerProvider, error) {
	opts := []sdktrace.TracerProviderOption{sdktrace.WithResource(res)}
	protocol, err := exportProtocol("TRACES", getenv)
	if err != nil {
		return nil, err
	}
	var exporter sdktrace.SpanExporter
	switch protocol {
	case protocolHTTP:
		exporter, err = otlptracehttp.New(ctx)
	case protocolGRPC:
		exporter, err = otlptracegrpc.New(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("make the exporter of spans: %w", err)
	}
	if exporter != nil {
		opts = append(opts, sdktrace.WithBatcher(exporter))
	}
	return sdktrace.NewTracerProvider(opts...), nil
}

// newMeters returns a meter provider that has no meters of its own. It reads the
// metrics from the registry of Prometheus.
func newMeters(
	ctx context.Context, res *resource.Resource, metrics prometheus.Gatherer, getenv func(string) string,
) (*sdkmetric.MeterProvider, error) {
	protocol, err := exportProtocol("METRICS", getenv)
	if err != nil {
		return nil, err
	}
	var exporter sdkmetric.Exporter
	switch protocol {
	case protocolHTTP:
		exporter, err = otlpmetrichttp.New(ctx)
	case protocolGRPC:
		exporter, err = otlpmetricgrpc.New(ctx)
	default:
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("make the exporter of metrics: %w", err)
	}
	producer := prometheusbridge.NewMetricProducer(prometheusbridge.WithGatherer(metrics))
	return sdkmetric.NewMeterProvider(sdkmetric.WithResource(res),
		sdkmetric.WithReader(sdkmetric.NewPeriodicReader(exporter, sdkmetric.WithProducer(producer)))), nil
}

func newLogs(ctx context.Context, res *resource.Resource, getenv func(string) string) (*sdklog.LoggerProvider, error) {
	protocol, err := exportProtocol("LOGS", getenv)
	if err != nil {
		return nil, err
	}
	var exporter sdklog.Exporter
	switch protocol {
	case protocolHTTP:
		exporter, err = otlploghttp.New(ctx)
	case protocolGRPC:
		exporter, err = otlploggrpc.New(ctx)
	default:
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("make the exporter of log records: %w", err)
	}
	return sdklog.NewLoggerProvider(sdklog.WithResource(res),
		sdklog.WithProcessor(sdklog.NewBatchProcessor(exporter))), nil
}

// Protocols of OTLP.
const (
	protocolHTTP = "http/protobuf"
	protocolGRPC = "grpc"
)

// exportProtocol returns the protocol by which a signal (TRACES, METRICS or LOGS) is
// exported, or "" when it is not exported.
func exportProtocol(signal string, getenv func(string) string) (string, error) {
	exports := getenv("OTEL_EXPORTER_OTLP_"+signal+"_ENDPOINT") != "" ||
		signal == "TRACES" && getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != ""
	if names := getenv("OTEL_" + signal + "_EXPORTER"); names != "" {
		known := []string{"otlp", "none"}
		if signal == "METRICS" {
			known = append(known, "prometheus") // /metrics, which is always served
		}
		exports = false
		for name := range strings.SplitSeq(names, ",") {
			name = strings.TrimSpace(name)
			if !slices.Contains(known, name) {
				return "", fmt.Errorf("OTEL_%s_EXPORTER=%q: want %s", signal, names, strings.Join(known, " or "))
			}
			exports = exports || name == "otlp"
		}
	}
	if !exports || strings.EqualFold(getenv("OTEL_SDK_DISABLED"), "true") {
		return "", nil
	}
	for _, variable := range []string{"OTEL_EXPORTER_OTLP_" + signal + "_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"} {
		switch protocol := getenv(variable); protocol {
		case "":
		case protocolHTTP, protocolGRPC:
			return protocol, nil
		default:
			return "", fmt.Errorf("%s=%q: want %s or %s", variable, protocol, protocolHTTP, protocolGRPC)
		}
	}
	return protocolHTTP, nil
}

// LogErrors logs the errors of OpenTelemetry, such as an export to a collector that is
// unavailable. It logs each error text at most once a minute. OpenTelemetry has one
// error handler for the process. log must not export its records, because the export
// may be what failed.
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
