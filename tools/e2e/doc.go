// Package e2e holds the end-to-end tests: they start the real binaries as a
// user does and see the mesh as an outsider, through HTTP, NATS and OTLP.
//
// Most run on sightmesh up with its one NATS server. TestThreeServers runs on
// three servers, with three replicas of every stream; `make replicas` runs the
// whole suite there.
//
// TestChaos_FewFaults makes faults under load; `make chaos` makes all of them.
//
// `make interop-clients` runs the programs of docs/clients, and the mesh behind
// nginx and from pages in a browser.
//
// They need `make build` first. Those on real photos look for them in
// ../shared/realdata beside the repository and are skipped without it.
package e2e
