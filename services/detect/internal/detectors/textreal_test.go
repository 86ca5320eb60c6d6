package detectors

import (
	"image"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gocv.io/x/gocv"

	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/services/internal/model"
)

// fetchedDir is the folder into which make models downloads models.
const fetchedDir = "../../../../models"

// fetchedModel returns a folder of models with one model of the catalogue. Its weights are
// those that make models has downloaded, or those in ../shared/realdata/models. Without
// either it skips the test.
func fetchedModel(t *testing.T, name, files string) (root string) {
	t.Helper()
	m, err := model.Load(filepath.Join(catalogue, name))
	if err != nil {
		t.Fatal(err)
	}
	root = t.TempDir()
	if err := os.CopyFS(filepath.Join(root, name), os.DirFS(filepath.Join(catalogue, name))); err != nil {
		t.Fatal(err)
	}
	library, err := filepath.Abs(filepath.Join(fetchedDir, "onnxruntime"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(library); err != nil {
		t.Skipf("%s was not run without ONNX Runtime: make models fetches it", name)
	}
	if err := os.Symlink(library, filepath.Join(root, "onnxruntime")); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{filepath.Join(fetchedDir, name), filepath.Join(realdata, "models", files)} {
		weights, err := filepath.Abs(filepath.Join(dir, m.Weights))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(weights); err == nil {
			if err := os.Symlink(weights, filepath.Join(root, name, m.Weights)); err != nil {
				t.Fatal(err)
			}
			return root
		}
	}
	t.Skipf("%s was not run: make models fetches it", name)
	return ""
}

// TestTextNetwork_AgreesWithReference compares the lines with those that OpenCV's functions
// for contours and smallest rectangles find in the outputs of the same networks: the number
// of lines is equal, each overlaps its reference by 0.9, and the scores differ by at most
// 0.02.
func TestTextNetwork_AgreesWithReference(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat(realdata); err != nil {
		t.Skip("no ../shared/realdata: no network for lines of text was run")
	}
	type referenceLine struct {
		Corners [4][2]float64
		Score   float64
	}
	var reference map[string]map[string][]referenceLine
	readJSON(t, "testdata/db-text.json", &reference)
	for name, photos := range reference {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := fetchedModel(t, name, "ppocr_v3_det")
			h, loaded := startModels(t, root, nil, name)
			checkLoaded(t, loaded[name], name)
			for photo, lines := range photos {
				data, err := os.ReadFile(filepath.Join(realdata, photo))
				if err != nil {
					t.Fatal(err)
				}
				got, _, err := h.Detect(lane.Detect{Pipeline: name, MaxRegions: 1000}, data)
				if err != nil {
					t.Fatal(err)
				}
				if len(got.Regions) != len(lines) {
					t.Errorf("%s: %d lines, the reference has %d", photo, len(got.Regions), len(lines))
				}
				for _, want := range lines {
					q := want.Corners
					box := newClippedBox([4]float64{
						math.Floor(min(q[0][0], q[1][0], q[2][0], q[3][0])), math.Floor(min(q[0][1], q[1][1], q[2][1], q[3][1])),
						math.Ceil(max(q[0][0], q[1][0], q[2][0], q[3][0])), math.Ceil(max(q[0][1], q[1][1], q[2][1], q[3][1])),
					}, got.Width, got.Height)
					best := slices.MaxFunc(got.Regions, func(a, b lane.Region) int {
						return int(1e6 * (iou(a.Box, box) - iou(b.Box, box)))
					})
					if o := iou(best.Box, box); o < 0.9 {
						t.Errorf("%s: %+v overlaps %+v by %.3f, want 0.9", photo, best.Box, box, o)
						continue
					}
					if math.Abs(best.Score-want.Score) > 0.02 {
						t.Errorf("%s: the score of %+v is %v, want %v", photo, box, best.Score, want.Score)
					}
				}
			}
		})
	}
}

// densePage returns a page of 78 lines that are 9 pixels high: a rendered page, three times
// and at half its size.
func densePage(t *testing.T) []byte {
	t.Helper()
	page := gocv.IMRead(filepath.Join(realdata, "rendered/page_en.png"), gocv.IMReadColor)
	defer page.Close()
	if page.Empty() {
		t.Skip("no ../shared/realdata: no dense page was read")
	}
	gocv.Resize(page, &page, image.Point{}, 0.5, 0.5, gocv.InterpolationArea)
	dense := gocv.NewMat()
	defer dense.Close()
	gocv.Vconcat(page, page, &dense)
	gocv.Vconcat(dense, page, &dense)
	file, err := gocv.IMEncode(gocv.PNGFileExt, dense)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	return slices.Clone(file.GetBytes())
}

// TestTextNetwork_DensePage checks that each line of a dense page is found. If the input of
// the network is too small, several lines are found as one line, without an error.
func TestTextNetwork_DensePage(t *testing.T) {
	t.Parallel()
	const name, lines = "ppocr-v6-tiny-det", 78
	root := fetchedModel(t, name, "")
	page := densePage(t)
	count := func() int {
		h, loaded := startModels(t, root, nil, name)
		checkLoaded(t, loaded[name], name)
		got, _, err := h.Detect(lane.Detect{Pipeline: name, MaxRegions: 1000}, page)
		if err != nil {
			t.Fatal(err)
		}
		return len(slices.DeleteFunc(got.Regions, func(r lane.Region) bool { return r.Box.Height > 25 }))
	}
	if got := count(); got != lines {
		t.Errorf("%d lines, want %d", got, lines)
	}
	file := filepath.Join(root, name, model.File)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	small := strings.NewReplacer("width: 1920", "width: 480", "height: 1920", "height: 480").Replace(string(text))
	if err := os.WriteFile(file, []byte(small), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := count(); got == lines {
		t.Errorf("an input of 480 pixels finds all %d lines, too: this test cannot fail", got)
	}
}
