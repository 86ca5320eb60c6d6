package quality

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestReadOrders_HasOnlyKnownFields(t *testing.T) {
	t.Parallel()
	orders, err := readOrders(orderFile)
	if err != nil {
		t.Fatal(err)
	}
	for name, o := range orders {
		if o.Why == "" {
			t.Errorf("%s: no reason", name)
		}
	}
	if _, err := readOrders([]byte(`{"x": {"ordr": [[0]]}}`)); err == nil || !strings.Contains(err.Error(), "ordr") {
		t.Errorf("the error of an unknown field is %v, want its name ordr in it", err)
	}
}

func TestExpected_OrderHasEachLineOnce(t *testing.T) {
	t.Parallel()
	yes := true
	for name, o := range map[string]order{
		"too few":            {Orders: [][]int{{0, 1}}},
		"too many":           {Orders: [][]int{{0, 1, 2, 3}}},
		"twice":              {Orders: [][]int{{0, 1, 1}}},
		"second order short": {Orders: [][]int{{2, 1, 0}, {0}}},
	} {
		e := Expected{Text: []string{"a", "b", "c"}}
		const want = "want each of 0 to 2 once"
		if err := e.setOrder(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: the error is %v, want %q in it", name, err, want)
		}
	}
	e := Expected{TextContains: []string{"a"}}
	if err := e.setOrder(order{Strict: &yes}); err == nil {
		t.Error("a strict order of an image without a known text: no error")
	}
}

func writeFile(t *testing.T, dir, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestReadSet(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "held")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, dir, "b.JPG", "the image")
	writeFile(t, dir, "b.expected.json", `{"file": "b.JPG", "what": "a dog", "counts": {"dog": 1}}`)
	writeFile(t, dir, "a.png", "the image")
	writeFile(t, dir, "a.txt", "one\n\n  two\n")
	writeFile(t, dir, "nothing-expected.png", "")
	writeFile(t, dir, "README.md", "")
	images, err := readSet(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(images) != 2 {
		t.Fatalf("%d images, want 2", len(images))
	}
	if names := []string{images[0].Name, images[1].Name}; !slices.Equal(names, []string{"a", "b"}) {
		t.Errorf("the images are %q, want a and b", names)
	}
	if images[0].Set != "held" {
		t.Errorf("the set is %q, want held, the name of the folder", images[0].Set)
	}
	if got := strings.Join(images[0].Expected.Text, "|"); got != "one|two" {
		t.Errorf("the text is %q, want one|two", got)
	}
	if images[1].Expected.Counts["dog"] != 1 {
		t.Errorf("the counts are %v, want 1 dog", images[1].Expected.Counts)
	}
}

func TestReadSet_ErrorNamesFile(t *testing.T) {
	t.Parallel()
	empty := t.TempDir()
	writeFile(t, empty, "a.png", "")
	if _, err := readSet(empty); err == nil || !strings.Contains(err.Error(), empty) {
		t.Errorf("the error of a folder without expectations is %v, want %s in it", err, empty)
	}
	broken := t.TempDir()
	writeFile(t, broken, "a.png", "")
	writeFile(t, broken, "a.expected.json", `{"counts": 7}`)
	if _, err := readSet(broken); err == nil || !strings.Contains(err.Error(), "a.expected.json") {
		t.Errorf("the error of a broken file is %v, want its name a.expected.json in it", err)
	}
}
