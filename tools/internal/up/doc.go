// Package up runs a whole mesh on one machine: an embedded NATS server with
// JetStream in a folder, set up as in a cluster, and the four service binaries
// as child processes.
//
// A start changes nothing of another mesh: it locks the folder, then the ports,
// then checks the disk, and only then opens the streams. While the mesh runs, a
// watch checks the disk and the broker: it rejects images before the disk is
// full, and restarts the broker when a write error has closed a stream.
//
// The order of a stop is that of the messages: ingress stops accepting, then
// detect, classify and results finish their messages, then NATS closes. A child
// that dies is restarted. When up itself is killed, its children end too.
package up
