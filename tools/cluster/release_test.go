//go:build cluster

package cluster

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sightmesh/sightmesh/contracts/eventually"
)

// release is an installation of the chart.
type release struct {
	*suite
	namespace, name string
}

// helm runs Helm on the release.
func (r release) helm(t *testing.T, command string, args ...string) {
	t.Helper()
	args = append([]string{command, r.name, "--namespace", r.namespace}, args...)
	if _, err := r.kube.Helm(t.Context(), args...); err != nil {
		t.Fatal(err)
	}
}

// install installs a chart and waits until it is ready.
func (r release) install(t *testing.T, chart string, values ...string) {
	t.Helper()
	r.helm(t, "install", append([]string{chart, "--create-namespace", "--wait", "--timeout=5m"}, set(values)...)...)
}

// upgrade upgrades the release to the chart of this version, with these values only.
func (r release) upgrade(t *testing.T, values ...string) {
	t.Helper()
	r.helm(t, "upgrade", append([]string{r.chart(), "--reset-values", "--wait", "--timeout=5m"}, set(values)...)...)
}

func (s *suite) chart() string { return filepath.Join(s.root, "deploy/helm/sightmesh") }

// set returns the flags for values. The value of pipelines is a file.
func set(values []string) (args []string) {
	for _, v := range values {
		flag := "--set"
		switch {
		case strings.HasPrefix(v, "pipelines="):
			flag = "--set-file"
		case strings.Contains(v, "annotations"):
			flag = "--set-string"
		}
		args = append(args, flag, v)
	}
	return args
}

// address returns the URL of the Service.
func (r release) address() string { return fmt.Sprintf("http://%s.%s", r.name, r.namespace) }

// nats returns the URL of the NATS server.
func (r release) nats() string { return fmt.Sprintf("nats://%s-nats.%s:4222", r.name, r.namespace) }

// selector returns the flag that selects the objects of the release, or of a component
// when component is not empty.
func (r release) selector(component string) string {
	selector := "--selector=app.kubernetes.io/instance=" + r.name
	if component != "" {
		selector += ",app.kubernetes.io/component=" + component
	}
	return selector
}

// get returns a field of objects of the release.
func (r release) get(t *testing.T, objects, path string) string {
	t.Helper()
	return r.kubectl(t, "get", objects, "--namespace="+r.namespace, r.selector(""), "--output=jsonpath="+path)
}

// followLogs logs the warnings of the current pods when the test fails. It follows the
// logs from now on, because logs of deleted pods cannot be read.
func (r release) followLogs(t *testing.T) {
	t.Helper()
	var logs bytes.Buffer
	stop, err := r.kube.FollowLogs(t.Context(), &logs, "--namespace="+r.namespace, r.selector(""))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		for line := range strings.Lines(logs.String()) {
			if t.Failed() && (strings.Contains(line, `"WARN"`) || strings.Contains(line, `"ERROR"`)) {
				t.Log(strings.TrimSpace(line))
			}
		}
	})
}

// awaitReady waits until every Deployment and StatefulSet has all its pods.
func (r release) awaitReady(t *testing.T) {
	t.Helper()
	objects := r.get(t, "deployments,statefulsets", "{range .items[*]}{.kind}/{.metadata.name} {end}")
	for _, object := range strings.Fields(objects) {
		r.kubectl(t, "rollout", "status", "--namespace="+r.namespace, "--timeout=3m", strings.ToLower(object))
	}
}

// awaitReplicas waits until a service has this number of pods, all ready.
func (r release) awaitReplicas(t *testing.T, service string, n int) {
	t.Helper()
	eventually.Succeeds(t, 4*time.Minute, func() error {
		// kubectl omits counts that are 0.
		counts := r.kubectl(t, "get", "deployment", r.name+"-"+service, "--namespace="+r.namespace,
			"--output=jsonpath={.spec.replicas} {.status.replicas} {.status.readyReplicas}")
		want := strings.TrimSpace(strings.Repeat(fmt.Sprint(n, " "), 3))
		if n == 0 {
			want = "0"
		}
		if got := strings.TrimSpace(counts); got != want {
			return fmt.Errorf("%s has %s pods (desired, current, ready), want %d", service, got, n)
		}
		return nil
	})
}
