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
type metricRow struct{ kind, help string }

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
		rows := regexp.MustCompile("(?m)^\\| `(\\w+)` \\| (\\w+) \\|.*\\| (.+) \\|$")
		for _, row := range rows.FindAllStringSubmatch(section, -1) {
			all[service][row[1]] = metricRow{row[2], row[3]}
		}
	}
	return all
}

// TestReference_HasTheMetricsOfARunningMesh: every metric of the mesh that a service serves is
// in docs/reference/metrics.md, in its section, with its type and help.
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
		for _, f := range found {
			if got, want := all[service][f[1]], (metricRow{f[3], f[2]}); got != want {
				t.Errorf("%s: metrics.md says of %s %+v, /metrics %+v", service, f[1], got, want)
			}
		}
	}
}
