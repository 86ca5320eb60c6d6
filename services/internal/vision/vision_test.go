package vision

import (
	"bytes"
	"encoding/binary"
	"errors"
	"image"
	"image/color"
	"image/jpeg"
	"os"
	"path/filepath"
	"testing"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// corner is a picture of 64 x 32 whose upper left quarter is black.
func corner(t testing.TB) []byte {
	t.Helper()
	img := image.NewGray(image.Rect(0, 0, 64, 32))
	for y := range 32 {
		for x := range 64 {
			if x >= 32 || y >= 16 {
				img.SetGray(x, y, color.Gray{Y: 255})
			}
		}
	}
	var b bytes.Buffer
	if err := jpeg.Encode(&b, img, nil); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// withOrientation puts an EXIF segment behind the start of a JPEG file.
func withOrientation(jpg []byte, order binary.AppendByteOrder, mark string, value uint16) []byte {
	tiff := order.AppendUint16([]byte(mark), 42)
	tiff = order.AppendUint32(tiff, 8)
	tiff = order.AppendUint16(tiff, 2)
	entry := func(tag, v uint16) {
		tiff = order.AppendUint16(tiff, tag)
		tiff = order.AppendUint16(tiff, 3) // a short
		tiff = order.AppendUint32(tiff, 1)
		tiff = order.AppendUint16(tiff, v)
		tiff = order.AppendUint16(tiff, 0)
	}
	entry(0x0100, 7) // another tag before it
	entry(0x0112, value)
	tiff = order.AppendUint32(tiff, 0)
	segment := append([]byte("Exif\x00\x00"), tiff...)
	out := append([]byte{}, jpg[:2]...)
	out = binary.BigEndian.AppendUint16(append(out, 0xff, 0xe1), uint16(len(segment)+2))
	return append(append(out, segment...), jpg[2:]...)
}

// TestUpright: the black corner is where Exif 2.32 says the stored upper left
// one belongs.
func TestUpright(t *testing.T) {
	t.Parallel()
	jpg := corner(t)
	for value, want := range map[uint16]struct{ w, h, x, y int }{
		1: {64, 32, 0, 0}, 2: {64, 32, 1, 0}, 3: {64, 32, 1, 1}, 4: {64, 32, 0, 1},
		5: {32, 64, 0, 0}, 6: {32, 64, 1, 0}, 7: {32, 64, 1, 1}, 8: {32, 64, 0, 1},
	} {
		for mark, order := range map[string]binary.AppendByteOrder{"II": binary.LittleEndian, "MM": binary.BigEndian} {
			m, o, err := Decode(withOrientation(jpg, order, mark, value))
			if err != nil {
				t.Fatal(err)
			}
			if o != int(value) || m.Cols() != want.w || m.Rows() != want.h {
				t.Errorf("%d %s: %d x %d by orientation %d", value, mark, m.Cols(), m.Rows(), o)
			}
			for x := range 2 {
				for y := range 2 {
					dark := m.GetVecbAt(m.Rows()*(2*y+1)/4, m.Cols()*(2*x+1)/4)[0] < 128
					if dark != (x == want.x && y == want.y) {
						t.Errorf("%d %s: quarter %d,%d dark: %v", value, mark, x, y, dark)
					}
				}
			}
			m.Close()
		}
	}
}

func TestOrientationThatMakesNoSense(t *testing.T) {
	t.Parallel()
	jpg := corner(t)
	good := withOrientation(jpg, binary.BigEndian, "MM", 6)
	for name, data := range map[string][]byte{
		"none": jpg, "zero": withOrientation(jpg, binary.BigEndian, "MM", 0), "nine": withOrientation(jpg, binary.BigEndian, "MM", 9),
		"no TIFF": withOrientation(jpg, binary.BigEndian, "XX", 6), "cut off": good[:20], "not a JPEG": []byte("\x89PNG"), "empty": nil,
	} {
		if o := orientation(data); o != 1 {
			t.Errorf("%s: orientation %d", name, o)
		}
	}
}

func FuzzOrientation(f *testing.F) {
	f.Add(withOrientation(corner(f), binary.LittleEndian, "II", 8))
	f.Fuzz(func(t *testing.T, data []byte) {
		if o := orientation(data); o < 1 || o > 8 {
			t.Errorf("orientation %d", o)
		}
	})
}

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]v1.Code{"": v1.EmptyBody, "\xff\xd8\xff": v1.Damaged, "no picture at all": v1.Damaged} {
		_, _, err := Decode([]byte(name))
		var p *v1.Problem
		if !errors.As(err, &p) || p.Code != want {
			t.Errorf("%q: %v, want %s", name, err, want)
		}
	}
}

func TestLoadCascade(t *testing.T) {
	t.Parallel()
	c, m, err := LoadCascade("", "haarcascade_eye")
	if err != nil || m.Name != "haarcascade_eye" || m.Version == "" {
		t.Fatalf("%+v, %v", m, err)
	}
	c.Close()
	dir := t.TempDir()
	for name, content := range map[string]string{
		"broken": `<?xml version="1.0"?><opencv_storage><cascade>`, "mismatched": `<?xml version="1.0"?><opencv_storage><stageType>BOOST</stage></opencv_storage>`,
		"foreign": `<?xml version="1.0"?><opencv_storage><answer>42</answer></opencv_storage>`, "empty": "",
	} {
		if err := os.WriteFile(filepath.Join(dir, name+".xml"), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"broken", "mismatched", "foreign", "empty", "absent"} {
		if _, _, err := LoadCascade(dir, name); err == nil {
			t.Errorf("%s was loaded", name)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	jpg := corner(b)
	b.SetBytes(int64(len(jpg)))
	for b.Loop() {
		m, _, err := Decode(jpg)
		if err != nil {
			b.Fatal(err)
		}
		m.Close()
	}
}
