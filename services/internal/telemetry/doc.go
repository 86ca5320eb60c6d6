// Package telemetry makes a process observable: structured logs, traces over
// OTLP, and the admin server with probes, metrics and profiles. It has no
// global state: what it makes is handed on.
package telemetry
