// Package consume is the message loop of the services. A handler receives a
// [Delivery] and returns the messages that follow from it, or an error. A handler
// never acknowledges. The loop publishes the messages, waits until the streams have
// stored them, and then acknowledges the delivery. After a crash in between, the
// message is redelivered, and the streams drop the duplicate messages by their IDs.
//
// The function actionFor decides what an error does to a delivery.
//
// While a delivery is being processed, the loop sends an in-progress acknowledgement
// every [streams.Heartbeat], so that slow work is not redelivered. The message of a
// process that died is redelivered after [streams.AckWait].
//
// There are three ways to pull. [Loop.Run] processes a limited number of messages of
// one consumer concurrently. Package worker pulls one message for each free lane and
// calls [Loop.Process]. [Batches] passes many messages to one call, for a database.
//
// When a loop stops, it pulls no more messages and finishes those in flight. When the
// context of the handlers ends, the loop naks the rest, so that they are redelivered
// immediately.
package consume
