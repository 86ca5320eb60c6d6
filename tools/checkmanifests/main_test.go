package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/sightmesh/sightmesh/contracts"
	"github.com/sightmesh/sightmesh/contracts/connection"
	"github.com/sightmesh/sightmesh/tools/internal/setup"
)

const testTimeout = time.Minute

// readRendered returns the manifests of deploy/k8s. `make verify` checks that they match the
// chart.
func readRendered(t *testing.T) []manifest {
	t.Helper()
	f, err := os.Open("../../deploy/k8s/sightmesh.yaml")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all, err := read(f)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// selectKind returns the manifests of a kind, by their name without the name of the release.
func selectKind(t *testing.T, kind string) map[string]manifest {
	t.Helper()
	found := map[string]manifest{}
	for _, m := range readRendered(t) {
		if m.Kind == kind {
			found[strings.TrimPrefix(m.Metadata.Name, "sightmesh-")] = m
		}
	}
	if len(found) == 0 {
		t.Fatalf("deploy/k8s has no %s", kind)
	}
	return found
}

func services() []string { return []string{"classify", "detect", "ingress", "results"} }

// TestRendered_SetupRunsOnItsNATS runs a server with the rendered nats.conf, and runs the
// set-up on it.
func TestRendered_SetupRunsOnItsNATS(t *testing.T) {
	t.Parallel()
	opts, err := natsOptions(selectKind(t, "ConfigMap")["nats"].Data["nats.conf"])
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	opts.Host, opts.Port, opts.HTTPPort = "127.0.0.1", server.RANDOM_PORT, 0
	opts.StoreDir, opts.PidFile, opts.NoSigs, opts.NoLog = dir, filepath.Join(dir, "pid"), true, true
	s, err := server.NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	defer func() {
		s.Shutdown()
		s.WaitForShutdown()
	}()
	if !s.ReadyForConnections(testTimeout) {
		t.Fatal("the NATS server is not ready for connections")
	}
	cfg := setup.Config{NATS: connection.Config{URL: s.ClientURL()}, Wait: testTimeout}
	if err := setup.Run(context.Background(), cfg, io.Discard); err != nil {
		t.Error(err)
	}
}

func TestRendered_PassesTheChecks(t *testing.T) {
	t.Parallel()
	for _, m := range readRendered(t) {
		for _, check := range []func(manifest) error{checkName, checkNATSConfig, checkNATSVersion, checkReferences} {
			if err := check(m); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestRendered_FitsANodeOfTwoCPUs leaves 800m for the cluster itself; minikube requests
// 750m.
func TestRendered_FitsANodeOfTwoCPUs(t *testing.T) {
	t.Parallel()
	const most = 1200 // thousandths of a CPU
	sum := 0
	for _, m := range readRendered(t) {
		pods := 1
		if m.Spec.Replicas != nil {
			pods = *m.Spec.Replicas
		}
		for _, c := range m.containers() {
			text := c.Resources.Requests["cpu"]
			n, err := strconv.Atoi(strings.TrimSuffix(text, "m"))
			if err != nil {
				t.Fatalf("%s %s: a request of %q CPU, want thousandths", m.Kind, m.Metadata.Name, text)
			}
			if !strings.HasSuffix(text, "m") {
				n *= 1000
			}
			sum += n * pods
		}
	}
	if sum > most {
		t.Errorf("the pods request %dm CPU, want at most %dm", sum, most)
	}
}

// TestRendered_WaitingIsLive checks that a service that waits for NATS is not restarted.
func TestRendered_WaitingIsLive(t *testing.T) {
	t.Parallel()
	for name, m := range selectKind(t, "Deployment") {
		if got := m.containers()[0].Startup.HTTPGet.Path; got != "/livez" {
			t.Errorf("startup probe of %s is %q, want /livez", name, got)
		}
	}
}

// TestRendered_OnePodMayBeUnavailable checks that each service has several pods, of
// which one may be unavailable.
func TestRendered_OnePodMayBeUnavailable(t *testing.T) {
	t.Parallel()
	deployments, budgets := selectKind(t, "Deployment"), selectKind(t, "PodDisruptionBudget")
	for _, name := range services() {
		switch n := deployments[name].Spec.Replicas; {
		case n == nil:
			t.Errorf("%s has no number of replicas", name)
		case *n < 2:
			t.Errorf("%s has %d replicas, want at least 2", name, *n)
		}
		if got := budgets[name].Spec.MaxUnavailable; got != 1 {
			t.Errorf("the budget of %s allows %v unavailable pods, want 1", name, got)
		}
	}
}

// TestRendered_SetupNameHasVersion checks the name of the Job, because kubectl apply
// cannot change a Job.
func TestRendered_SetupNameHasVersion(t *testing.T) {
	t.Parallel()
	version := strings.ReplaceAll(contracts.Version, ".", "-")
	for name := range selectKind(t, "Job") {
		if !strings.Contains(name, version) {
			t.Errorf("the name of the Job is %s, want %s in it", name, version)
		}
	}
}

// TestRendered_ChangedConfigReachesNATS checks that the pod template changes when the
// configuration changes.
func TestRendered_ChangedConfigReachesNATS(t *testing.T) {
	t.Parallel()
	conf := strings.TrimRight(selectKind(t, "ConfigMap")["nats"].Data["nats.conf"], "\n")
	sum := sha256.Sum256([]byte(conf))
	annotations := selectKind(t, "StatefulSet")["nats"].Spec.Template.Metadata.Annotations
	if got := annotations["checksum/config"]; got != hex.EncodeToString(sum[:]) {
		t.Errorf("checksum/config is %q, want %x", got, sum)
	}
}

// TestRendered_EveryPodHasAPolicy checks that each service and NATS have a
// NetworkPolicy.
func TestRendered_EveryPodHasAPolicy(t *testing.T) {
	t.Parallel()
	policies := selectKind(t, "NetworkPolicy")
	for _, name := range append(services(), "nats") {
		if _, ok := policies[name]; !ok {
			t.Errorf("%s has no NetworkPolicy", name)
		}
	}
}

// TestRendered_ResourceAttributes checks the resource attributes of OpenTelemetry's
// semantic conventions.
func TestRendered_ResourceAttributes(t *testing.T) {
	t.Parallel()
	deployments := selectKind(t, "Deployment")
	for _, name := range services() {
		attributes := map[string]string{}
		for _, v := range deployments[name].containers()[0].Env {
			if v.Name == "OTEL_RESOURCE_ATTRIBUTES" {
				for pair := range strings.SplitSeq(v.Value, ",") {
					key, value, _ := strings.Cut(pair, "=")
					attributes[key] = value
				}
			}
		}
		for key, want := range map[string]string{
			"service.instance.id": "$(K8S_NAMESPACE).$(K8S_POD)." + name,
			"k8s.namespace.name":  "$(K8S_NAMESPACE)", "k8s.pod.name": "$(K8S_POD)", "k8s.pod.uid": "$(K8S_POD_UID)",
			"k8s.node.name": "$(K8S_NODE)", "k8s.deployment.name": "sightmesh-" + name, "k8s.container.name": name,
			"k8s.pod.label.app.kubernetes.io/instance": "sightmesh",
		} {
			if attributes[key] != want {
				t.Errorf("%s has %s=%s, want %s", name, key, attributes[key], want)
			}
		}
	}
}

// TestRendered_NeedsNoIngressController checks that the manifests for kubectl need no
// Ingress controller.
func TestRendered_NeedsNoIngressController(t *testing.T) {
	t.Parallel()
	for _, m := range readRendered(t) {
		if m.Kind == "Ingress" {
			t.Errorf("the manifests have the Ingress %s, want none", m.Metadata.Name)
		}
	}
}

// TestRendered_NoPasswordInArguments checks that no argument has a URL with credentials.
func TestRendered_NoPasswordInArguments(t *testing.T) {
	t.Parallel()
	for _, m := range readRendered(t) {
		for _, c := range m.containers() {
			if i := slices.IndexFunc(c.Args, func(a string) bool { return strings.Contains(a, "@") }); i >= 0 {
				t.Errorf("%s %s: the argument %q has an @", m.Kind, m.Metadata.Name, c.Args[i])
			}
		}
	}
}

// checkError checks that an error has a part.
func checkError(t *testing.T, name string, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%s: the error is %v, want %q in it", name, err, want)
	}
}

func TestChecks_ReportErrors(t *testing.T) {
	t.Parallel()
	const config = "kind: ConfigMap\nmetadata: {name: x}\ndata:\n  nats.conf: |\n    "
	for name, tt := range map[string]struct {
		check          func(manifest) error
		manifest, want string
	}{
		"lame duck mode too short": {checkNATSConfig, config + "max_payload: 8454144\n    lame_duck_duration: 20s",
			"minimum is 30 seconds"},
		"unknown field":  {checkNATSConfig, config + "max_playload: 8454144", "max_playload"},
		"small messages": {checkNATSConfig, config + "port: 4222", "max_payload is 0, want 8454144"},
		"another NATS": {checkNATSVersion,
			"kind: StatefulSet\nspec: {template: {spec: {containers: [{name: nats, image: 'r/nats:2.9.0'}]}}}",
			server.VERSION},
		"reference to a later variable": {checkReferences,
			"kind: Pod\nspec: {containers: [{env: [{name: A, value: 'x=$(B)'}, {name: B, value: b}]}]}", "A refers to B"},
		"long name": {checkName, "kind: Job\nmetadata: {name: " + strings.Repeat("x", 64) + "}", "64 characters"},
	} {
		all, err := read(strings.NewReader(tt.manifest))
		if err != nil {
			t.Fatal(err)
		}
		checkError(t, name, tt.check(all[0]), tt.want)
	}
}

// TestTriggers_MatchWorkers checks that a ScaledObject has triggers for the
// pipelines that its workers serve. The default is all pipelines of the file, or all
// built-in pipelines without a file.
func TestTriggers_MatchWorkers(t *testing.T) {
	t.Parallel()
	const file = `
---
kind: ConfigMap
metadata: {name: p}
data: {pipelines.yaml: 'pipelines: [{name: a, detect: {kind: k}}, {name: b, detect: {kind: k}}]'}
`
	both := []string{"detect-a-interactive", "detect-a-bulk", "detect-b-interactive", "detect-b-bulk"}
	for name, tt := range map[string]struct {
		args, more string
		consumers  []string
		want       string
	}{
		"all of the file":     {"", file, both, ""},
		"served":              {"--serve=b", file, both[2:], ""},
		"missing":             {"", file, both[:3], "no trigger for the consumer detect-b-bulk"},
		"not served":          {"--serve=a", file, both, `no consumer "detect-b-bulk"`},
		"of another stage":    {"", file, append(both[:4:4], "classify-a-bulk"), `no consumer "classify-a-bulk"`},
		"built-in and served": {"--serve=text", "", []string{"detect-text-interactive", "detect-text-bulk"}, ""},
		"all built-in missing": {"", "", []string{"detect-text-interactive"},
			"no trigger for the consumer detect-faces-bulk"},
	} {
		text := fmt.Sprintf(`
kind: Deployment
metadata: {name: d}
spec: {template: {spec: {containers: [{name: detect, args: [%q]}]}}}
---
kind: ScaledObject
metadata: {name: s}
spec:
  scaleTargetRef: {name: d}
  triggers:
`, tt.args)
		for _, c := range tt.consumers {
			text += "  - metadata: {stream: IMAGES, consumer: " + c + "}\n"
		}
		all, err := read(strings.NewReader(text + tt.more))
		if err != nil {
			t.Fatal(err)
		}
		if err = checkTriggers(all[1], all); tt.want != "" {
			checkError(t, name, err, tt.want)
		} else if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	lost, err := read(strings.NewReader("kind: ScaledObject\nmetadata: {name: s}\nspec: {scaleTargetRef: {name: gone}}"))
	if err != nil {
		t.Fatal(err)
	}
	checkError(t, "without its Deployment", checkTriggers(lost[0], lost), `no Deployment "gone"`)
}

// TestPrograms_FlagsAreChecked checks manifests against a program with one flag.
func TestPrograms_FlagsAreChecked(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	script := "#!/bin/sh\necho '  -lanes int'\n"
	if err := os.WriteFile(filepath.Join(dir, "detect"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"{image: 'r/sightmesh-detect:1', args: [--lanes=1], env: [{name: SIGHTMESH_LANES}]}": "",
		"{image: 'r/sightmesh-detect:1', args: [--lances=1]}":                                "no flag --lances",
		"{image: 'r/sightmesh-detect:1', env: [{name: SIGHTMESH_LANCES}]}":                   "no flag with the variable",
	} {
		all, err := read(strings.NewReader("kind: Pod\nspec: {containers: [" + text + "]}"))
		if err != nil {
			t.Fatal(err)
		}
		if err = (programs{bin: dir, usages: map[string]usage{}}).check(all[0]); want != "" {
			checkError(t, text, err, want)
		} else if err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}
