package v1

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
)

func TestCrops_EncodeAndDecode(t *testing.T) {
	t.Parallel()
	m := Crops{Part: 1, Parts: 2, Image: Image{Type: "image/png"}, Crops: []Crop{
		{Region: 4, Width: 3, Height: 2, Channels: 1}, {Region: 5, Width: 1, Height: 2, Channels: 3},
	}}
	a, b := []byte("abcdef"), []byte("ghi\njk") // the pixels may contain a newline
	body, err := m.Encode(a, b)
	if err != nil {
		t.Fatal(err)
	}
	got, pixels, err := DecodeCrops(body)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, m) {
		t.Errorf("got %+v, want %+v", got, m)
	}
	if string(pixels) != "abcdefghi\njk" {
		t.Errorf("the pixels are %q", pixels)
	}
}

func TestDecodeCrops_RejectsInvalidBodies(t *testing.T) {
	t.Parallel()
	for _, body := range []string{
		"", "{}", "no json\nx", "null\n",
		`{"part":-1,"parts":1,"crops":[{"width":1,"height":1,"channels":1}]}` + "\nx",
		`{"parts":1,"crops":[{"width":1,"height":-1,"channels":1}]}` + "\n",
		`{"parts":1}` + "\n",
		`{"part":1,"parts":1,"crops":[{"width":1,"height":1,"channels":1}]}` + "\nx",
		`{"parts":1,"crops":[{"width":0,"height":1,"channels":1}]}` + "\n",
		`{"parts":1,"crops":[{"width":2,"height":1,"channels":2}]}` + "\nabcd",
		`{"parts":1,"crops":[{"width":2,"height":1,"channels":1}]}` + "\na",
		`{"parts":1,"crops":[{"width":2,"height":1,"channels":1}]}` + "\nabc",
		`{"parts":1,"crops":[{"width":65537,"height":1,"channels":1}]}` + "\n",
		`{"parts":1,"crops":[{"width":65536,"height":65536,"channels":3},` +
			`{"width":65536,"height":65536,"channels":3}]}` + "\nx",
	} {
		if m, _, err := DecodeCrops([]byte(body)); err == nil {
			t.Errorf("%.60q is decoded as %+v", body, m)
		}
	}
}

// TestCrops_EncodeRejectsNaN: a damaged model returns NaN, which JSON does not have.
func TestCrops_EncodeRejectsNaN(t *testing.T) {
	t.Parallel()
	if body, err := (Crops{Parts: 1, Crops: []Crop{{Score: math.NaN()}}}).Encode(); err == nil {
		t.Errorf("got %q", body)
	}
}

func FuzzDecodeCrops(f *testing.F) {
	f.Add([]byte(`{"parts":1,"crops":[{"width":2,"height":1,"channels":1}]}` + "\nab"))
	f.Fuzz(func(t *testing.T, body []byte) {
		m, pixels, err := DecodeCrops(body)
		if err != nil {
			return
		}
		again, err := m.Encode(pixels)
		if err != nil {
			t.Fatal(err)
		}
		n, p, err := DecodeCrops(again)
		if err != nil {
			t.Fatalf("%q encoded again is %q: %v", body, again, err)
		}
		if !bytes.Equal(p, pixels) {
			t.Errorf("%q encoded again has the pixels %q, want %q", body, p, pixels)
		}
		if len(n.Crops) != len(m.Crops) {
			t.Errorf("%q encoded again has %d crops, want %d", body, len(n.Crops), len(m.Crops))
		}
	})
}

func TestResult_OmitsEmptyFields(t *testing.T) {
	t.Parallel()
	empty := ""
	for _, tt := range []struct {
		result Result
		want   string
	}{
		{Result{ID: "a", Pipeline: "p", Status: Queued}, `{"id":"a","pipeline":"p","status":"queued"}`},
		{Result{ID: "a", Pipeline: "p", Status: Done, Regions: []Region{}},
			`{"id":"a","pipeline":"p","status":"done","regions":[]}`},
		{Result{ID: "a", Pipeline: "p", Status: Done, Regions: []Region{}, Text: &empty},
			`{"id":"a","pipeline":"p","status":"done","regions":[],"text":""}`},
	} {
		got, err := json.Marshal(tt.result)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != tt.want {
			t.Errorf("got %s, want %s", got, tt.want)
		}
	}
}

func TestBox_In(t *testing.T) {
	t.Parallel()
	got, want := Box{X: 10, Y: 20, Width: 50, Height: 100}.Fraction(100, 300), Fraction{0.1, 0.066667, 0.5, 0.333333}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	got, want = Box{X: -1, Y: -2, Width: 3, Height: 3}.Fraction(3, 3), Fraction{-0.333333, -0.666667, 1, 1}
	if got != want {
		t.Errorf("over the edge: got %+v, want %+v", got, want)
	}
	if got := (Box{Width: 1, Height: 1}).Fraction(0, 0); got != (Fraction{}) {
		t.Errorf("an image without size: got %+v, want zero", got)
	}
}

func TestProblem_IsAnError(t *testing.T) {
	t.Parallel()
	err := fmt.Errorf("work: %w", NewProblem(TooLarge, "%d bytes", 9).WithField("image").WithLimit(8))
	var p *Problem
	if !errors.As(err, &p) {
		t.Fatalf("%v does not wrap a problem", err)
	}
	if p.Limit != 8 {
		t.Errorf("the limit is %d, want 8", p.Limit)
	}
	if p.Field != "image" {
		t.Errorf("the field is %q, want image", p.Field)
	}
	if want := "too-large: 9 bytes"; !strings.Contains(err.Error(), want) {
		t.Errorf("the text is %q, want %q in it", err, want)
	}
}

func TestProblem_CutsWhatItRepeats(t *testing.T) {
	t.Parallel()
	long := "x" + strings.Repeat("é", 5000)
	p := NewProblem(UnknownField, "%s", long).WithField(long)
	if want := long[:1023]; p.Detail != want {
		t.Errorf("the detail has %d bytes, want the first %d", len(p.Detail), len(want))
	}
	if want := long[:59]; p.Field != want {
		t.Errorf("the field has %d bytes, want the first %d", len(p.Field), len(want))
	}
	fits := long[:59] + "x"
	if got := p.WithField(fits).Field; got != fits {
		t.Errorf("a field of 60 bytes is %q, want all of it", got)
	}
}

func TestNewProblem_UnknownCodeIsInternal(t *testing.T) {
	t.Parallel()
	if p := NewProblem("no-such-code", "x"); p.Code != Internal {
		t.Errorf("the code is %s, want %s", p.Code, Internal)
	}
}

func BenchmarkDecodeCrops(b *testing.B) {
	m := Crops{Parts: 1}
	var pixels [][]byte
	for i := range 8 {
		m.Crops = append(m.Crops, Crop{Region: i, Width: 500, Height: 48, Channels: 1})
		pixels = append(pixels, make([]byte, 500*48))
	}
	body, err := m.Encode(pixels...)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		if _, _, err := DecodeCrops(body); err != nil {
			b.Fatal(err)
		}
	}
}
