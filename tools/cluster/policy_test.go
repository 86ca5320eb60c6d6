//go:build cluster

package cluster

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// policies translates the NetworkPolicies of a cluster to rules of nftables, because the
// network of the cluster does not enforce them. The rules are for the pods that run now.
// They support only what the chart uses: labels, and ports by number.
type policies struct {
	namespaces map[string]labels
	pods       []pod
	policies   []policy
}

type labels map[string]string

type pod struct {
	Metadata struct {
		Name, Namespace string
		Labels          labels
	}
	Status struct{ PodIP string }
}

type policy struct {
	Metadata struct{ Namespace string }
	Spec     struct {
		PodSelector selector
		PolicyTypes []string
		Ingress     []rule
		Egress      []rule
	}
}

// isolates reports whether the policy applies to the traffic of a pod in a direction.
func (p policy) isolates(pod pod, direction string) bool {
	return p.Metadata.Namespace == pod.Metadata.Namespace && p.Spec.PodSelector.matches(pod.Metadata.Labels) &&
		slices.Contains(p.Spec.PolicyTypes, direction)
}

type rule struct {
	Ports []struct {
		Port     int
		Protocol string
	}
	From, To []peer
}

type peer struct {
	PodSelector, NamespaceSelector *selector
	IPBlock                        map[string]any
}

type selector struct {
	MatchLabels      labels
	MatchExpressions []any
}

func (s selector) matches(l labels) bool {
	for key, value := range s.MatchLabels {
		if l[key] != value {
			return false
		}
	}
	return true
}

// readPolicies reads the policies, the pods and the namespaces.
func (s *suite) readPolicies(t *testing.T) policies {
	t.Helper()
	p := policies{namespaces: map[string]labels{}}
	for kind, to := range map[string]any{"pods": &p.pods, "networkpolicies": &p.policies} {
		var list struct{ Items json.RawMessage }
		text := s.kubectl(t, "get", kind, "--all-namespaces", "--output=json")
		if err := json.Unmarshal([]byte(text), &list); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(list.Items, to); err != nil {
			t.Fatalf("read %s: %v", kind, err)
		}
	}
	var list struct {
		Items []struct {
			Metadata struct {
				Name   string
				Labels labels
			}
		}
	}
	if err := json.Unmarshal([]byte(s.kubectl(t, "get", "namespaces", "--output=json")), &list); err != nil {
		t.Fatal(err)
	}
	for _, n := range list.Items {
		p.namespaces[n.Metadata.Name] = n.Metadata.Labels
	}
	return p
}

// rules returns a file for nft. The rules apply to traffic of a pod after the addresses
// of Services are translated. They do not apply to traffic from the node to its pods, as
// Kubernetes specifies.
func (p policies) rules() string {
	var chains strings.Builder
	out, in := map[string]string{}, map[string]string{}
	for n, pod := range p.pods {
		for _, direction := range []struct {
			kind, mine, theirs string
			jumps              map[string]string
			rules              func(policy) []rule
			peers              func(rule) []peer
		}{
			{
				"Egress", "saddr", "daddr", out,
				func(p policy) []rule { return p.Spec.Egress }, func(r rule) []peer { return r.To },
			},
			{
				"Ingress", "daddr", "saddr", in,
				func(p policy) []rule { return p.Spec.Ingress }, func(r rule) []peer { return r.From },
			},
		} {
			var lines []string
			isolated := false
			for _, policy := range p.policies {
				if !policy.isolates(pod, direction.kind) {
					continue
				}
				isolated = true
				for _, r := range direction.rules(policy) {
					lines = append(lines, p.lines(policy.Metadata.Namespace, r, direction.peers(r), direction.theirs)...)
				}
			}
			if isolated && pod.Status.PodIP != "" {
				chain := fmt.Sprintf("%s%d", strings.ToLower(direction.kind), n)
				direction.jumps[pod.Status.PodIP] = "jump " + chain
				fmt.Fprintf(&chains, "  chain %s {\n    %s\n    drop\n  }\n", chain, strings.Join(lines, "\n    "))
			}
		}
	}
	return "table ip policies {\n" + chains.String() + `  chain prerouting {
    type filter hook prerouting priority -90
    ct state established,related accept
    ip saddr vmap ` + elements(out) + `
    ip daddr vmap ` + elements(in) + `
  }
}
`
}

func elements(jumps map[string]string) string {
	var all []string
	for _, address := range slices.Sorted(maps.Keys(jumps)) {
		all = append(all, address+" : "+jumps[address])
	}
	return "{ " + strings.Join(all, ", ") + " }"
}

