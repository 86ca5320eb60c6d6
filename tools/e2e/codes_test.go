package e2e

import (
	"os"
	"testing"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// TestCodes_AreRead posts an image with two QR codes and two bar codes, which were
// drawn with zint.
func TestCodes_AreRead(t *testing.T) {
	image, err := os.ReadFile("testdata/codes.png")
	if err != nil {
		t.Fatal(err)
	}
	m := start(t, nil)
	r := m.postDone(t, "?pipeline=codes", image)
	want := []struct{ label, text string }{
		{"qr-code", "https://example.com/sightmesh"},
		{"ean-13", "4006381333931"},
		{"code-128", "SM-2026-000417"},
		{"qr-code", "Grüße aus Köln"},
	}
	if len(r.Regions) != len(want) {
		t.Fatalf("%d regions, want %d: %+v", len(r.Regions), len(want), r.Regions)
	}
	for i, w := range want {
		if got := r.Regions[i].Label; got != w.label {
			t.Errorf("region %d is labelled %q, want %q", i, got, w.label)
		}
		if got := r.Regions[i].Text; got != w.text {
			t.Errorf("region %d has the text %q, want %q", i, got, w.text)
		}
	}
	switch want := "https://example.com/sightmesh\n4006381333931\nSM-2026-000417\nGrüße aus Köln\n"; {
	case r.Text == nil:
		t.Errorf("the result has no text, want %q", want)
	case *r.Text != want:
		t.Errorf("the text is %q, want %q", *r.Text, want)
	}
	if got, want := r.Regions[0].Box, (v1.Box{X: 40, Y: 40, Width: 100, Height: 100}); !isNear(got, want) {
		t.Errorf("the first code is at %+v, want %+v", got, want)
	}
	if len(r.Models) != 1 || r.Models[0].Name != "zxing-cpp" {
		t.Errorf("the models are %+v, want zxing-cpp", r.Models)
	}
}

// isNear reports whether every side of a is at most six pixels from that side of b.
func isNear(a, b v1.Box) bool {
	for _, d := range []int{a.X - b.X, a.Y - b.Y, a.X + a.Width - b.X - b.Width, a.Y + a.Height - b.Y - b.Height} {
		if max(d, -d) > 6 {
			return false
		}
	}
	return true
}
