package codes

import (
	"encoding/base64"
	"image"
	"image/color"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/boombuler/barcode"
	"github.com/boombuler/barcode/aztec"
	"github.com/boombuler/barcode/codabar"
	"github.com/boombuler/barcode/code128"
	"github.com/boombuler/barcode/code39"
	"github.com/boombuler/barcode/code93"
	"github.com/boombuler/barcode/datamatrix"
	"github.com/boombuler/barcode/ean"
	"github.com/boombuler/barcode/qr"
	"github.com/boombuler/barcode/twooffive"
	"gocv.io/x/gocv"
)

// whiteImage returns a white image. The caller closes it.
func whiteImage(width, height int) gocv.Mat {
	return gocv.NewMatWithSizeFromScalar(gocv.NewScalar(255, 0, 0, 0), height, width, gocv.MatTypeCV8U)
}

// drawCode draws a code in black on white, with a margin. module is the size of its modules in
// pixels.
func drawCode(t testing.TB, b barcode.Barcode, err error, module int) gocv.Mat {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	size := b.Bounds().Size()
	if b.Metadata().Dimensions == 1 {
		size.Y = 40
	}
	margin := 12 * module
	m := whiteImage(size.X*module+2*margin, size.Y*module+2*margin)
	t.Cleanup(func() { m.Close() })
	for y := range size.Y * module {
		for x := range size.X * module {
			at := b.Bounds().Min.Add(image.Pt(x/module, y/module))
			if b.Metadata().Dimensions == 1 {
				at.Y = b.Bounds().Min.Y
			}
			if r, _, _, _ := b.At(at.X, at.Y).RGBA(); r == 0 {
				m.SetUCharAt(y+margin, x+margin, 0)
			}
		}
	}
	return m
}

func drawQR(t testing.TB, text string, module int) gocv.Mat {
	t.Helper()
	b, err := qr.Encode(text, qr.M, qr.Unicode)
	return drawCode(t, b, err, module)
}

func drawEAN(t testing.TB, digits string, module int) gocv.Mat {
	t.Helper()
	b, err := ean.Encode(digits)
	return drawCode(t, b, err, module)
}

