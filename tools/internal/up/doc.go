// Package up runs a whole mesh on one machine: an embedded NATS server with JetStream in a folder, set up as in a
// cluster, and the four service binaries as child processes.
//
// A start does not change another mesh: it locks the folder, reserves the ports, checks the disk, and then opens the
// streams. While the mesh runs, a watch checks the disk and the broker: it rejects images before the disk is full, and
// restarts the broker when a write error has closed a stream.
//
// The services stop in the order of the messages: ingress stops accepting, then detect, classify and results finish
// their messages, then NATS closes. A child that dies is restarted. When up itself is killed, the kernel kills its
// children.
package up
