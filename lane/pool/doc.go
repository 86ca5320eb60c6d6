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
package pool
