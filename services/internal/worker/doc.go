// Package worker processes the messages of a stage: one for each free lane, by
// the message loop of package consume.
//
// It adds to that loop what both stages have: the pipelines, deadlines, jobs
// that were cancelled, the count of attempts, quarantine, and the lanes, whose
// processes it owns. A lane is released as soon as the handler returns, so that
// another message can be in it while the outcome is being stored.
//
// Stopping: no more messages are pulled, those in hand are processed until the
// hard stop, the rest is handed back at once; then the lanes end.
//
// # States of a message
//
//	         pulled when a lane is free
//	stream ─────────────────────────────► received ── job cancelled, deadline passed, ─┐
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
// A publish is repeated until the deadline of the job, for at least 10 s. When the outcome of
// a failing job cannot be stored, the message is delivered again with a delay. A worker that
// was paused, and whose message was delivered to another worker meanwhile, drops the work.
package worker
