// Package bench measures a running mesh from outside, over HTTP or NATS. It also
// measures the floor: a bare JetStream pipeline of three steps. The mesh cannot
// be faster than the floor.
//
// A closed loop keeps a fixed number of requests in flight. An open loop starts
// requests at a fixed rate, whatever the mesh does. Its latencies begin at the
// planned start of a request, so that a stall counts for every request that it
// delayed. Each result is compared with the first result for the same image.
package bench
