// Package telemetry makes a process observable: structured logs, the admin server
// with probes, metrics and profiles, and traces, metrics and logs over OTLP. It has
// no global state except the error handler of OpenTelemetry.
package telemetry
