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
package worker
