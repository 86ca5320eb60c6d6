// Package pool is the parent side of lanes: a [Pool] starts lane programs, puts
// typed requests to their processes, times them, and ends and replaces them.
//
// Native code aborts, hangs and grows, and nothing inside its process can stop
// it. So it runs in child processes that may die: a request that ends its lane
// costs that one request, and the error says what happened.
//
// A [Lane] has one process for each [Program]: the binary of the service
// itself, and whatever program a pipeline names for itself. A process works on
// one request at a time; callers may have several under way. What travels between
// parent and child is in package lane. Nothing here knows NATS or native code;
// metrics and traces go through [Metrics] and [Tracer].
//
// # States of a process
//
// A lane has one place for each program. Processes of the program follow each other in it:
//
//	   ┌────────────────── restart delay ──────────────────┐
//	   ▼                                                   │
//	starting ──── died, too slow, too large ───────────► ended
//	   │                                                  ▲ ▲
//	   │ ready                                            │ │
//	   ▼                                                  │ │
//	  idle ────── died, too large, MaxJobs requests ──────┘ │
//	   ▲ │                                                  │
//	   │ │ request                                          │
//	   │ ▼                                                  │
//	  busy ────── died, too slow, too large, wrong frame, ──┘
//	              deadline passed, context ended
//
// A reply leads from busy to idle. When the context of [Pool.Run] ends, the process is killed
// in each state, and no other follows.
//
// The restart delay is 0 after a process that has replied to a request, or that was replaced.
// After processes in a row that did not, it is 100 ms, 200 ms, and so on up to 10 s. After
// a process that was too large at its start, it is 1 minute, up to 1 hour.
//
// While a process is replaced, [Pool.Status] returns what the last one reported when it was
// ready. When the start of a process fails, its pipelines are not ready, and have the error
// as the reason.
package pool
