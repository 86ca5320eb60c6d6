package quality

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// newResult returns the result of an image with a score. The mesh and its lanes alone agree.
func newResult(name string, s Score) imageResult {
	return imageResult{image: Image{Name: name, Set: "photos"}, score: s, scored: true, agree: true}
}

// textScore returns the score of a text of 100 characters.
func textScore(anyOrder, strict int) Score {
	return Score{Text: &TextErrors{Chars: 100, AnyOrder: anyOrder, StrictChars: 100, Strict: strict}}
}

func missedNames(targets []target) string {
	var names []string
	for _, t := range targets {
		if !t.met {
			names = append(names, t.name)
		}
	}
	return strings.Join(names, "; ")
}

func TestJudge(t *testing.T) {
	t.Parallel()
	pipelineOf := func(name string) Pipeline {
		for _, p := range Pipelines {
			if p.Name == name {
				return p
			}
		}
		t.Fatalf("no pipeline %s", name)
		return Pipeline{}
	}
	drawn := map[string]TextErrors{"page": {Chars: 100, AnyOrder: 8, StrictChars: 100, Strict: 11}}
	for name, tt := range map[string]struct {
		pipeline string
		results  []imageResult
		missed   string
	}{
		"text is good":        {"text", []imageResult{newResult("a", textScore(2, 4))}, ""},
		"text is wrong":       {"text", []imageResult{newResult("a", textScore(3, 4))}, "text of photos, in any order"},
		"text is in disorder": {"text", []imageResult{newResult("a", textScore(2, 5))}, "text of photos, strict"},
		"in sum it is good": {"text", []imageResult{newResult("a", textScore(4, 8)), newResult("b", textScore(0, 0))},
			""},
		"a page as before": {"text", []imageResult{newResult("page", textScore(8, 11))}, ""},
		"a page worse": {"text", []imageResult{newResult("page", textScore(9, 11))},
			"text of drawn pages, in any order"},
		"all faces": {"faces",
			[]imageResult{newResult("a", Score{Expected: 2, Found: 2, False: 4, AnimalFaces: 3})}, ""},
		"a face missed": {"faces", []imageResult{newResult("a", Score{Expected: 2, Found: 1})}, "faces found"},
		"two false faces": {"faces", []imageResult{newResult("a", Score{False: 2})},
			"false faces, without those of animals"},
		"four objects missed": {"objects", []imageResult{newResult("a", Score{Expected: 8, Found: 4})}, ""},
		"five objects missed": {"objects", []imageResult{newResult("a", Score{Expected: 8, Found: 3})}, "objects missed"},
		"a label missed": {"objects", []imageResult{newResult("a", Score{Expected: 1, Missed: []string{"a: dog"}})},
			"labels of objects found in their images"},
		"a false code": {"codes", []imageResult{newResult("a", Score{Expected: 1, Found: 1, False: 1})},
			"false codes"},
		"another than its lanes": {"codes", []imageResult{{}}, "results of the mesh that are those of its lanes alone"},
	} {
		targets := judge([]measured{{Pipeline: pipelineOf(tt.pipeline), results: tt.results}}, drawn)
		if got := missedNames(targets); got != tt.missed {
			t.Errorf("%s: the missed targets are %q, want %q", name, got, tt.missed)
		}
		if err := missedTargets(targets); (err != nil) != (tt.missed != "") {
			t.Errorf("%s: the error is %v, want one: %v", name, err, tt.missed != "")
		}
	}
}

func TestJudge_MissesTargetsOfUnservedPipelines(t *testing.T) {
	t.Parallel()
	for _, p := range Pipelines {
		targets := judge([]measured{{Pipeline: p, reason: "no such pipeline"}}, nil)
		for _, target := range targets[:len(targets)-1] { // the last target is of all pipelines
			if target.met {
				t.Errorf("%s: the target %s is met, want missed", p.Name, target.name)
			}
		}
	}
}

func TestAgree(t *testing.T) {
	t.Parallel()
	box := v1.Box{X: 1, Width: 2, Height: 3}
	line := v1.Region{Box: box, Score: 0.5, Label: "text", Text: "a"}
	ofMesh := line
	ofMesh.Fraction, ofMesh.Words = v1.Fraction{X: 0.1}, []v1.Word{{Text: "a"}}
	other := line
	other.Text = "b"
	problem := v1.Result{Problem: &v1.Problem{Code: v1.Damaged}}
	for name, tt := range map[string]struct {
		mesh, alone v1.Result
		want        bool
	}{
		"same":              {v1.Result{Regions: []v1.Region{ofMesh}}, v1.Result{Regions: []v1.Region{line}}, true},
		"another text":      {v1.Result{Regions: []v1.Region{ofMesh}}, v1.Result{Regions: []v1.Region{other}}, false},
		"one more":          {v1.Result{Regions: []v1.Region{ofMesh, ofMesh}}, v1.Result{Regions: []v1.Region{line}}, false},
		"nothing":           {v1.Result{Regions: []v1.Region{}}, v1.Result{}, true},
		"one has a problem": {problem, v1.Result{}, false},
		"the same problem":  {problem, problem, true},
		"another problem":   {problem, v1.Result{Problem: &v1.Problem{Code: v1.TooSlow}}, false},
	} {
		if got := agree(tt.mesh, tt.alone); got != tt.want {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}

func TestWriteBetweenMarkers(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "models.md")
	for _, old := range []string{"", "old\n"} {
		if err := os.WriteFile(file, []byte("before\n"+beginMarker+old+endMarker+"after\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := writeBetweenMarkers(file, "| new |\n"); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if want := "before\n" + beginMarker + "\n| new |\n\n" + endMarker + "after\n"; string(got) != want {
			t.Errorf("after %q: got %q, want %q", old, got, want)
		}
	}
	if err := os.WriteFile(file, []byte("no markers\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := writeBetweenMarkers(file, ""); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("the error without markers is %v, want the name of the file in it", err)
	}
}
