package imagefile

import (
	"bytes"
	"errors"
	"image"
	"image/jpeg"
	"image/png"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/image/bmp"
	"golang.org/x/image/tiff"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// encodeImage returns a black image of w × h pixels, encoded as a type.
func encodeImage(t testing.TB, typ string, w, h int) []byte {
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

// webpFile is a WebP file of one pixel. The standard library has no WebP encoder.
var webpFile = []byte("RIFF\x1a\x00\x00\x00WEBPVP8L\x0d\x00\x00\x00\x2f\x00\x00\x00\x10" +
	"\x07\x10\x11\x11\x88\x88\xfe\x07\x00")

func TestInspect_EveryType(t *testing.T) {
	t.Parallel()
	for _, typ := range Types() {
		data, w, h := webpFile, 1, 1
		if typ != "image/webp" {
			w, h = 40, 30
			data = encodeImage(t, typ, w, h)
		}
		got, err := Inspect(data, DefaultLimits())
		if err != nil {
			t.Errorf("%s: %v", typ, err)
			continue
		}
		if want := (Header{Type: typ, Width: w, Height: h}).String(); got.String() != want {
			t.Errorf("got %v, want %s", got, want)
		}
		if typ != "image/tiff" {
			continue
		}
		if _, err := Inspect(data[:len(data)/3], DefaultLimits()); problemCode(err) != v1.Damaged {
			t.Errorf("%s, cut off: %v, want %s", typ, err, v1.Damaged)
		}
	}
}

// problemCode returns the code of a problem, or "" for another error.
func problemCode(err error) v1.Code {
	var p *v1.Problem
	if errors.As(err, &p) {
		return p.Code
	}
	return ""
}

func TestInspect_Limits(t *testing.T) {
	t.Parallel()
	img := encodeImage(t, "image/png", 100, 50)
	scan := encodeImage(t, "image/jpeg", 8, 8)
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
		{"within", img, Limits{MaxBytes: int64(len(img)), MaxSide: 100, MaxPixels: 5000, MaxScans: 1}, ""},
		{"none", img, Limits{}, ""},
		{"bytes", img, Limits{MaxBytes: int64(len(img)) - 1}, v1.TooLarge},
		{"side", img, Limits{MaxSide: 99}, v1.TooManyPixels},
		{"pixels", img, Limits{MaxPixels: 4999}, v1.TooManyPixels},
		{"scans", many, Limits{MaxScans: 9}, v1.TooManyScans},
		{"as many scans as allowed", many, Limits{MaxScans: 10}, ""},
		{"empty", nil, Limits{}, v1.EmptyBody},
		{"text", []byte("BMW is a car"), Limits{}, v1.UnsupportedType},
		{"gif", []byte("GIF89a\x01\x00\x01\x00"), Limits{}, v1.UnsupportedType},
		{"only the first bytes", []byte("\xff\xd8\xff"), Limits{}, v1.Damaged},
	} {
		_, err := Inspect(tt.data, tt.lim)
		if problemCode(err) != tt.want {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
		var p *v1.Problem
		limited := slices.Contains([]v1.Code{v1.TooLarge, v1.TooManyPixels, v1.TooManyScans}, tt.want)
		if limited && errors.As(err, &p) && p.Limit == 0 {
			t.Errorf("%s: the problem has no limit: %+v", tt.name, p)
		}
	}
}

// TestHostileFiles checks that files that must not reach a decoder are rejected by their
// header. Damage after the header, as in truncated.png, is found only by the decoder.
func TestHostileFiles(t *testing.T) {
	t.Parallel()
	dir := "../../../../shared/realdata/hostile/images"
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Skipf("no ../shared/realdata: no hostile file was inspected: %v", err)
	}
	want := map[string]v1.Code{}
	for c, names := range map[v1.Code]string{
		"": `animated.png bad_idat.png bmp_truncated.bmp cmyk.jpg corrupt_scan.jpg exif_corrupt.jpg
			exif_orientation_3.jpg exif_orientation_6.jpg gray_16bit.png gray_alpha.png grayscale.jpg lossless.webp lossy.webp
			multipage.tif one_pixel.png palette.png plain.bmp plain.tif progressive.jpg rgb_16bit.png rgba.png rgba.webp
			rgba_fully_transparent.png slow_bitnoise_1280x720.png tiff_truncated.tif trailing_garbage.jpg truncated.png
			truncated.webp truncated_half.jpg`,
		v1.EmptyBody: `zero_byte.jpg`,
		v1.Damaged: `bad_ihdr_crc.png jpeg_magic_only.jpg jpeg_zero_width.jpg png_magic_only.png
			truncated_header.jpg zero_size.png`,
		v1.TooManyPixels: `bomb_bmp_50000x50000.bmp bomb_jpeg_30000x30000.jpg bomb_png_header_2000000x1.png
			bomb_png_header_30000x30000.png bomb_png_header_40000x40000.png bomb_png_real_1bit_20000x20000.png
			bomb_tiff_40000x40000.tif wide_60000x1.png`,
		v1.TooManyScans: `slow_progressive_4000x4000_1500_scans.jpg`,
		v1.UnsupportedType: `animated.gif animated.webp avif_like.avif bmp_negative_width.bmp bomb_hdr.hdr bomb_pam.pam
			bomb_ppm_1000000x1000000.ppm bomb_ppm_40000x40000.ppm dicom_magic_only.dcm drawing.svg dted_like.dt0
			exr_magic_only.exr float32.tif heic_like.heic icon.ico j2k_codestream_only.j2k jp2_magic_only.jp2
			nitf_magic_only.ntf one_byte.jpg pdf_as.jpg pfm_bad.pfm ppm_truncated.ppm random_4k.bin still.gif
			sunraster_bomb.ras text_as.jpg`,
	} {
		for _, name := range strings.Fields(names) {
			want[name] = c
		}
	}
	for _, f := range files {
		data, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		w, known := want[f.Name()]
		if !known {
			t.Errorf("%s is not in the list of this test", f.Name())
		}
		if _, err := Inspect(data, DefaultLimits()); known && problemCode(err) != w {
			t.Errorf("%s: %v, want %q", f.Name(), err, w)
		}
		delete(want, f.Name())
	}
	for name := range want {
		t.Errorf("%s does not exist", name)
	}
}

func FuzzInspect(f *testing.F) {
	for _, typ := range []string{"image/jpeg", "image/png", "image/bmp", "image/tiff"} {
		f.Add(encodeImage(f, typ, 9, 7))
	}
	f.Add(webpFile)
	lim := DefaultLimits()
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := Inspect(data, lim)
		if err != nil {
			if problemCode(err) == "" {
				t.Errorf("an error that is not a problem: %v", err)
			}
			return
		}
		if min(h.Width, h.Height) < 1 || max(h.Width, h.Height) > lim.MaxSide {
			t.Errorf("%v was accepted, with sides that are not 1 to %d", h, lim.MaxSide)
		}
		if h.Width*h.Height > lim.MaxPixels {
			t.Errorf("%v was accepted, with more than %d pixels", h, lim.MaxPixels)
		}
		if typ := TypeOf(data); typ != h.Type {
			t.Errorf("the type is %s, and %s in the header", typ, h.Type)
		}
	})
}

func BenchmarkInspect(b *testing.B) {
	img := encodeImage(b, "image/jpeg", 1200, 800)
	b.SetBytes(int64(len(img)))
	for b.Loop() {
		if _, err := Inspect(img, DefaultLimits()); err != nil {
			b.Fatal(err)
		}
	}
}