// lines returns the lines for the traffic that a rule allows.
func (p policies) lines(namespace string, r rule, peers []peer, theirs string) (lines []string) {
	from := ""
	if len(peers) > 0 {
		var addresses []string
		for _, pod := range p.pods {
			isSelected := func(peer peer) bool { return p.selects(pod, peer, namespace) }
			if pod.Status.PodIP != "" && slices.ContainsFunc(peers, isSelected) {
				addresses = append(addresses, pod.Status.PodIP)
			}
		}
		if len(addresses) == 0 {
			return nil
		}
		slices.Sort(addresses) // an ended pod may have the same address as another pod
		from = "ip " + theirs + " { " + strings.Join(slices.Compact(addresses), ", ") + " } "
	}
	for _, port := range r.Ports {
		protocol := "tcp"
		if port.Protocol != "" {
			protocol = strings.ToLower(port.Protocol)
		}
		lines = append(lines, fmt.Sprintf("%s%s dport %d return", from, protocol, port.Port))
	}
	if len(r.Ports) == 0 {
		lines = append(lines, from+"return")
	}
	return lines
}

// selects reports whether a peer of a policy in a namespace selects a pod.
func (p policies) selects(pod pod, peer peer, namespace string) bool {
	switch {
	case peer.NamespaceSelector == nil && pod.Metadata.Namespace != namespace:
		return false
	case peer.NamespaceSelector != nil && !peer.NamespaceSelector.matches(p.namespaces[pod.Metadata.Namespace]):
		return false
	}
	return peer.PodSelector == nil || peer.PodSelector.matches(pod.Metadata.Labels)
}

// check fails the test when a policy has fields that rules does not support.
func (p policies) check(t *testing.T) {
	t.Helper()
	if len(p.policies) == 0 {
		t.Fatal("there are no policies")
	}
	for _, policy := range p.policies {
		for _, r := range slices.Concat(policy.Spec.Ingress, policy.Spec.Egress) {
			for _, peer := range slices.Concat(r.From, r.To) {
				for _, s := range []*selector{peer.PodSelector, peer.NamespaceSelector, &policy.Spec.PodSelector} {
					switch {
					case peer.IPBlock != nil:
						t.Fatalf("this test does not support the address block of %+v", policy)
					case s != nil && len(s.MatchExpressions) > 0:
						t.Fatalf("this test does not support the expressions of %+v", policy)
					}
				}
			}
		}
	}
}

// testPolicies tries connections with the policies of the chart in force and without
// them.
func (r release) testPolicies(t *testing.T, row *row) {
	r.kubectl(t, "wait", "--namespace=stranger", "--for=condition=Ready", "pod/stranger", "--timeout=1m")
	pods, addresses := map[string]string{"stranger": "stranger"}, map[string]string{"the API server": "10.78.0.1"}
	for _, component := range []string{"ingress", "detect", "classify", "results", "nats", "jaeger"} {
		pod := strings.Fields(r.kubectl(t, "get", "pods", "--namespace="+r.namespace, r.selector(component),
			"--output=jsonpath={.items[0].metadata.name} {.items[0].status.podIP}"))
		pods[component], addresses[component] = pod[0], pod[1]
	}
	namespaceOf := func(pod string) string {
		if pod == "stranger" {
			return "stranger"
		}
		return r.namespace
	}
	ways := []struct {
		from, to string
		port     int
		allowed  bool
	}{
		{"detect", "nats", 4222, true},
		{"results", "nats", 4222, true},
		{"detect", "jaeger", 4318, true},
		{"stranger", "ingress", 8080, true},
		{"stranger", "ingress", 9090, true},
		{"stranger", "detect", 9090, true},
		{"stranger", "nats", 4222, false},
		{"stranger", "nats", 8222, false},
		{"stranger", "jaeger", 4318, false},
		{"ingress", "nats", 8222, false},
		{"detect", "jaeger", 16686, false},
		{"detect", "ingress", 8080, false},
		{"classify", "results", 9090, false},
		{"classify", "the API server", 6443, false},
	}
	dial := func(inForce bool) {
		for _, w := range ways {
			err := r.kube.Dial(t.Context(), namespaceOf(w.from), pods[w.from], fmt.Sprintf("%s:%d", addresses[w.to], w.port))
			if want := w.allowed || !inForce; (err == nil) != want {
				t.Errorf("policies in force: %v: %s to port %d of %s: %v, want a connection: %v",
					inForce, w.from, w.port, w.to, err, want)
			}
		}
	}
	dial(false)
	p := r.readPolicies(t)
	p.check(t)
	if err := r.kube.LoadRules(t.Context(), p.rules()); err != nil {
		t.Fatalf("%v\n%s", err, p.rules())
	}
	dial(true)
	l := newLoad(r.address())
	r.check(t, l, r.text)
	r.helm(t, "test", "--timeout=2m")
	if err := r.kube.LoadRules(t.Context(), "delete table ip policies"); err != nil {
		t.Fatal(err)
	}
}
