package detectors

import (
	"encoding/json"
	"image"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/boombuler/barcode/qr"
	"gocv.io/x/gocv"

	"github.com/sightmesh/sightmesh/lane"
)

// startCodes starts a pipeline of the kind codes with these settings.
func startCodes(t testing.TB, settings string) (*handler, lane.Loaded) {
	t.Helper()
	h := newHandler()
	setup := lane.Setup{Kind: "codes", Settings: json.RawMessage(settings)}
	out, err := h.Start(lane.Start{Pipelines: map[string]lane.Setup{"codes": setup}})
	if err != nil {
		t.Fatal(err)
	}
	return h, out["codes"]
}

// codesHandler returns a handler with a pipeline of the kind codes.
func codesHandler(t testing.TB) *handler {
	t.Helper()
	h, l := startCodes(t, "")
	if l.Error != "" {
		t.Fatal(l.Error)
	}
	if len(l.Models) != 1 {
		t.Fatalf("models %+v, want one", l.Models)
	}
	if m := l.Models[0]; m.Name != "zxing-cpp" {
		t.Errorf("the model is %s, want zxing-cpp", m.Name)
	}
	if m := l.Models[0]; m.Version == "" {
		t.Errorf("the model %s has no version", m.Name)
	}
	return h
}

const qrModule = 6 // size of the modules that drawQRCode draws, in pixels

// drawQRCode draws a QR code in colour, without a margin. The caller closes it.
func drawQRCode(t testing.TB, text string) gocv.Mat {
	t.Helper()
	b, err := qr.Encode(text, qr.M, qr.Unicode)
	if err != nil {
		t.Fatal(err)
	}
	m, err := gocv.ImageToMatRGB(b)
	if err != nil {
		t.Fatal(err)
	}
	gocv.Resize(m, &m, image.Point{}, qrModule, qrModule, gocv.InterpolationNearestNeighbor)
	return m
}

// drawSheet draws codes on a white sheet of 900 x 700 pixels.
func drawSheet(t testing.TB, codes map[image.Point]string) gocv.Mat {
	t.Helper()
	m := gocv.NewMatWithSizeFromScalar(gocv.NewScalar(255, 255, 255, 0), 700, 900, gocv.MatTypeCV8UC3)
	for at, text := range codes {
		c := drawQRCode(t, text)
		to := m.Region(image.Rectangle{Min: at, Max: at.Add(image.Pt(c.Cols(), c.Rows()))})
		c.CopyTo(&to)
		to.Close()
		c.Close()
	}
	return m
}

func encodePNG(t testing.TB, m gocv.Mat) []byte {
	t.Helper()
	b, err := gocv.IMEncode(gocv.PNGFileExt, m)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	return slices.Clone(b.GetBytes())
}

func TestCodes_RegionsAreInReadingOrder(t *testing.T) {
	t.Parallel()
	m := drawSheet(t, map[image.Point]string{
		{500, 60}: "second", {60, 50}: "first", {60, 400}: "third", {500, 410}: "fourth",
	})
	defer m.Close()
	h := codesHandler(t)
	out, pixels, err := h.Detect(lane.Detect{Pipeline: "codes", MaxRegions: 10, Crops: true}, encodePNG(t, m))
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, r := range out.Regions {
		texts = append(texts, r.Text)
		if r.Label != "qr-code" {
			t.Errorf("%s: label %q, want qr-code", r.Text, r.Label)
		}
		if r.Score != 1 {
			t.Errorf("%s: score %v, want 1", r.Text, r.Score)
		}
	}
	if want := []string{"first", "second", "third", "fourth"}; !slices.Equal(texts, want) {
		t.Errorf("texts %q, want %q", texts, want)
	}
	checkCropCount(t, out, pixels, len(out.Regions))
	if out, _, err = h.Detect(lane.Detect{Pipeline: "codes", MaxRegions: 2}, encodePNG(t, m)); err != nil {
		t.Fatal(err)
	}
	if len(out.Regions) != 2 {
		t.Errorf("%d regions, want 2, the maximum", len(out.Regions))
	}
}

