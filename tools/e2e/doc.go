// Package e2e contains the end-to-end tests. They start the real binaries, as a
// user does, and use the mesh from outside: through HTTP, NATS and OTLP. Run
// `make build` first.
//
// Most tests run on `sightmesh up` with its one NATS server. TestThreeServers
// runs a part of the suite on three servers, with three replicas of every
// stream; `make replicas` runs the whole suite there.
//
// TestChaos_FewFaults injects a few faults under load; `make chaos` injects all
// of them.
//
// `make interop-clients` runs the programs of docs/clients, the mesh behind
// nginx, and pages in a browser that use the mesh.
//
// Tests on real photos read them from ../shared/realdata beside the repository
// and are skipped without it.
package e2e
