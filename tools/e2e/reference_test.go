package e2e

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// metricRow is what is compared of a row of docs/reference/metrics.md.
type metricRow struct{ kind, labels, help string }

// metricRows returns the metrics of docs/reference/metrics.md, by service and name.
func metricRows(t *testing.T) map[string]map[string]metricRow {
	t.Helper()
	page, err := os.ReadFile(filepath.Join(root(t), "docs", "reference", "metrics.md"))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]map[string]metricRow{}
	for _, section := range strings.Split(string(page), "\n## ")[1:] {
		service, _, _ := strings.Cut(section, "\n")
		all[service] = map[string]metricRow{}
		rows := regexp.MustCompile("(?m)^\\| `(\\w+)` \\| (\\w+) \\| ([^|]*) \\|.*\\| (.+) \\|$")
		for _, row := range rows.FindAllStringSubmatch(section, -1) {
			all[service][row[1]] = metricRow{row[2], strings.TrimSpace(row[3]), row[4]}
		}
	}
	return all
}

// TestReference_HasTheMetricsOfARunningMesh: every metric of the mesh that a service serves is
// in docs/reference/metrics.md, in its section, with its type and help. A service serves every metric of
// its section that has no labels; a metric with labels has no series before its first event.
func TestReference_HasTheMetricsOfARunningMesh(t *testing.T) {
	t.Parallel()
	m := start(t, nil)
	m.postDone(t, "?pipeline=text", samplePage(t))
	all := metricRows(t)
	for _, service := range services {
		res, err := http.Get(m.admin(t, service) + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		help := regexp.MustCompile(`(?m)^# HELP (sightmesh_\w+) (.*)\n# TYPE \w+ (\w+)$`)
		found := help.FindAllStringSubmatch(string(text), -1)
		if len(found) < 3 {
			t.Errorf("%s serves %d metrics of the mesh, want 3 or more", service, len(found))
		}
		served := map[string]bool{}
		for _, f := range found {
			served[f[1]] = true
			got := all[service][f[1]]
			if want := (metricRow{f[3], got.labels, f[2]}); got != want {
				t.Errorf("%s: metrics.md says of %s %+v, /metrics %+v", service, f[1], got, want)
			}
		}
		for name, row := range all[service] {
			if row.labels == "" && !served[name] && !strings.Contains(row.help, "only with --postgres") {
				t.Errorf("%s: metrics.md has %s, /metrics does not", service, name)
			}
		}
	}
}
