// Package chaos has the ledger of the chaos suite: which images were sent, which
// jobs were accepted, which outcomes clients received, and which promises that
// violates. It also has the TCP proxy that disturbs a connection, and writes the
// table of the faults.
//
// The faults are in package e2e. Nothing here starts a process.
//
// An image has these states:
//
//	sent ──▶ rejected                the response says that nothing was accepted
//	   ├───▶ unanswered              the connection broke, or the response says "perhaps"
//	   └───▶ accepted ──▶ outcome    200 and 202; every later outcome has to equal the first
package chaos
