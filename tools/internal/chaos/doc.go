// Package chaos keeps the books of the chaos suite: which images were sent,
// which jobs were accepted, what was heard of them, and what of that breaks a
// promise. It also has the TCP proxy that disturbs a connection, and the table
// of what held.
//
// The faults are in package e2e. Nothing here starts a process.
//
// An image goes through these states:
//
//	sent ──▶ rejected                the client was told that nothing was accepted
//	   ├───▶ unanswered              the connection broke, or the client was told "perhaps"
//	   └───▶ accepted ──▶ outcome    200 and 202; every later outcome has to equal the first
package chaos
