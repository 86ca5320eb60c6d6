package detectors

import (
	"bytes"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/services/internal/model"
)

// brightnessNetwork is a network whose output equals its input: a pixel of 255 is a probability of
// 1.
const brightnessNetwork = `
name: "brightness"
input: "data"
input_shape { dim: 1 dim: 1 dim: 32 dim: 32 }
layer { name: "out" type: "Power" bottom: "data" top: "out" power_param { scale: 1 } }
`

const brightnessModel = `
version: "1"
kind: db-text
engines: [opencv]
weights: net.caffemodel
config: net.prototxt
input: {width: 320, height: 320, resize: letterbox, channels: grey, scale: 0.00392156862745098}
output: {pixel: 0.3, unclip: 1}
threshold: 0.5
`

// writeTextModel makes a folder of models with the model "lines". files replaces or adds files
// of the model.
func writeTextModel(t *testing.T, files map[string]string) string {
	t.Helper()
	all := map[string]string{
		model.File: brightnessModel, "net.caffemodel": "\x0a\x0abrightness", "net.prototxt": brightnessNetwork,
	}
	maps.Copy(all, files)
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "lines"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range all {
		if err := os.WriteFile(filepath.Join(root, "lines", name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// newBrightImage returns an image file that is white inside of any of these areas and black
// elsewhere.
func newBrightImage(t *testing.T, width, height int, inside ...func(x, y int) bool) []byte {
	t.Helper()
	m := image.NewRGBA(image.Rect(0, 0, width, height))
	draw.Draw(m, m.Bounds(), image.NewUniform(color.Black), image.Point{}, draw.Src)
	for y := range height {
		for x := range width {
			for _, in := range inside {
				if in(x, y) {
					m.Set(x, y, color.White)
				}
			}
		}
	}
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// levelArea returns the area of an upright line.
func levelArea(x0, y0, x1, y1 int) func(x, y int) bool {
	return func(x, y int) bool { return image.Pt(x, y).In(image.Rect(x0, y0, x1, y1)) }
}

// tiltedArea is the area of a line that falls by one pixel in two.
func tiltedArea(x, y int) bool {
	along, across := 2*(x-40)+(y-150), 2*(y-150)-(x-40)
	return along > 0 && along < 400 && across > 0 && across < 40
}

func detectLines(t *testing.T, h *handler, file []byte, most int) (lane.Detected, [][]byte) {
	t.Helper()
	found, crops, err := h.Detect(lane.Detect{Pipeline: "lines", MaxRegions: most, Crops: true}, file)
	if err != nil {
		t.Fatal(err)
	}
	return found, crops
}

// TestTextNetwork_LevelAndTiltedLines checks that lines are in reading order, and that their
// crops are upright.
func TestTextNetwork_LevelAndTiltedLines(t *testing.T) {
	t.Parallel()
	h, loaded := startModels(t, writeTextModel(t, nil), nil, "lines")
	if e := loaded["lines"].Error; e != "" {
		t.Fatal(e)
	}
	file := newBrightImage(t, 320, 320, levelArea(20, 60, 200, 80), levelArea(30, 20, 240, 40), tiltedArea)
	found, crops := detectLines(t, h, file, 10)
	if len(found.Regions) != 3 {
		t.Fatalf("%d lines, want 3: %+v", len(found.Regions), found.Regions)
	}
	for i, want := range []image.Rectangle{
		image.Rect(30, 20, 240, 40), image.Rect(20, 60, 200, 80), image.Rect(32, 150, 200, 246),
	} {
		r := found.Regions[i]
		if box := toRectangle(r.Box); !want.In(box.Inset(-2)) || !box.In(want.Inset(-16)) {
			t.Errorf("line %d is at %+v, want around %v", i, r.Box, want)
		}
		if r.Score < 0.9 {
			t.Errorf("line %d has the score %v, want 0.9 or more", i, r.Score)
		}
		if r.Label != "text" {
			t.Errorf("line %d has the label %q, want text", i, r.Label)
		}
		c := found.Crops[i]
		checkPixels(t, i, c, crops[i], 1)
		if c.Height < cropMinHeight || c.Height > cropMaxHeight {
			t.Errorf("crop %d is %d high, want %d to %d", i, c.Height, cropMinHeight, cropMaxHeight)
		}
		if c.Width < 2*c.Height {
			t.Errorf("crop %d is %d x %d, want at least twice as wide as high", i, c.Width, c.Height)
		}
		middle := crops[i][c.Height/2*c.Width : (c.Height/2+1)*c.Width]
		if n := bytes.Count(middle, []byte{255}); n < c.Width*7/10 {
			t.Errorf("crop %d: %d of %d pixels of the middle row are white: the line is not upright", i, n, c.Width)
		}
	}
	for i, tilted := range []bool{false, false, true} {
		if got := len(found.Regions[i].Polygon) == 4; got != tilted {
			t.Errorf("line %d has the corners %v", i, found.Regions[i].Polygon)
		}
	}
	p := found.Regions[2].Polygon
	if p[0].X > 60 {
		t.Errorf("the first corner of the tilted line is %v, want that at the top left of its text", p[0])
	}
	if p[1].X < 180 || p[1].Y < p[0].Y+70 {
		t.Errorf("the second corner of the tilted line is %v, want that at the top right of its text", p[1])
	}
}

// checkPixels checks the number of channels of a crop, and the size of its pixels.
func checkPixels(t *testing.T, i int, c lane.Crop, pixels []byte, channels int) {
	t.Helper()
	if c.Channels != channels {
		t.Errorf("crop %d has %d channels, want %d", i, c.Channels, channels)
	}
	if want := c.Width * c.Height * channels; len(pixels) != want {
		t.Errorf("crop %d of %d x %d pixels has %d bytes, want %d", i, c.Width, c.Height, len(pixels), want)
	}
}

// TestTextNetwork_KeepsHighestScore detects more lines than the request allows.
func TestTextNetwork_KeepsHighestScore(t *testing.T) {
	t.Parallel()
	h, _ := startModels(t, writeTextModel(t, nil), nil, "lines")
	grey := func(x, y int) bool { return levelArea(20, 20, 200, 40)(x, y) && (x+y)%5 != 0 } // a lower score
	found, _ := detectLines(t, h, newBrightImage(t, 320, 320, levelArea(20, 100, 200, 120), grey), 1)
	if len(found.Regions) != 1 {
		t.Fatalf("%d lines, want 1", len(found.Regions))
	}
	if y := found.Regions[0].Box.Y; y < 80 {
		t.Errorf("the line at %d was kept, want that with the higher score, below", y)
	}
}

// TestTextNetwork_ColourCrops checks crops of blue, green and red.
func TestTextNetwork_ColourCrops(t *testing.T) {
	t.Parallel()
	h, _ := startModels(t, writeTextModel(t, nil), map[string]any{"channels": "bgr"}, "lines")
	found, crops := detectLines(t, h, newBrightImage(t, 320, 320, levelArea(20, 20, 200, 40), tiltedArea), 10)
	checkCropCount(t, found, crops, 2)
	for i, c := range found.Crops {
		checkPixels(t, i, c, crops[i], 3)
	}
}

// TestTextNetwork_AnyShape detects in images with very short sides. The network does not find a line that is too thin.
func TestTextNetwork_AnyShape(t *testing.T) {
	t.Parallel()
	h, _ := startModels(t, writeTextModel(t, nil), nil, "lines")
	for size, want := range map[image.Point]int{
		{1, 1}: 1, {4000, 1}: 0, {1, 4000}: 0, {31, 33}: 1, {2000, 700}: 1,
	} {
		all := func(int, int) bool { return true }
		found, _ := detectLines(t, h, newBrightImage(t, size.X, size.Y, all), 10)
		if len(found.Regions) != want {
			t.Errorf("%v: %d lines, want %d", size, len(found.Regions), want)
		}
		for _, r := range found.Regions {
			if !toRectangle(r.Box).In(image.Rectangle{Max: size}) {
				t.Errorf("%v: a line at %+v", size, r.Box)
			}
		}
	}
}

func TestTextNetwork_ErrorNamesField(t *testing.T) {
	t.Parallel()
	replaced := func(old, new string) map[string]string {
		if !strings.Contains(brightnessModel, old) {
			t.Fatalf("no %q in the model", old)
		}
		return map[string]string{model.File: strings.Replace(brightnessModel, old, new, 1)}
	}
	for name, tt := range map[string]struct {
		files    map[string]string
		settings map[string]any
		want     string
	}{
		"no pixel":        {replaced("pixel: 0.3, ", ""), nil, "output.pixel: 0"},
		"no unclip":       {replaced(", unclip: 1", ""), nil, "output.unclip: 0"},
		"no threshold":    {replaced("threshold: 0.5", ""), nil, "threshold: 0"},
		"labels":          {replaced("threshold: 0.5", "threshold: 0.5\nnms: 0.3"), nil, "nms: not used"},
		"nms":             {nil, map[string]any{"nms": 0.3}, "nms: not used"},
		"square crops":    {nil, map[string]any{"square_crops": true}, "square_crops: not used"},
		"padding":         {nil, map[string]any{"padding": 0.3}, "padding: not used"},
		"crop side":       {nil, map[string]any{"crop_side": 100}, "crop_side: not used"},
		"another network": {replaced("channels: grey", "channels: bgr"), nil, "output out has the shape [1 3 320 320]"},
		"not probable": {
			replaced("scale: 0.00392156862745098", "scale: 1, mean: [-2]"), nil, "output out has a value of 2",
		},
	} {
		_, loaded := startModels(t, writeTextModel(t, tt.files), tt.settings, "lines")
		if got := loaded["lines"].Error; !strings.Contains(got, tt.want) {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

// TestSortLines_TiltedPage detects the lines of a tilted page: the second line begins
// above the end of the first one.
func TestSortLines_TiltedPage(t *testing.T) {
	t.Parallel()
	h, _ := startModels(t, writeTextModel(t, nil), nil, "lines")
	row := func(n int) func(x, y int) bool {
		return func(x, y int) bool {
			along, across := 4*(x-30)-(y-150), 4*(y-150)+(x-30) // rises by one pixel in four
			return along > 0 && along < 1000 && across > 160*n && across < 160*n+70
		}
	}
	found, _ := detectLines(t, h, newBrightImage(t, 320, 320, row(2), row(0), row(1)), 10)
	if len(found.Regions) != 3 {
		t.Fatalf("%d lines, want 3", len(found.Regions))
	}
	begin := func(r lane.Region) v1.Point { return r.Polygon[0] }
	for i := 1; i < 3; i++ {
		if a, b := begin(found.Regions[i-1]), begin(found.Regions[i]); a.Y > b.Y {
			t.Errorf("line %d begins at %v and line %d at %v, want them from the top", i-1, a, i, b)
		}
	}
}
