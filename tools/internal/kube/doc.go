// Package kube starts a real Kubernetes of one node for tests: etcd, the control
// plane, CoreDNS, containerd, a kubelet and kube-proxy, as child processes. No
// container engine is needed; containerd and runc are Debian's.
//
// tools/scripts/cluster-test creates a network, a process and a mount namespace for
// the cluster. All addresses are inside that network, which has no connection to
// other networks. Processes and mounts end with the namespaces. Without the
// namespaces, [Start] returns an error.
//
// Addresses:
//
//	10.78.0.1      the node; the API server is at port 6443, CoreDNS at 53
//	10.96.0.0/16   Services
//	10.245.0.0/24  pods, each with its own link to the node (CNI plugin ptp)
package kube
