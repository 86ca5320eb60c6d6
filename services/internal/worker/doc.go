// Package worker processes the messages of a stage. It pulls one message for each
// free lane, and processes it with the message loop of package consume.
//
// It adds what both stages need: pipelines, deadlines, cancelled jobs, the count of
// attempts, quarantine, and the lanes, whose processes it owns. A lane is released as
// soon as the handler returns, so that it can process another message while the outcome
// is being stored.
//
// When a worker stops, it pulls no more messages and processes those in progress until
// the hard stop. It naks the rest, so that they are redelivered immediately. Then it
// stops the lanes.
//
// # States of a message
//
//	         pulled when a lane is free
//	stream ─────────────────────────────► received ── invalid, cancelled, expired, ────┐
//	  ▲                                      │        attempts used up                 │
//	  │                                      ▼                                         │
//	  ├── nak: the worker stops ◄──────── in a lane ── problem ────────────────────────┤
//	  ├── nak with delay: other error ◄──────┤                                         ▼
//	  │                                      │ lane is released                     failing
//	  │                                      ▼                                         │ outcome and, for some
//	  └── nak with delay: not stored ◄── publishing                                    │ problems, the message
//	                                         │ stored                                  │ in QUARANTINE stored
//	                                         ▼                                         ▼
//	                                    acknowledged                               terminated
//
// A message that does not belong to a job is terminated without an outcome.
//
// A publish is retried until the deadline of the job, for at least 10 s. When the outcome of
// a failing job cannot be stored, the message is redelivered with a delay. A worker that
// was paused, and whose message was redelivered to another worker meanwhile, drops its result.
package worker
