package metricdefs

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

// write creates a folder with a Go file, and a test file that ReadFolder must ignore.
func write(t *testing.T, body string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"m.go":      "package p\n\nfunc f() {\n" + body + "\n}\n",
		"m_test.go": `package p; var _ = f.NewGauge(prometheus.GaugeOpts{Name: "of_a_test", Help: "x"})`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestReadFolder_ReadsDefinitions(t *testing.T) {
	t.Parallel()
	got, err := ReadFolder(write(t, `
	f.NewCounterVec(prometheus.CounterOpts{Name: "a_total", Help: "Of " + "a."}, []string{"x", "y"})
	f.NewHistogram(prometheus.HistogramOpts{Name: "b_seconds", Help: "Of b.", Buckets: nil})
	other.New(Options{Name: "c"})`))
	if err != nil {
		t.Fatal(err)
	}
	want := []Metric{
		{Name: "a_total", Type: "counter", Help: "Of a.", Labels: []string{"x", "y"}},
		{Name: "b_seconds", Type: "histogram", Help: "Of b."},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestReadFolder_RejectsUnreadableDefinitions(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"name":    `f.NewGauge(prometheus.GaugeOpts{Name: name, Help: "x"})`,
		"no help": `f.NewGauge(prometheus.GaugeOpts{Name: "x"})`,
		"label":   `f.NewGaugeVec(prometheus.GaugeOpts{Name: "x", Help: "x"}, []string{label})`,
		"labels":  `f.NewGaugeVec(prometheus.GaugeOpts{Name: "x", Help: "x"}, labels)`,
	} {
		if _, err := ReadFolder(write(t, body)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
