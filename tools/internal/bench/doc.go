// Package bench measures a running mesh from outside, over HTTP or NATS, and
// beside it the floor: the bare three-hop JetStream pipeline that the mesh
// cannot be faster than.
//
// A closed loop keeps a number of requests under way. An open loop begins
// requests at a fixed rate whatever the mesh does, and counts the time of each
// from when it should have begun, so that a stall is seen by every request
// that it delayed. Every answer is held against the first for the same
// image.
package bench
