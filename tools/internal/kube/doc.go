// Package kube starts a real Kubernetes of one node for tests: etcd, the control
// plane, CoreDNS, containerd, a kubelet and kube-proxy, as child processes. No
// container engine is needed; containerd and runc are Debian's.
//
// tools/scripts/cluster-test makes a network, a process and a mount namespace for
// it. All addresses are inside that network, which has no way out, and what a
// process leaves behind ends with the namespaces. [Start] returns an error elsewhere.
//
// Addresses:
//
//	10.78.0.1      the node; the API server is at port 6443, CoreDNS at 53
//	10.96.0.0/16   Services
//	10.245.0.0/24  pods, each with a link of its own to the node (CNI plugin ptp)
package kube