// TestCodes_PolygonAndCrop reads a code that is upside down: its first corner is at the
// lower right, and its crop is upright.
func TestCodes_PolygonAndCrop(t *testing.T) {
	t.Parallel()
	m := drawSheet(t, map[image.Point]string{{100, 80}: "upside down"})
	defer m.Close()
	gocv.Rotate(m, &m, gocv.Rotate180Clockwise)
	request := lane.Detect{Pipeline: "codes", MaxRegions: 10, Crops: true}
	out, pixels, err := codesHandler(t).Detect(request, encodePNG(t, m))
	if err != nil {
		t.Fatal(err)
	}
	if len(out.Regions) != 1 {
		t.Fatalf("%d regions, want 1", len(out.Regions))
	}
	side := 21 * qrModule
	r := out.Regions[0]
	box := image.Rect(800-side, 620-side, 800, 620)
	corners := boxCorners(box)
	if len(r.Polygon) != len(corners) {
		t.Fatalf("the polygon is %v, want four corners", r.Polygon)
	}
	for i, p := range r.Polygon {
		if want := corners[(i+2)%4]; !isNear(image.Pt(p.X, p.Y), want) {
			t.Errorf("corner %d is at %v, want %v", i, p, want)
		}
	}
	if got := toRectangle(r.Box); !isNear(got.Min, box.Min) || !isNear(got.Max, box.Max) {
		t.Errorf("the box is %v, want %v", got, box)
	}
	c := out.Crops[0]
	for _, at := range []image.Point{{3, 3}, {17, 3}, {3, 17}} { // centers of its finder patterns, in modules
		x, y := at.X*c.Width/21+c.Width/42, at.Y*c.Height/21+c.Height/42
		if pixels[0][y*c.Width+x] > 127 {
			t.Errorf("the crop has no finder pattern at module %v", at)
		}
	}
}

// isNear reports whether two points are at most one module apart in each direction.
func isNear(a, b image.Point) bool {
	d := a.Sub(b)
	return max(d.X, -d.X, d.Y, -d.Y) <= qrModule
}

func TestNewPolygon_NilForTheBox(t *testing.T) {
	t.Parallel()
	box := image.Rect(10, 20, 110, 60)
	corners := boxCorners(box)
	if got := newPolygon(corners, box); got != nil {
		t.Errorf("the corners of the box are the polygon %v, want none", got)
	}
	corners[0], corners[2] = corners[2], corners[0]
	if got := newPolygon(corners, box); len(got) != 4 {
		t.Errorf("a rotated code has the polygon %v, want four corners", got)
	}
}

func TestCodes_UnknownFormat(t *testing.T) {
	t.Parallel()
	_, l := startCodes(t, `{"formats":["qr"]}`)
	want := `settings.formats: format "qr" is not one of aztec, codabar, `
	if !strings.HasPrefix(l.Error, want) {
		t.Errorf("the error is %q, want it to begin with %q", l.Error, want)
	}
}

// TestCodes_RealPhotos checks that codes are found in the photos of QR codes, and in no
// other photo.
func TestCodes_RealPhotos(t *testing.T) {
	t.Parallel()
	photos, err := filepath.Glob(filepath.Join(realdata, "photos", "*.*"))
	if err != nil {
		t.Fatal(err)
	}
	if len(photos) == 0 {
		t.Skip("no ../shared/realdata: codes was not run on its photos")
	}
	want := map[string]int{"qrcode.png": 1, "qrcodes_two.png": 2}
	h := codesHandler(t)
	for _, f := range photos {
		name := filepath.Base(f)
		if filepath.Ext(f) == ".json" {
			continue
		}
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		out, _, err := h.Detect(lane.Detect{Pipeline: "codes", MaxRegions: 100}, data)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if len(out.Regions) != want[name] {
			t.Errorf("%s: %d codes, want %d: %+v", name, len(out.Regions), want[name], out.Regions)
		}
		for _, r := range out.Regions {
			if r.Label != "qr-code" {
				t.Errorf("%s: the label is %q, want qr-code", name, r.Label)
			}
			if r.Text == "" {
				t.Errorf("%s: the code has no text", name)
			}
		}
	}
}
