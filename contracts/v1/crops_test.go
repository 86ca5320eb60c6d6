package v1_test

import (
	"bytes"
	"math"
	"reflect"
	"strings"
	"testing"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// lines returns the facts and the pixels of n crops of 200 x 32 grey pixels.
func lines(n int) (v1.Crops, [][]byte) {
	m := v1.Crops{
		Image:  v1.Image{Type: "image/png", Width: 1000, Height: 800, Bytes: 4242, SHA256: strings.Repeat("0f", 32), Orientation: 1},
		Models: []v1.Model{{Name: "text-lines", Version: "1"}},
		Part:   1, Parts: 3,
	}
	var pixels [][]byte
	for i := range n {
		c := v1.Crop{Region: 8 + i, Box: v1.Box{X: 10, Y: 40 * i, Width: 200, Height: 32}, Score: 0.5, Label: "text", Width: 200, Height: 32, Channels: 1}
		m.Crops = append(m.Crops, c)
		pixels = append(pixels, bytes.Repeat([]byte{byte(i)}, c.Size()))
	}
	return m, pixels
}

func TestCropsRoundTrip(t *testing.T) {
	t.Parallel()
	m, pixels := lines(3)
	m.Crops[1].Channels = 3
	pixels[1] = bytes.Repeat([]byte("\nbg"), 200*32) // line ends among the pixels do no harm
	body, err := m.Encode(pixels...)
	if err != nil {
		t.Fatal(err)
	}
	got, gotPixels, err := v1.DecodeCrops(body)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, m) {
		t.Errorf("facts are\n%+v, want\n%+v", got, m)
	}
	if !bytes.Equal(gotPixels, bytes.Join(pixels, nil)) {
		t.Error("the pixels differ")
	}
}

func TestEncodeCropsRefuses(t *testing.T) {
	t.Parallel()
	m, pixels := lines(1)
	m.Crops[0].Score = math.NaN() // a model with a broken weight says this, JSON cannot
	if _, err := m.Encode(pixels...); err == nil {
		t.Error("Encode of a score that is not a number gave no error")
	}
}

func TestDecodeCropsRefuses(t *testing.T) {
	t.Parallel()
	const one = `"crops":[{"width":2,"height":1,"channels":1}]`
	for name, body := range map[string]string{
		"nothing":               "",
		"no line end":           `{"parts":1,` + one + `}`,
		"no JSON":               "pixels\nab",
		"null":                  "null\n",
		"no parts":              "{" + one + "}\nab",
		"a negative part":       `{"part":-1,"parts":1,` + one + "}\nab",
		"a part over the end":   `{"part":1,"parts":1,` + one + "}\nab",
		"no crops":              `{"parts":1,"crops":[]}` + "\n",
		"too few pixels":        `{"parts":1,` + one + "}\na",
		"too many pixels":       `{"parts":1,` + one + "}\nabc",
		"no width":              `{"parts":1,"crops":[{"width":0,"height":1,"channels":1}]}` + "\n",
		"a negative height":     `{"parts":1,"crops":[{"width":1,"height":-1,"channels":1}]}` + "\n",
		"two channels":          `{"parts":1,"crops":[{"width":1,"height":1,"channels":2}]}` + "\nab",
		"a side over the limit": `{"parts":1,"crops":[{"width":65537,"height":1,"channels":1}]}` + "\n",
		"sizes that overflow":   `{"parts":1,"crops":[` + strings.Repeat(`{"width":65536,"height":65536,"channels":3},`, 9) + `{"width":1,"height":1,"channels":1}]}` + "\na",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if m, _, err := v1.DecodeCrops([]byte(body)); err == nil {
				t.Errorf("DecodeCrops of %q = %+v, want an error", body, m)
			}
		})
	}
}

// Whatever is accepted agrees with its pixels and can be sent on.
func FuzzDecodeCrops(f *testing.F) {
	m, pixels := lines(2)
	body, err := m.Encode(pixels...)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(body)
	f.Add([]byte(`{"parts":1,"crops":[{"width":1,"height":1,"channels":3}]}` + "\nbgr"))
	f.Add([]byte("{}\n"))
	f.Fuzz(func(t *testing.T, body []byte) {
		m, pixels, err := v1.DecodeCrops(body)
		if err != nil {
			return
		}
		n := 0
		for _, c := range m.Crops {
			n += c.Size()
		}
		if n != len(pixels) || len(m.Crops) == 0 {
			t.Errorf("accepted %d crops of %d bytes with %d bytes of pixels", len(m.Crops), n, len(pixels))
		}
		again, err := m.Encode(pixels)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := v1.DecodeCrops(again); err != nil {
			t.Errorf("what was accepted is refused when it is sent on: %v", err)
		}
	})
}

func BenchmarkDecodeCrops(b *testing.B) {
	m, pixels := lines(8)
	body, err := m.Encode(pixels...)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := v1.DecodeCrops(body); err != nil {
			b.Fatal(err)
		}
	}
}
