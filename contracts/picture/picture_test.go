package picture

import (
	"bytes"
	"errors"
	"image"
	"image/jpeg"
	"image/png"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/image/bmp"
	"golang.org/x/image/tiff"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

func encoded(t testing.TB, typ string, w, h int) []byte {
	t.Helper()
	var b bytes.Buffer
	img := image.NewGray(image.Rect(0, 0, w, h))
	var err error
	switch typ {
	case "image/jpeg":
		err = jpeg.Encode(&b, img, nil)
	case "image/png":
		err = png.Encode(&b, img)
	case "image/bmp":
		err = bmp.Encode(&b, img)
	case "image/tiff":
		err = tiff.Encode(&b, img, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// still is a WebP file of one pixel, which the standard library cannot write.
var still = []byte("RIFF\x1a\x00\x00\x00WEBPVP8L\x0d\x00\x00\x00\x2f\x00\x00\x00\x10\x07\x10\x11\x11\x88\x88\xfe\x07\x00")

func TestEveryTypeIsKnown(t *testing.T) {
	t.Parallel()
	for _, typ := range Types() {
		data, w, h := still, 1, 1
		if typ != "image/webp" {
			w, h = 40, 30
			data = encoded(t, typ, w, h)
		}
		if got, err := Inspect(data, DefaultLimits()); err != nil || got != (Header{typ, w, h}) {
			t.Errorf("%s: got %v, %v", typ, got, err)
		}
		if _, err := Inspect(data[:len(data)/3], DefaultLimits()); typ == "image/tiff" && code(err) != v1.Damaged {
			t.Errorf("%s cut off: %v", typ, err)
		}
	}
}

func code(err error) v1.Code {
	var p *v1.Problem
	if errors.As(err, &p) {
		return p.Code
	}
	return ""
}

func TestLimits(t *testing.T) {
	t.Parallel()
	pic := encoded(t, "image/png", 100, 50)
	scan := encoded(t, "image/jpeg", 8, 8)
	sos := bytes.Index(scan, []byte{0xff, 0xda})
	many := bytes.Clone(scan[:sos])
	for range 10 {
		many = append(many, scan[sos:len(scan)-2]...)
	}
	for _, tt := range []struct {
		name string
		data []byte
		lim  Limits
		want v1.Code
	}{
		{"within", pic, Limits{MaxBytes: int64(len(pic)), MaxSide: 100, MaxPixels: 5000, MaxScans: 1}, ""},
		{"none", pic, Limits{}, ""},
		{"bytes", pic, Limits{MaxBytes: int64(len(pic)) - 1}, v1.TooLarge},
		{"side", pic, Limits{MaxSide: 99}, v1.TooManyPixels},
		{"pixels", pic, Limits{MaxPixels: 4999}, v1.TooManyPixels},
		{"scans", many, Limits{MaxScans: 9}, v1.TooManyScans},
		{"as many scans as allowed", many, Limits{MaxScans: 10}, ""},
		{"empty", nil, Limits{}, v1.EmptyBody},
		{"text", []byte("BMW is a car"), Limits{}, v1.UnsupportedType},
		{"gif", []byte("GIF89a\x01\x00\x01\x00"), Limits{}, v1.UnsupportedType},
		{"only a beginning", []byte("\xff\xd8\xff"), Limits{}, v1.Damaged},
	} {
		_, err := Inspect(tt.data, tt.lim)
		if code(err) != tt.want {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
		var p *v1.Problem
		if errors.As(err, &p) && (tt.want == v1.TooLarge || tt.want == v1.TooManyPixels || tt.want == v1.TooManyScans) && p.Limit == 0 {
			t.Errorf("%s: the limit is not named: %+v", tt.name, p)
		}
	}
}

// TestHostileFiles: what must not reach a decoder is stopped by its header.
func TestHostileFiles(t *testing.T) {
	t.Parallel()
	dir := "../../../shared/realdata/hostile/images"
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("no real data: %v", err)
	}
	for name, want := range map[string]v1.Code{
		"bomb_bmp_50000x50000.bmp": v1.TooManyPixels, "bomb_hdr.hdr": v1.UnsupportedType, "bomb_jpeg_30000x30000.jpg": v1.TooManyPixels,
		"bomb_pam.pam": v1.UnsupportedType, "bomb_png_header_40000x40000.png": v1.TooManyPixels, "bomb_png_real_1bit_20000x20000.png": v1.TooManyPixels,
		"bomb_ppm_40000x40000.ppm": v1.UnsupportedType, "bomb_tiff_40000x40000.tif": v1.TooManyPixels, "pfm_bad.pfm": v1.UnsupportedType,
		"sunraster_bomb.ras": v1.UnsupportedType, "slow_progressive_4000x4000_1500_scans.jpg": v1.TooManyScans, "wide_60000x1.png": v1.TooManyPixels,
		"animated.gif": v1.UnsupportedType, "zero_byte.jpg": v1.EmptyBody, "zero_size.png": v1.Damaged, "float32.tif": v1.UnsupportedType,
		"dicom_magic_only.dcm": v1.UnsupportedType, "nitf_magic_only.ntf": v1.UnsupportedType, "progressive.jpg": "", "cmyk.jpg": "", "lossless.webp": "",
		"gray_16bit.png": "", "palette.png": "", "plain.bmp": "", "plain.tif": "", "exif_corrupt.jpg": "", "trailing_garbage.jpg": "",
	} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Inspect(data, DefaultLimits()); code(err) != want {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
}

func FuzzInspect(f *testing.F) {
	for _, typ := range []string{"image/jpeg", "image/png", "image/bmp", "image/tiff"} {
		f.Add(encoded(f, typ, 9, 7))
	}
	f.Add(still)
	lim := DefaultLimits()
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := Inspect(data, lim)
		if err != nil {
			if code(err) == "" {
				t.Errorf("an error that is no problem: %v", err)
			}
			return
		}
		if h.Width < 1 || h.Height < 1 || h.Width > lim.MaxSide || h.Height > lim.MaxSide || h.Width*h.Height > lim.MaxPixels || TypeOf(data) != h.Type {
			t.Errorf("let through %v", h)
		}
	})
}

func BenchmarkInspect(b *testing.B) {
	pic := encoded(b, "image/jpeg", 1200, 800)
	b.SetBytes(int64(len(pic)))
	for b.Loop() {
		if _, err := Inspect(pic, DefaultLimits()); err != nil {
			b.Fatal(err)
		}
	}
}
