package pipeline

import (
	"bytes"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

const page = "../../docs/pipelines.md"

// TestDocs_TableHasEveryField: docs/pipelines.md has a row for each field of the file, with its
// default, and no other row.
func TestDocs_TableHasEveryField(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	p := Pipeline{Classify: &Stage{}}
	p.setDefaults(func(...string) *yaml.Node { return nil })
	for heading, value := range map[string]any{
		"field of a pipeline": p, "field of a stage": p.Detect, "field of a label in `by_label`": Classifier{},
	} {
		_, table, ok := strings.Cut(string(text), "\n| "+heading+" | default | limit | meaning |\n")
		if !ok {
			t.Errorf("%s: no table", heading)
			continue
		}
		table, _, _ = strings.Cut(table, "\n\n")
		rows := map[string]string{} // defaults
		for _, m := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\| (.*?) \\|").FindAllStringSubmatch(table, -1) {
			rows[m[1]] = m[2]
		}
		v := reflect.ValueOf(value)
		for i := range v.NumField() {
			field, of := v.Type().Field(i).Tag.Get("yaml"), v.Field(i)
			documented, ok := rows[field]
			if !ok {
				t.Errorf("%s: no row for %s", heading, field)
				continue
			}
			delete(rows, field)
			switch want := fmt.Sprintf("`%v`", of); {
			case of.Kind() == reflect.Bool, !of.IsZero() && of.Kind() != reflect.Struct && of.Kind() != reflect.Pointer:
				if documented != want {
					t.Errorf("%s: the default of %s is %s, want %s", heading, field, documented, want)
				}
			case strings.HasPrefix(documented, "`"):
				t.Errorf("%s: the default of %s is %s, want none", heading, field, documented)
			}
		}
		for field := range rows {
			t.Errorf("%s: a row for %s, which is not a field", heading, field)
		}
	}
}

// TestDocs_LimitsAreThoseOfTheCode: the limits in the table are those of the constants.
func TestDocs_LimitsAreThoseOfTheCode(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for field, limit := range map[string]string{
		"max_regions":       fmt.Sprintf("1 to %d", MaxRegionsLimit),
		"crops_per_message": fmt.Sprintf("1 to %d", MaxCropsPerMessage),
		"deadline":          fmt.Sprintf("`1s` to `%.0fh`", MaxDuration.Hours()),
		"bulk_deadline":     fmt.Sprintf("`1s` to `%.0fh`", MaxDuration.Hours()),
		"timeout":           fmt.Sprintf("`10ms` to `%.0fh`", MaxDuration.Hours()),
		"memory":            fmt.Sprintf("at least `%v`", MinMemory),
		"by_label":          fmt.Sprintf("1 to %d labels", MaxLabels),
	} {
		row := regexp.MustCompile("(?m)^\\| `" + field + "` \\| .*? \\| (.*?) \\|").FindStringSubmatch(string(text))
		if row == nil || !strings.HasPrefix(row[1], limit) {
			t.Errorf("%s: the limit is %q, want %q", field, row, limit)
		}
	}
}

// TestDocs_ExampleIsValid: the example is a valid pipelines file.
func TestDocs_ExampleIsValid(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	_, example, ok := bytes.Cut(text, []byte("```yaml\n"))
	if !ok {
		t.Fatal("no example")
	}
	example, _, _ = bytes.Cut(example, []byte("```"))
	ps, err := Parse(bytes.NewReader(example))
	if err != nil {
		t.Fatal(err)
	}
	if got := ps[0].DetectRequest("").CropLabels; !reflect.DeepEqual(got, []string{"car", "person"}) {
		t.Errorf("the example has classifiers of %v, want car and person", got)
	}
}
