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

// brightness is a network whose output is its input: a pixel of 255 is a probability of 1.
const brightness = `
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

// textFolder makes the folder "lines" of the model in a new folder, and returns that.
func textFolder(t *testing.T, files map[string]string) string {
	t.Helper()
	all := map[string]string{
		model.File: brightnessModel, "net.caffemodel": "\x0a\x0abrightness", "net.prototxt": brightness,
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

// brightLines is an image with these lines in white on black, as a file.
func brightLines(t *testing.T, width, height int, inside ...func(x, y int) bool) []byte {
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

func level(x0, y0, x1, y1 int) func(x, y int) bool {
	return func(x, y int) bool { return image.Pt(x, y).In(image.Rect(x0, y0, x1, y1)) }
}

// tilted is a line that falls by one pixel in two.
func tilted(x, y int) bool {
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

// TestTextNetwork_LevelAndTiltedLines cuts lines upright, in the order in which they are
// read.
func TestTextNetwork_LevelAndTiltedLines(t *testing.T) {
	t.Parallel()
	h, loaded := startModels(t, textFolder(t, nil), nil, "lines")
	if e := loaded["lines"].Error; e != "" {
		t.Fatal(e)
	}
	file := brightLines(t, 320, 320, level(20, 60, 200, 80), level(30, 20, 240, 40), tilted)
	found, crops := detectLines(t, h, file, 10)
	if len(found.Regions) != 3 {
		t.Fatalf("%d lines, want 3: %+v", len(found.Regions), found.Regions)
	}
	for i, want := range []image.Rectangle{image.Rect(30, 20, 240, 40), image.Rect(20, 60, 200, 80), image.Rect(32, 150, 200, 246)} {
		r := found.Regions[i]
		if !want.In(toRectangle(r.Box).Inset(-2)) || !toRectangle(r.Box).In(want.Inset(-16)) {
			t.Errorf("line %d is at %+v, want around %v", i, r.Box, want)
		}
		if r.Score < 0.9 || r.Label != "text" {
			t.Errorf("line %d has the score %v and the label %q, want 1 and text", i, r.Score, r.Label)
		}
		c := found.Crops[i]
		if c.Channels != 1 || len(crops[i]) != c.Width*c.Height {
			t.Errorf("crop %d is %d x %d x %d in %d bytes, want grey", i, c.Width, c.Height, c.Channels, len(crops[i]))
		}
		if c.Height < cropMinHeight || c.Height > cropMaxHeight || c.Width < 2*c.Height {
			t.Errorf("crop %d is %d x %d, want a line as readers like it", i, c.Width, c.Height)
		}
		if middle := crops[i][c.Height/2*c.Width : (c.Height/2+1)*c.Width]; bytes.Count(middle, []byte{255}) < c.Width*7/10 {
			t.Errorf("crop %d: the row in its middle is not white: it was not cut upright", i)
		}
	}
	for i, tilted := range []bool{false, false, true} {
		if got := len(found.Regions[i].Polygon) == 4; got != tilted {
			t.Errorf("line %d has the corners %v", i, found.Regions[i].Polygon)
		}
	}
	if p := found.Regions[2].Polygon; p[0].X > 60 || p[1].X < 180 || p[1].Y < p[0].Y+70 {
		t.Errorf("the corners of the tilted line are %v, want them from the top left of its text", p)
	}
}

// TestTextNetwork_KeepsTheSurest has more lines than are wanted.
func TestTextNetwork_KeepsTheSurest(t *testing.T) {
	t.Parallel()
	h, _ := startModels(t, textFolder(t, nil), nil, "lines")
	grey := func(x, y int) bool { return level(20, 20, 200, 40)(x, y) && (x+y)%5 != 0 } // holes: less sure
	found, _ := detectLines(t, h, brightLines(t, 320, 320, level(20, 100, 200, 120), grey), 1)
	if len(found.Regions) != 1 {
		t.Fatalf("%d lines, want 1", len(found.Regions))
	}
	if y := found.Regions[0].Box.Y; y < 80 {
		t.Errorf("the line at %d was kept, want the surer one below", y)
	}
}

// TestTextNetwork_ColourCrops cuts crops of blue, green and red.
func TestTextNetwork_ColourCrops(t *testing.T) {
	t.Parallel()
	h, _ := startModels(t, textFolder(t, nil), map[string]any{"channels": "bgr"}, "lines")
	found, crops := detectLines(t, h, brightLines(t, 320, 320, level(20, 20, 200, 40), tilted), 10)
	for i, c := range found.Crops {
		if c.Channels != 3 || len(crops[i]) != 3*c.Width*c.Height {
			t.Errorf("crop %d is %d x %d x %d in %d bytes, want three channels", i, c.Width, c.Height, c.Channels, len(crops[i]))
		}
	}
}

// TestTextNetwork_AnyShape has images of which a side is nearly nothing.
func TestTextNetwork_AnyShape(t *testing.T) {
	t.Parallel()
	h, _ := startModels(t, textFolder(t, nil), nil, "lines")
	for _, size := range []image.Point{{1, 1}, {4000, 1}, {1, 4000}, {31, 33}, {2000, 700}} {
		all := func(int, int) bool { return true }
		found, _ := detectLines(t, h, brightLines(t, size.X, size.Y, all), 10)
		for _, r := range found.Regions {
			if !toRectangle(r.Box).In(image.Rectangle{Max: size}) {
				t.Errorf("%v: a line at %+v", size, r.Box)
			}
		}
	}
}

func TestTextNetwork_NamesWhatIsWrong(t *testing.T) {
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
		"not probable":    {replaced("scale: 0.00392156862745098", "scale: 1, mean: [-2]"), nil, "output out has a value of 2"},
	} {
		_, loaded := startModels(t, textFolder(t, tt.files), tt.settings, "lines")
		if got := loaded["lines"].Error; !strings.Contains(got, tt.want) {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

// TestInReadingOrder_TiltedPage reads a page that was photographed askew: the second line
// begins above the end of the first one.
func TestInReadingOrder_TiltedPage(t *testing.T) {
	t.Parallel()
	h, _ := startModels(t, textFolder(t, nil), nil, "lines")
	row := func(n int) func(x, y int) bool {
		return func(x, y int) bool {
			along, across := 4*(x-30)-(y-150), 4*(y-150)+(x-30) // rises by one pixel in four
			return along > 0 && along < 1000 && across > 160*n && across < 160*n+70
		}
	}
	found, _ := detectLines(t, h, brightLines(t, 320, 320, row(2), row(0), row(1)), 10)
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
