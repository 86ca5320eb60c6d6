// Package worker takes messages of a stage from JetStream, one for each free
// lane, and sees each through to its outcome.
//
// A handler gets a delivery and a lane and returns what is to be published or
// an error; it never sees an acknowledgement. The worker publishes, waits for
// the streams to acknowledge, and only then acknowledges what it took. A crash
// in between gives a duplicate, which the streams drop by its message id.
//
// What an error does is in one table, [actionFor]. While a message is in hand
// the server is told every second, so that a dead worker's message moves on
// after AckWait and slow work is not done twice.
//
// Stopping: no more messages are taken, those in hand are finished until the
// hard stop, the rest is handed back at once; then the lanes end.
package worker
