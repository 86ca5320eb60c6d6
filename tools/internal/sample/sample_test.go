package sample

import (
	"image"
	"image/color"
	"testing"
)

// ink returns the number of dark pixels in r.
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
	if want := image.Pt(820, 480); b.Size() != want {
		t.Errorf("the size of the page is %v, want %v", b.Size(), want)
	}
	if len(Text()) != 6 {
		t.Errorf("Text returns %d lines, want 6", len(Text()))
	}
	// Every line is in its place, and no line touches the edge.
	for i, line := range Text() {
		base := 80 + i*64
		if n := ink(img, image.Rect(60, base-30, b.Max.X, base+10)); n < 20*len([]rune(line)) {
			t.Errorf("line %d, %q, has %d dark pixels, want at least 20 for each letter", i, line, n)
		}
	}
	if n := ink(img, b) - ink(img, b.Inset(20)); n != 0 {
		t.Errorf("%d dark pixels at the edge, want 0", n)
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
		t.Errorf("the heights are %v, want 40 more pixels for each line", heights)
	}
}

func TestFace(t *testing.T) {
	t.Parallel()
	img := Face()
	b := img.Bounds()
	if want := image.Pt(400, 400); b.Size() != want {
		t.Errorf("the size of the image is %v, want %v", b.Size(), want)
	}
	if !FaceBox().In(b) {
		t.Errorf("the face is at %v, want inside %v", FaceBox(), b)
	}
	at := func(x, y int) uint8 { return color.GrayModel.Convert(img.At(x, y)).(color.Gray).Y }
	box := FaceBox()
	middle := (box.Min.X + box.Max.X) / 2
	for dx := range box.Dx() / 2 {
		if l, r := at(middle-1-dx, 200), at(middle+dx, 200); max(l, r)-min(l, r) > 1 {
			t.Fatalf("%d pixels from the middle the face is %d on the left and %d on the right, want the same", dx, l, r)
		}
	}
	eye, nose := at(middle-32, 191), at(middle, 200)
	if eye >= nose {
		t.Errorf("the eye (%d) is not darker than the nose (%d)", eye, nose)
	}
}
