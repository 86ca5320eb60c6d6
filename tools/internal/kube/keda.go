package kube

import (
	"context"
	"fmt"
)

// kedaObjects register the metrics adapter in the API server. The adapter runs outside
// the cluster.
const kedaObjects = `
apiVersion: v1
kind: Namespace
metadata: {name: keda}
---
apiVersion: v1
kind: Service
metadata: {name: keda-metrics-apiserver, namespace: keda}
spec: {ports: [{name: https, port: 443, targetPort: 6643}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: keda-metrics-apiserver, namespace: keda, labels: {kubernetes.io/service-name: keda-metrics-apiserver}}
addressType: IPv4
endpoints: [{addresses: [` + nodeAddress + `], conditions: {ready: true}}]
ports: [{name: https, port: 6643, protocol: TCP}]
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1beta1.external.metrics.k8s.io}
spec:
  group: external.metrics.k8s.io
  version: v1beta1
  groupPriorityMinimum: 100
  versionPriority: 100
  insecureSkipTLSVerify: true
  service: {name: keda-metrics-apiserver, namespace: keda, port: 443}
`

// StartKEDA starts the operator of KEDA and its metrics adapter as child processes, and
// waits until the API server has the metrics.
func (c *Cluster) StartKEDA(ctx context.Context) error {
	if _, err := c.Kubectl(ctx, "apply", "--server-side", "-f", c.program("keda-crds")); err != nil {
		return fmt.Errorf("start KEDA: %w", err)
	}
	if err := await(ctx, nil, func(ctx context.Context) error {
		_, err := c.Kubectl(ctx, "get", "scaledobjects,triggerauthentications,scaledjobs", "--all-namespaces")
		return err
	}); err != nil {
		return fmt.Errorf("start KEDA: %w", err)
	}
	if err := c.Apply(ctx, kedaObjects); err != nil {
		return fmt.Errorf("start KEDA: %w", err)
	}
	kubeconfig, pki := c.file("kubeconfig"), c.file("pki")
	env := []string{
		"POD_NAMESPACE=keda", "POD_NAME=keda-operator", "WATCH_NAMESPACE=", "KEDA_CLUSTER_OBJECT_NAMESPACE=keda",
	}
	if err := c.Run("keda-operator", env, c.program("keda-operator"), "--kubeconfig="+kubeconfig, "--cert-dir="+pki,
		"--metrics-bind-address=127.0.0.1:6644", "--health-probe-bind-address=127.0.0.1:6645",
		"--metrics-service-bind-address=127.0.0.1:6646"); err != nil {
		return fmt.Errorf("start KEDA: %w", err)
	}
	adapter, err := c.run("keda-adapter", env, c.program("keda-adapter"), "--kubeconfig="+kubeconfig,
		"--lister-kubeconfig="+kubeconfig, "--authentication-kubeconfig="+kubeconfig,
		"--authorization-kubeconfig="+kubeconfig,
		"--bind-address="+nodeAddress, "--secure-port=6643", "--cert-dir="+pki, "--tls-cert-file="+pki+"/tls.crt",
		"--tls-private-key-file="+pki+"/tls.key", "--metrics-service-address=127.0.0.1:6646", "--port=6647")
	if err != nil {
		return fmt.Errorf("start KEDA: %w", err)
	}
	return adapter.await(ctx, func(ctx context.Context) error {
		_, err := c.Kubectl(ctx, "wait", "--for=condition=Available", "--timeout=5s",
			"apiservice/v1beta1.external.metrics.k8s.io")
		return err
	})
}
