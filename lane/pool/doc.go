// Package pool is the parent side of lanes. A [Pool] starts lane programs, sends requests
// to their processes, limits their time and memory, and kills and replaces them.
//
// Native code can abort, hang or use all memory, and nothing in its process can prevent
// this. It therefore runs in child processes. A request that ends its process fails, with
// an error that says why, and other requests are not affected.
//
// A [Lane] has one process for each [Program]: the binary of the service itself, and the
// programs that pipelines name. A process works on one request at a time; callers may send
// several at once. Package lane has the messages. This package does not use NATS or native
// code; metrics and traces go through [Metrics] and [Tracer].
//
// # States of a process
//
// A lane has one place for each program. Processes of the program follow each other in it:
//
//	   ┌────────────────── restart delay ──────────────────┐
//	   ▼                                                   │
//	starting ──── died, timeout, memory, protocol ─────► ended
//	   │                                                  ▲ ▲
//	   │ ready                                            │ │
//	   ▼                                                  │ │
//	  idle ────── died, memory, MaxJobs requests ─────────┘ │
//	   ▲ │                                                  │
//	   │ │ request                                          │
//	   │ ▼                                                  │
//	  busy ────── died, timeout, memory, protocol, ─────────┘
//	              deadline passed, context ended
//
// The log and the metric sightmesh_lane_restarts_total have the same reasons: died, timeout,
// memory and protocol. For MaxJobs requests the reason is recycled, for a deadline that has
// passed it is deadline, and for a context that has ended it is stopped. A reply leads from
// busy to idle. When the context of [Pool.Run] ends, the process is killed in each state, and
// no other follows.
//
// The restart delay is 0 after a process that has replied to a request, or that was replaced.
// After processes in a row that did not, it is 100 ms, 200 ms, and so on up to 10 s. After
// a process that was too large at its start, it is 1 minute, up to 1 hour.
//
// While a process is replaced, [Pool.Status] returns what the last one reported when it was
// ready. When the start of a process fails, its pipelines are not ready, and have the error
// as the reason.
package pool
