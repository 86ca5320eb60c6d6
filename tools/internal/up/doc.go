// Package up runs a whole mesh on one machine: an embedded NATS server with
// JetStream in a folder, set up as a cluster's would be, and round it the same
// four binaries that run in a cluster, as child processes.
//
// Starting touches nothing of another mesh: it locks the folder, then the ports,
// then looks at the disk, and only then opens the streams. While the mesh runs,
// a watch looks after the disk and the broker: it refuses images before the
// disk is full, and restarts the broker when a stream was closed by the error of
// a write.
//
// Stopping goes against the stream: ingress takes no more, then detect,
// classify and results finish what they hold, then NATS closes. A child that
// dies is started again; when up itself is killed its children end with it.
package up
