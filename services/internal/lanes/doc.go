// Package lanes is the parent side of lanes: it starts lane processes, hands
// them one request at a time, times them, and ends and replaces them.
//
// Native code aborts, hangs and grows, and nothing inside its process can stop
// it. So it runs in child processes that may die: a request that ends its lane
// costs that one request, and the error says what happened.
//
// A [Lane] is room for one request at a time. It has one process for each
// [Program]: the binary of the service itself, and whatever program a pipeline
// names for itself. What travels between parent and child is in package
// contracts/lane. Nothing here knows NATS, pictures or native code.
package lanes
