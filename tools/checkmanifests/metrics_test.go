package main

import (
	"encoding/json"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/sightmesh/sightmesh/tools/internal/metricdefs"
)

const chartFiles = "../../deploy/helm/sightmesh/files"

// metricDefinitions returns the labels of every metric, by the name that queries use. It
// has the metrics that the services define with Prometheus's client, and the metrics of
// NATS in the dashboard, which are of prometheus-nats-exporter 0.20.1 as in the chart.
func metricDefinitions(t *testing.T) map[string][]string {
	t.Helper()
	found := map[string][]string{
		"nats_stream_total_bytes": {"stream_name"}, "nats_stream_limit_bytes": {"stream_name"},
		"nats_stream_total_messages": {"stream_name"}, "nats_varz_slow_consumers": nil,
	}
	known := len(found)
	err := filepath.WalkDir("../../services", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		metrics, err := metricdefs.ReadFolder(path)
		for _, m := range metrics {
			addDefinition(found, m)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(found) == known {
		t.Fatal("the services define no metrics")
	}
	return found
}

// addDefinition adds the labels of the series of a metric.
func addDefinition(to map[string][]string, m metricdefs.Metric) {
	if m.Type == "histogram" {
		to[m.Name+"_count"], to[m.Name+"_sum"] = m.Labels, m.Labels
		to[m.Name+"_bucket"] = append(slices.Clone(m.Labels), "le")
		return
	}
	to[m.Name] = m.Labels
}

// targetLabels returns the labels that Prometheus adds to metrics that it scrapes with
// the chart's ServiceMonitor.
func targetLabels() []string { return []string{"namespace", "pod", "app_kubernetes_io_component"} }

var (
	metricName = regexp.MustCompile(`\b(?:sightmesh|nats)_[a-z_]+`)
	selector   = regexp.MustCompile(`\b((?:sightmesh|nats)_[a-z_]+)\{([^}]*)\}`)
	matcher    = regexp.MustCompile(`([a-zA-Z_]+) *(=~|!~|!=|=)`)
	grouping   = regexp.MustCompile(`by \(([^)]*)\)`)
)

// checkQuery checks that the metrics of a query are defined, and that they have the
// labels of the query.
func checkQuery(t *testing.T, where, query string, defined map[string][]string) {
	t.Helper()
	has := targetLabels()
	names := metricName.FindAllString(query, -1)
	if len(names) == 0 {
		t.Errorf("%s has no metric: %s", where, query)
	}
	for _, name := range names {
		labels, ok := defined[name]
		if !ok {
			t.Errorf("%s has the metric %s, which is not defined", where, name)
		}
		has = append(has, labels...)
	}
	for _, s := range selector.FindAllStringSubmatch(query, -1) {
		for _, m := range matcher.FindAllStringSubmatch(s[2], -1) {
			if !slices.Contains(append(targetLabels(), defined[s[1]]...), m[1]) {
				t.Errorf("%s selects by the label %s, which %s does not have", where, m[1], s[1])
			}
		}
	}
	for _, g := range grouping.FindAllStringSubmatch(query, -1) {
		for label := range strings.SplitSeq(g[1], ",") {
			if label = strings.TrimSpace(label); !slices.Contains(has, label) {
				t.Errorf("%s groups by the label %s, which %q do not have", where, label, names)
			}
		}
	}
}

// TestChart_RulesQueryMetricsThatExist checks the queries of the alerts.
func TestChart_RulesQueryMetricsThatExist(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(chartFiles, "rules.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var rules struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	if err := yaml.Unmarshal(text, &rules); err != nil {
		t.Fatal(err)
	}
	if len(rules.Groups) == 0 {
		t.Fatal("rules.yaml has no groups")
	}
	defined := metricDefinitions(t)
	for i, g := range rules.Groups {
		if len(g.Rules) == 0 {
			t.Errorf("group %d of rules.yaml has no rules", i)
		}
		for _, r := range g.Rules {
			checkQuery(t, r.Alert, r.Expr, defined)
		}
	}
}

// dashboard has the checked fields of the Grafana dashboard.
type dashboard struct {
	Panels []struct {
		ID                       int
		Type, Title, Description string
		GridPos                  struct{ X, Y, W, H int }
		Targets                  []struct{ Expr, LegendFormat string }
	}
	Templating struct {
		List []struct{ Name, Type, Definition string }
	}
}

func readDashboard(t *testing.T) (d dashboard) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(chartFiles, "dashboard.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	if len(d.Panels) == 0 {
		t.Fatal("dashboard.json has no panels")
	}
	return d
}

func TestDashboard_QueriesMetricsThatExist(t *testing.T) {
	t.Parallel()
	d, defined := readDashboard(t), metricDefinitions(t)
	for _, v := range d.Templating.List {
		if v.Type == "query" {
			checkQuery(t, v.Name, v.Definition, defined)
		}
	}
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			checkQuery(t, p.Title, target.Expr, defined)
		}
	}
}

// TestDashboard_LegendLabelsAreGrouped checks that a legend has only labels by which its
// query groups.
func TestDashboard_LegendLabelsAreGrouped(t *testing.T) {
	t.Parallel()
	legendLabel := regexp.MustCompile(`\{\{([a-z_]+)\}\}`)
	for _, p := range readDashboard(t).Panels {
		for _, target := range p.Targets {
			for _, l := range legendLabel.FindAllStringSubmatch(target.LegendFormat, -1) {
				if !regexp.MustCompile(`by \([^)]*\b` + l[1] + `\b`).MatchString(target.Expr) {
					t.Errorf("%s: the legend has the label %s, which the query does not have: %s", p.Title, l[1], target.Expr)
				}
			}
		}
	}
}

// TestDashboard_VariablesAreDefined checks the variables of the queries.
func TestDashboard_VariablesAreDefined(t *testing.T) {
	t.Parallel()
	d := readDashboard(t)
	defined := []string{"__rate_interval"}
	for _, v := range d.Templating.List {
		defined = append(defined, v.Name)
	}
	variable := regexp.MustCompile(`\$\{?([a-z_]+)`)
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			for _, v := range variable.FindAllStringSubmatch(target.Expr, -1) {
				if !slices.Contains(defined, v[1]) {
					t.Errorf("%s has the variable %s, want one of %q", p.Title, v[1], defined)
				}
			}
		}
	}
}

func TestDashboard_PanelsAreExplainedAndDoNotOverlap(t *testing.T) {
	t.Parallel()
	ids, cells := map[int]string{}, map[[2]int]string{}
	for _, p := range readDashboard(t).Panels {
		if other, ok := ids[p.ID]; ok {
			t.Errorf("%s and %s have the id %d", p.Title, other, p.ID)
		}
		ids[p.ID] = p.Title
		if p.Type != "row" && p.Description == "" {
			t.Errorf("%s has no description", p.Title)
		}
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("%s has no query", p.Title)
		}
		overlapped := map[string]bool{}
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other, ok := cells[[2]int{x, y}]; ok {
					overlapped[other] = true
				}
				cells[[2]int{x, y}] = p.Title
			}
		}
		if len(overlapped) > 0 {
			t.Errorf("%s overlaps %q", p.Title, slices.Collect(maps.Keys(overlapped)))
		}
		if end := p.GridPos.X + p.GridPos.W; end > 24 {
			t.Errorf("%s ends at column %d, want at most 24", p.Title, end)
		}
	}
}