// readAll reads codes of all formats in an image.
func readAll(t testing.TB, grey gocv.Mat) []Code {
	t.Helper()
	r, err := NewReader()
	if err != nil {
		t.Fatal(err)
	}
	found, err := r.Read(grey)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// contents returns format and text of each code, sorted.
func contents(found []Code) []string {
	var all []string
	for _, c := range found {
		all = append(all, c.Format+" "+c.Text)
	}
	slices.Sort(all)
	return all
}

func TestReader_ReadsFormats(t *testing.T) {
	t.Parallel()
	encoded := func(b barcode.Barcode, err error) gocv.Mat { return drawCode(t, b, err, 3) }
	// ZXing cannot read the output of the Go encoders; this image was made with zint.
	pdf := gocv.IMRead("testdata/pdf417.png", gocv.IMReadGrayScale)
	defer pdf.Close()
	for want, m := range map[string]gocv.Mat{
		"qr-code Grüße, 東京":                                encoded(qr.Encode("Grüße, 東京", qr.M, qr.Unicode)),
		"data-matrix SM-0417":                              encoded(datamatrix.Encode("SM-0417")),
		"aztec ticket 9917":                                encoded(aztec.Encode([]byte("ticket 9917"), 33, 0)),
		"pdf417 M1DOE/JOHN E7QX3ZA CPHARNSK 0123 213Y012C": pdf,
		"ean-13 4006381333931":                             encoded(ean.Encode("4006381333931")),
		"ean-8 96385074":                                   encoded(ean.Encode("96385074")),
		"code-128 SM-2026-000":                             encoded(code128.Encode("SM-2026-000")),
		"code-39 SIGHT-39":                                 encoded(code39.Encode("SIGHT-39", false, false)),
		"code-93 SIGHT-93":                                 encoded(code93.Encode("SIGHT-93", true, false)),
		"itf 12345678901231":                               encoded(twooffive.Encode("12345678901231", true)),
		"upc-a 036000291452":                               encoded(ean.Encode("0036000291452")),
		"data-matrix 0104\x1d10AB":                         encoded(datamatrix.Encode("0104\x1d10AB")),
		"aztec café":                                       encoded(aztec.Encode([]byte("caf\xe9"), 33, 0)), // ISO 8859-1
	} {
		if got := contents(readAll(t, m)); !slices.Equal(got, []string{want}) {
			t.Errorf("read %q, want %q", got, want)
		}
	}
	b, err := codabar.Encode("A40156B")
	got := contents(readAll(t, drawCode(t, b, err, 3)))
	// Version 1.4 leaves out the first and the last character.
	if !slices.Equal(got, []string{"codabar 40156"}) && !slices.Equal(got, []string{"codabar A40156B"}) {
		t.Errorf("read %q, want codabar A40156B", got)
	}
}

// rotateQuarters returns an image rotated clockwise by quarter turns.
func rotateQuarters(t testing.TB, m gocv.Mat, quarters int) gocv.Mat {
	t.Helper()
	out := m.Clone()
	t.Cleanup(func() { out.Close() })
	for range quarters {
		gocv.Rotate(out, &out, gocv.Rotate90Clockwise)
	}
	return out
}

func TestReader_CornersTurnWithTheCode(t *testing.T) {
	t.Parallel()
	const module, margin = 4, 48
	for name, m := range map[string]gocv.Mat{
		"qr-code": drawQR(t, "https://example.com/", module),
		"ean-13":  drawEAN(t, "4006381333931", module),
	} {
		right, bottom := m.Cols()-margin, m.Rows()-margin
		corners := []image.Point{{margin, margin}, {right, margin}, {right, bottom}, {margin, bottom}}
		height := m.Rows()
		for quarters := range 4 {
			found := readAll(t, rotateQuarters(t, m, quarters))
			if len(found) != 1 {
				t.Fatalf("%s, %d quarters: %d codes, want 1", name, quarters, len(found))
			}
			for i, c := range found[0].Corners {
				if d := c.Sub(corners[i]); max(d.X, -d.X, d.Y, -d.Y) > 2*module {
					t.Errorf("%s, %d quarters: corner %d is at %v, want %v", name, quarters, i, c, corners[i])
				}
			}
			for i, c := range corners { // for the next quarter
				corners[i] = image.Pt(height-c.Y, c.X)
			}
			height = m.Cols() + m.Rows() - height
		}
	}
}

func TestReader_CornersOfAMirroredCodeAreClockwise(t *testing.T) {
	t.Parallel()
	m := drawQR(t, "https://example.com/", 4)
	gocv.Flip(m, &m, 1)
	found := readAll(t, m)
	if len(found) != 1 {
		t.Fatalf("%d codes, want 1", len(found))
	}
	if c := found[0].Corners; !found[0].contains(found[0].center()) {
		t.Errorf("corners %v are not clockwise", c)
	}
}

// rotateDegrees returns an image rotated clockwise by degrees around its center, on white.
func rotateDegrees(t testing.TB, m gocv.Mat, degrees float64) gocv.Mat {
	t.Helper()
	side := m.Cols() + m.Rows()
	out := whiteImage(side, side)
	t.Cleanup(func() { out.Close() })
	x, y := (side-m.Cols())/2, (side-m.Rows())/2
	middle := out.Region(image.Rect(x, y, x+m.Cols(), y+m.Rows()))
	defer middle.Close()
	m.CopyTo(&middle)
	turned := gocv.GetRotationMatrix2D(image.Pt(side/2, side/2), -degrees, 1)
	defer turned.Close()
	size := image.Pt(side, side)
	gocv.WarpAffineWithParams(out, &out, turned, size, gocv.InterpolationLinear, gocv.BorderReplicate, color.RGBA{})
	return out
}

func TestReader_ReadsAtAnyAngle(t *testing.T) {
	t.Parallel()
	b, err := code128.Encode("SM-2026-000417")
	bars := drawCode(t, b, err, 3)
	square := drawQR(t, "https://example.com/", 4)
	for degrees := 0.0; degrees < 360; degrees += 22.5 {
		got := contents(readAll(t, rotateDegrees(t, bars, degrees)))
		if !slices.Equal(got, []string{"code-128 SM-2026-000417"}) {
			t.Errorf("bars at %v degrees: read %q", degrees, got)
		}
		got = contents(readAll(t, rotateDegrees(t, square, degrees)))
		if !slices.Equal(got, []string{"qr-code https://example.com/"}) {
			t.Errorf("a QR code at %v degrees: read %q", degrees, got)
		}
	}
}

func TestReader_CornersOfTiltedBars(t *testing.T) {
	t.Parallel()
	m := rotateDegrees(t, drawEAN(t, "4006381333931", 3), 45)
	found := readAll(t, m)
	if len(found) != 1 {
		t.Fatalf("%d codes, want 1", len(found))
	}
	c := found[0].Corners
	if edge := c[1].Sub(c[0]); edge.Y < edge.X/3 || edge.X < edge.Y/3 {
		t.Errorf("the direction of the upper edge is %v, want down to the right", edge)
	}
	if d := found[0].center().Sub(image.Pt(m.Cols()/2, m.Rows()/2)); max(d.X, -d.X, d.Y, -d.Y) > 30 {
		t.Errorf("the center is off by %v", d)
	}
}

func TestReader_ReadsImagesOfLowQuality(t *testing.T) {
	t.Parallel()
	const want = "qr-code https://example.com/"
	inverted := drawQR(t, "https://example.com/", 4)
	gocv.BitwiseNot(inverted, &inverted)
	faint := drawQR(t, "https://example.com/", 4)
	gocv.Normalize(faint, &faint, 120, 140, gocv.NormMinMax)
	small := drawQR(t, "https://example.com/", 6)
	gocv.Resize(small, &small, image.Point{}, 0.25, 0.25, gocv.InterpolationArea)
	large := drawQR(t, "https://example.com/", 60)
	for name, m := range map[string]gocv.Mat{
		"light on dark": inverted, "grey on grey": faint, "modules of 1.5 pixels": small, "modules of 60 pixels": large,
	} {
		if got := contents(readAll(t, m)); !slices.Equal(got, []string{want}) {
			t.Errorf("%s: read %q, want %q", name, got, want)
		}
	}
}

// TestReader_ReadsSeveral reads a sheet with the same bar code twice. ZXing-C++ 1.4 ends the
// process when it reads such an image directly.
func TestReader_ReadsSeveral(t *testing.T) {
	t.Parallel()
	sheet := whiteImage(1600, 1100)
	defer sheet.Close()
	for i, m := range []gocv.Mat{
		drawEAN(t, "4006381333931", 5), drawEAN(t, "4006381333931", 5), drawEAN(t, "9780201379624", 5),
		drawQR(t, "one", 8), drawQR(t, "two", 8), drawQR(t, "one", 8),
	} {
		x, y := 20+(i%2)*700, 20+(i/2)*350
		at := sheet.Region(image.Rect(x, y, x+m.Cols(), y+m.Rows()))
		m.CopyTo(&at)
		at.Close()
	}
	got := contents(readAll(t, sheet))
	want := []string{
		"ean-13 4006381333931", "ean-13 4006381333931", "ean-13 9780201379624", "qr-code one", "qr-code one", "qr-code two",
	}
	if !slices.Equal(got, want) {
		t.Errorf("read %q, want %q", got, want)
	}
}

func TestReader_BinaryContentIsADataURL(t *testing.T) {
	t.Parallel()
	binary := []byte{0, 1, 2, 0xff, 0xfe, 0x80, 7, 0, 0xc3}
	b, err := aztec.Encode(binary, 33, 0)
	want := "data:application/octet-stream;base64," + base64.StdEncoding.EncodeToString(binary)
	if got := contents(readAll(t, drawCode(t, b, err, 4))); !slices.Equal(got, []string{"aztec " + want}) {
		t.Errorf("read %q, want %q", got, want)
	}
}

func TestReader_ReadsNamedFormatsOnly(t *testing.T) {
	t.Parallel()
	m := drawEAN(t, "4006381333931", 3)
	for format, want := range map[string]int{"ean-13": 1, "qr-code": 0} {
		r, err := NewReader(format)
		if err != nil {
			t.Fatal(err)
		}
		found, err := r.Read(m)
		if err != nil {
			t.Errorf("%s: %v", format, err)
		}
		if len(found) != want {
			t.Errorf("%s: read %q, want %d codes", format, contents(found), want)
		}
	}
}

func TestNewReader_NamesKnownFormats(t *testing.T) {
	t.Parallel()
	_, err := NewReader("qr-code", "qrcode")
	if err == nil {
		t.Fatal("the format qrcode was accepted")
	}
	if want := `format "qrcode" is not one of aztec, codabar, code-39, `; !strings.HasPrefix(err.Error(), want) {
		t.Errorf("the error is %q, want it to begin with %q", err, want)
	}
}

func TestReader_HostileImages(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	for _, size := range []image.Point{
		{1, 1}, {1, 5000}, {5000, 1}, {7, 300}, {8, 8}, {8, 40000}, {9, 3000}, {1500, 1000}, {9000, 9000},
	} {
		m := gocv.NewMatWithSize(size.Y, size.X, gocv.MatTypeCV8U)
		pixels, err := m.DataPtrUint8()
		if err != nil {
			t.Fatal(err)
		}
		for i := range pixels {
			pixels[i] = uint8(random.Uint32())
		}
		if got := contents(readAll(t, m)); len(got) > 0 {
			t.Errorf("codes were read in noise of %v: %q", size, got)
		}
		m.Close()
	}
}

func BenchmarkReader(b *testing.B) {
	m := drawQR(b, "https://example.com/", 8)
	for b.Loop() {
		readAll(b, m)
	}
}
