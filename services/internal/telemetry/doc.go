// Package telemetry makes a process observable: structured logs, the admin server
// with probes, metrics and profiles, and traces, metrics and logs over OTLP. It has
// no global state but OpenTelemetry's handler of errors: what it makes is handed on.
package telemetry
