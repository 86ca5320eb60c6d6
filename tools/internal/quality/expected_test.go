package quality

import (
	"os"
	"path/filepath"
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
	switch _, err := readOrders([]byte(`{"x": {"ordr": [[0]]}}`)); {
	case err == nil:
		t.Errorf("the error of an unknown field is %v, want its name: no error", err)
	case !strings.Contains(err.Error(), "ordr"):
		t.Errorf(`the error of an unknown field is %v, want its name: want strings.Contains(err.Error(), "ordr")`,
			err)
	}
}

func TestExpected_OrderHasEachLineOnce(t *testing.T) {
	t.Parallel()
	yes := true
	for name, o := range map[string]order{
		"too few":            {Orders: [][]int{{0, 1}}},
		"too many":           {Orders: [][]int{{0, 1, 2, 3}}},
		"twice":              {Orders: [][]int{{0, 1, 1}}},
		"the second is none": {Orders: [][]int{{2, 1, 0}, {0}}},
	} {
		e := Expected{Text: []string{"a", "b", "c"}}
		switch err := e.setOrder(o); {
		case err == nil:
			t.Errorf("%s: the error is %v: no error", name, err)
		case !strings.Contains(err.Error(), "want each of 0 to 2 once"):
			t.Errorf(`%s: the error is %v: want strings.Contains(err.Error(), "want each of 0 to 2 once")`,
				name, err)
		}
	}
	e := Expected{TextContains: []string{"a"}}
	if err := e.setOrder(order{Strict: &yes}); err == nil {
		t.Error("an image whose text is not known has a strict order")
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
	switch {
	case images[0].Name != "a":
		t.Errorf(`the images are %s and %s, want a and b: images[0].Name %q, want "a"`,
			images[0].Name, images[1].Name, images[0].Name)
	case images[1].Name != "b":
		t.Errorf(`the images are %s and %s, want a and b: images[1].Name %q, want "b"`,
			images[0].Name, images[1].Name, images[1].Name)
	}
	if images[0].Set != "held" {
		t.Errorf("the set is %q, want the name of the folder", images[0].Set)
	}
	if got := strings.Join(images[0].Expected.Text, "|"); got != "one|two" {
		t.Errorf("the text is %q, want one|two", got)
	}
	if images[1].Expected.Counts["dog"] != 1 {
		t.Errorf("counts are %v, want a dog", images[1].Expected.Counts)
	}
}

func TestReadSet_NamesWhatIsWrong(t *testing.T) {
	t.Parallel()
	empty := t.TempDir()
	writeFile(t, empty, "a.png", "")
	switch _, err := readSet(empty); {
	case err == nil:
		t.Errorf("the error of a folder without expectations is %v, want its name: no error", err)
	case !strings.Contains(err.Error(), empty):
		t.Errorf("the error of a folder without expectations is %v, want its name: want strings.Contains(err.Error(), empty)",
			err)
	}
	broken := t.TempDir()
	writeFile(t, broken, "a.png", "")
	writeFile(t, broken, "a.expected.json", `{"counts": 7}`)
	switch _, err := readSet(broken); {
	case err == nil:
		t.Errorf("the error of a broken file is %v, want its name: no error", err)
	case !strings.Contains(err.Error(), "a.expected.json"):
		t.Errorf(`the error of a broken file is %v, want its name: want strings.Contains(err.Error(), "a.expected.json")`,
			err)
	}
}
