// Package cluster tests the chart on a real Kubernetes, as an operator uses it: with
// Helm, kubectl, and clients that send images to the Service and to the Ingress.
//
// make cluster-test runs it. Elsewhere its tests are skipped.
package cluster
