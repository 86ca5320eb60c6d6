package sample

import (
	"image"
	"image/color"
	"testing"
)

// ink counts the pixels of r that are darker than paper.
func ink(img image.Image, r image.Rectangle) int {
	n := 0
	for y := r.Min.Y; y < r.Max.Y; y++ {
		for x := r.Min.X; x < r.Max.X; x++ {
			if color.GrayModel.Convert(img.At(x, y)).(color.Gray).Y < 128 {
				n++
			}
		}
	}
	return n
}

func TestPage(t *testing.T) {
	t.Parallel()
	img, err := Page()
	if err != nil {
		t.Fatal(err)
	}
	b := img.Bounds()
	switch {
	case b.Dx() != 820:
		t.Errorf("the page is %v: Dx() %v, want 820", b, b.Dx())
	case b.Dy() != 480:
		t.Errorf("the page is %v: Dy() %v, want 480", b, b.Dy())
	}
	if len(Text()) != 6 {
		t.Errorf("%d lines are said to be on it", len(Text()))
	}
	// Every line is where it should be, and nothing touches the edge.
	for i, line := range Text() {
		base := 80 + i*64
		if n := ink(img, image.Rect(60, base-30, b.Max.X, base+10)); n < 20*len([]rune(line)) {
			t.Errorf("line %d, %q, has %d dark pixels", i, line, n)
		}
	}
	if n := ink(img, b) - ink(img, b.Inset(20)); n != 0 {
		t.Errorf("%d dark pixels at the edge", n)
	}
}

func TestLongPage_Grows(t *testing.T) {
	t.Parallel()
	heights := map[int]int{}
	for _, n := range []int{1, 50} {
		img, err := LongPage(n)
		if err != nil {
			t.Fatal(err)
		}
		heights[n] = img.Bounds().Dy()
		last := 80 + (n-1)*40
		if ink(img, image.Rect(60, last-20, 820, last+6)) == 0 {
			t.Errorf("the last of %d lines is not drawn", n)
		}
	}
	if heights[50]-heights[1] != 49*40 {
		t.Errorf("heights are %v, want 40 pixels a line", heights)
	}
}

func TestFace(t *testing.T) {
	t.Parallel()
	img := Face()
	switch b := img.Bounds(); {
	case b.Dx() != 400:
		t.Errorf("the image is %v, the face %v: Dx() %v, want 400", b, FaceBox(), b.Dx())
	case b.Dy() != 400:
		t.Errorf("the image is %v, the face %v: Dy() %v, want 400", b, FaceBox(), b.Dy())
	case !FaceBox().In(b):
		t.Errorf("the image is %v, the face %v: want FaceBox().In(b)", b, FaceBox())
	}
	at := func(x, y int) uint8 { return color.GrayModel.Convert(img.At(x, y)).(color.Gray).Y }
	box := FaceBox()
	middle := (box.Min.X + box.Max.X) / 2
	for dx := range box.Dx() / 2 {
		if l, r := at(middle-1-dx, 200), at(middle+dx, 200); max(l, r)-min(l, r) > 1 {
			t.Fatalf("%d pixels from the middle it is %d on the left and %d on the right", dx, l, r)
		}
	}
	eye, nose := at(middle-32, 191), at(middle, 200)
	if eye >= nose {
		t.Errorf("the eye (%d) is not darker than the nose (%d)", eye, nose)
	}
}
