package telemetry

import (
	"context"
	"errors"
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// Attributes of spans for which OpenTelemetry has no names.
const (
	AttrJob      = attribute.Key("sightmesh.job")
	AttrReport   = attribute.Key("sightmesh.report")
	AttrPipeline = attribute.Key("sightmesh.pipeline")
	AttrPriority = attribute.Key("sightmesh.priority")
	AttrPart     = attribute.Key("sightmesh.part")
	// AttrDeliveries is the number of deliveries of a message, including that of the
	// span.
	AttrDeliveries = attribute.Key("sightmesh.deliveries")
	AttrBytes      = attribute.Key("sightmesh.image.bytes")
	AttrWidth      = attribute.Key("sightmesh.image.width")
	AttrHeight     = attribute.Key("sightmesh.image.height")
	AttrPixels     = attribute.Key("sightmesh.image.pixels")
	AttrRegions    = attribute.Key("sightmesh.regions")
	// AttrOutcome is the outcome of a job, or its status when the request ended first.
	AttrOutcome = attribute.Key("sightmesh.outcome")
	// AttrProblem is the code of the problem in a response, or with which a job
	// failed.
	AttrProblem = attribute.Key("sightmesh.problem")
	// AttrImages and AttrFailed count the images of a report.
	AttrImages = attribute.Key("sightmesh.report.images")
	AttrFailed = attribute.Key("sightmesh.report.failed")
)

// ImageAttributes returns the span attributes of the size of an image.
func ImageAttributes(bytes, width, height int) []attribute.KeyValue {
	return []attribute.KeyValue{
		AttrBytes.Int(bytes), AttrWidth.Int(width), AttrHeight.Int(height), AttrPixels.Int(width * height),
	}
}

// StartChild starts a child of the span of ctx, with the provider of that span.
func StartChild(ctx context.Context, name string, opts ...trace.SpanStartOption) (context.Context, trace.Span) {
	provider := trace.SpanFromContext(ctx).TracerProvider()
	return provider.Tracer("github.com/sightmesh/sightmesh/services").Start(ctx, name, opts...)
}

// Fail records in a span that its operation failed with err: as status, attribute
// error.type, and event.
func Fail(span trace.Span, err error) {
	span.RecordError(err)
	span.SetStatus(codes.Error, err.Error())
	span.SetAttributes(ErrorType(err))
}

// ErrorType returns the attribute error.type of an error: the code of its problem, the
// code cancelled or deadline-exceeded for the error of a context, or its Go type.
func ErrorType(err error) attribute.KeyValue {
	var p *v1.Problem
	switch {
	case errors.As(err, &p):
		return semconv.ErrorTypeKey.String(string(p.Code))
	case errors.Is(err, context.Canceled):
		return semconv.ErrorTypeKey.String(string(v1.Cancelled))
	case errors.Is(err, context.DeadlineExceeded):
		return semconv.ErrorTypeKey.String(string(v1.DeadlineExceeded))
	}
	return semconv.ErrorType(err)
}

// Reject records the problem in the response to a request. As in HTTP, a server span
// fails only for errors of the server (status 500 and above).
func Reject(span trace.Span, p *v1.Problem) {
	span.SetAttributes(AttrProblem.String(string(p.Code)))
	if p.Status >= http.StatusInternalServerError {
		Fail(span, p)
	}
}
