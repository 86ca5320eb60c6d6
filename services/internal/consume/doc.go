// Package consume is the one message loop of the services. A handler gets a
// [Delivery] and returns the messages that follow from it, or an error. It
// never acknowledges. The loop publishes the messages, waits until the streams
// have stored them, and only then acknowledges the delivery. A crash in between
// gives a redelivery, whose messages the streams drop by their ids.
//
// What an error does to a delivery is in one table, [actionFor].
//
// While a delivery is being processed the server is told so at every
// [streams.Heartbeat]. A message of a process that died is delivered again
// after [streams.AckWait]; slow work is not delivered twice.
//
// The package has two ways to pull. [Loop.Run] processes up to a number of
// messages of one consumer at a time. Package worker has one of its own, one
// message for each free lane, and calls [Loop.Process]. [Batches] processes
// many messages with one call, for a database.
//
// Stopping: no more messages are pulled, those in hand are processed, and what
// the context of the handlers ends is handed back at once.
package consume
