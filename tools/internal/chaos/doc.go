// Package chaos has the ledger of the chaos suite: the images that were sent, the
// jobs that were accepted, the outcomes that clients received, and the violated
// guarantees. It also has the TCP proxy that disturbs a connection, and writes the
// table of the faults.
//
// Package e2e causes the faults. This package starts no process.
//
// An image has these states:
//
//	sent ──▶ rejected                the response says that nothing was accepted
//	   ├───▶ unanswered              the connection broke, or the image may have been accepted
//	   └───▶ accepted ──▶ outcome    200 and 202; every later outcome has to equal the first
package chaos
