package main

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/sightmesh/sightmesh/tools/internal/metricdefs"
)

const metricsIntroduction = `# Metrics

<!-- Written by tools/genreference from the source of the services. Change the source, and run make gen. -->

Each service serves its metrics at ` + "`/metrics`" + ` of the address of ` + "`--admin`" +
	`, in the format of Prometheus. A histogram has
the series ` + "`_bucket`, `_sum` and `_count`" +
	`. A metric with labels has no series before its first event. The services also
serve the metrics ` + "`go_*` and `process_*`" + ` of the [Go client](https://github.com/prometheus/client_golang).
[Operating](../operating.md#otlp) describes the export of metrics over OTLP.
`

func metricsPage(root string) ([]byte, error) {
	var out bytes.Buffer
	out.WriteString(metricsIntroduction)
	for _, s := range services() {
		metrics, err := readMetrics(root, s)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&out, "\n## %s\n\n| name | type | labels | unit | description |\n|---|---|---|---|---|\n", s)
		for _, m := range metrics {
			labels := make([]string, len(m.Labels))
			for i, l := range m.Labels {
				labels[i] = codeSpan(l)
			}
			fmt.Fprintf(&out, "| `%s` | %s | %s | %s | %s |\n",
				m.Name, m.Type, strings.Join(labels, ", "), unit(m), sentence(m.Help))
		}
	}
	return out.Bytes(), nil
}

// readMetrics returns the metrics of the packages of a service, sorted by name.
func readMetrics(root, service string) ([]metricdefs.Metric, error) {
	const module = "github.com/sightmesh/sightmesh/"
	cmd := exec.Command("go", "list", "-deps", "-f", "{{.ImportPath}}\t{{.Dir}}", "./services/"+service)
	cmd.Dir, cmd.Stderr = root, os.Stderr
	text, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("list the packages of %s: %w", service, err)
	}
	var all []metricdefs.Metric
	for line := range strings.Lines(string(text)) {
		path, dir, _ := strings.Cut(strings.TrimSpace(line), "\t")
		if !strings.HasPrefix(path, module) {
			continue
		}
		some, err := metricdefs.ReadFolder(dir)
		if err != nil {
			return nil, fmt.Errorf("read the metrics of %s: %w", path, err)
		}
		all = append(all, some...)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s defines no metrics", service)
	}
	slices.SortFunc(all, func(a, b metricdefs.Metric) int { return cmp.Compare(a.Name, b.Name) })
	return all, nil
}

// unit returns the unit in the name of a metric, or number.
func unit(m metricdefs.Metric) string {
	name := strings.TrimSuffix(m.Name, "_total")
	for _, u := range []string{"seconds", "bytes"} {
		if strings.HasSuffix(name, "_"+u) {
			return u
		}
	}
	return "number"
}
