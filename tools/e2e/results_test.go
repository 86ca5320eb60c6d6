package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"image"
	"image/jpeg"
	"image/png"
	"net/http"
	"strings"
	"testing"

	"github.com/sightmesh/sightmesh/contracts/eventually"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/tools/internal/sample"
)

func samplePage(t testing.TB) []byte {
	t.Helper()
	page, err := sample.Page()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := png.Encode(&b, page); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func sampleFace(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := jpeg.Encode(&b, sample.Face(), nil); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// withoutSpaces returns s without spaces.
func withoutSpaces(s string) string { return strings.Join(strings.Fields(s), "") }

// editDistance returns the number of letters to change, add or remove to turn b
// into a, without spaces.
func editDistance(a, b string) int {
	x, y := []rune(withoutSpaces(a)), []rune(withoutSpaces(b))
	row := make([]int, len(y)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(x); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(y); j++ {
			cost := diagonal
			if x[i-1] != y[j-1] {
				cost++
			}
			diagonal = row[j]
			row[j] = min(cost, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(y)]
}

// testResults checks results that are the same on every mesh, whatever its number
// of replicas.
func testResults(t *testing.T, m *mesh) {
	t.Run("sample page", func(t *testing.T) {
		a := m.post(t, "?pipeline=text", samplePage(t))
		r := a.result
		switch {
		case a.status != http.StatusOK:
			t.Fatalf("got %v: status %v, want 200", a, a.status)
		case r.Text == nil:
			t.Fatalf("got %v: no text", a)
		}
		if want := strings.Join(sample.Text(), "\n"); editDistance(*r.Text, want) != 0 {
			t.Errorf("the text is\n%s\nwant\n%s", *r.Text, want)
		}
		switch {
		case r.Status != v1.Done:
			t.Errorf("got %s: status %v, want done", a.body, r.Status)
		case r.Pipeline != "text":
			t.Errorf(`got %s: pipeline %q, want "text"`, a.body, r.Pipeline)
		case r.Image == nil:
			t.Errorf("got %s: no image", a.body)
		case r.Image.Type != "image/png":
			t.Errorf("the image type is %q, want image/png", r.Image.Type)
		case r.Image.Width != 820:
			t.Errorf("the image width is %d, want 820", r.Image.Width)
		case r.Image.Height != 480:
			t.Errorf("the image height is %d, want 480", r.Image.Height)
		case len(r.Image.SHA256) != 64:
			t.Errorf("the SHA-256 is %q, want 64 digits", r.Image.SHA256)
		}
		switch {
		case len(r.Models) < 3:
			t.Errorf("models %+v, want at least 3", r.Models)
		case r.Timings == nil:
			t.Errorf("got %s: no timings", a.body)
		case r.Timings.Detect <= 0:
			t.Errorf("timings %+v: no time of detect", r.Timings)
		case r.Timings.Classify <= 0:
			t.Errorf("timings %+v: no time of classify", r.Timings)
		case r.Timings.Reply <= 0:
			t.Errorf("timings %+v: no time of the reply", r.Timings)
		}
		if got := a.header.Get("Server-Timing"); !strings.Contains(got, "classify;dur=") {
			t.Errorf("Server-Timing is %q, want classify in it", got)
		}
		if got := a.header.Get("Traceparent"); !strings.Contains(got, r.TraceID) {
			t.Errorf("Traceparent is %q, want the trace ID %s of the result in it", got, r.TraceID)
		}
		if len(r.TraceID) != 32 {
			t.Errorf("the trace ID is %q, want 32 digits", r.TraceID)
		}
		for _, reg := range r.Regions {
			checkBox(t, reg.Box, v1.Box{Width: r.Image.Width, Height: r.Image.Height})
			switch {
			case len(reg.Words) == 0:
				t.Errorf("region %+v: no words", reg)
			case reg.Score < 0.5:
				t.Errorf("region %+v: score %v, want at least 0.5", reg, reg.Score)
			case reg.Label != "text":
				t.Errorf("region %+v: label %q, want text", reg, reg.Label)
			case reg.Fraction.Width <= 0 || reg.Fraction.Width > 1:
				t.Errorf("region %+v: width %v as a fraction, want more than 0 and at most 1", reg, reg.Fraction.Width)
			}
			for _, w := range reg.Words {
				checkBox(t, w.Box, v1.Box{X: reg.Box.X - 1, Y: reg.Box.Y - 1, Width: reg.Box.Width + 2, Height: reg.Box.Height + 2})
			}
		}
	})
	t.Run("sample face", func(t *testing.T) {
		r := m.postDone(t, "?pipeline=faces", sampleFace(t))
		switch {
		case len(r.Regions) != 1:
			t.Fatalf("result %+v: %d regions, want 1", r, len(r.Regions))
		case r.Regions[0].Label != "face":
			t.Fatalf("the region has the label %q, want face", r.Regions[0].Label)
		case r.Text != nil:
			t.Fatalf("the result has the text %q, want none", *r.Text)
		}
		want := sample.FaceBox()
		b := r.Regions[0].Box
		if centre := image.Pt(b.X+b.Width/2, b.Y+b.Height/2); !centre.In(want) {
			t.Errorf("the face is at %+v, want its centre %v in %v", b, centre, want)
		}
		if !hasLabel(r.Regions[0], "eyes-open") {
			t.Errorf("labels %v, want eyes-open", r.Regions[0].Labels)
		}
	})
	t.Run("nothing found", func(t *testing.T) {
		a := m.post(t, "?pipeline=faces", samplePage(t))
		switch {
		case a.status != http.StatusOK:
			t.Errorf("got %v: status %d, want 200", a, a.status)
		case !bytes.Contains(a.body, []byte(`"regions":[]`)):
			t.Errorf("got %v, want an empty list of regions", a)
		}
	})
	t.Run("asynchronous", func(t *testing.T) {
		a := m.post(t, "?pipeline=text&priority=bulk", samplePage(t), "Prefer", "respond-async")
		switch {
		case a.status != http.StatusAccepted:
			t.Fatalf("got %v: status %d, want 202", a, a.status)
		case a.header.Get("Preference-Applied") != "respond-async":
			t.Fatalf("Preference-Applied is %q, want respond-async", a.header.Get("Preference-Applied"))
		case a.header.Get("Location") != "/v1/images/"+a.result.ID:
			t.Fatalf("Location is %s, want /v1/images/%s", a.header.Get("Location"), a.result.ID)
		}
		eventually.Succeeds(t, responseTimeout, func() error {
			got := m.get(t, a.header.Get("Location"))
			switch {
			case got.status != http.StatusOK:
				t.Fatalf("GET %s: %v", a.header.Get("Location"), got)
			case got.result.Status != v1.Done:
				return fmt.Errorf("%v", got)
			}
			return nil
		})
	})
	t.Run("concurrent images", func(t *testing.T) { testConcurrentImages(t, m) })
	t.Run("English pages", func(t *testing.T) {
		for _, name := range []string{"line_en", "line_en_invoice", "page_en"} {
			r := m.postDone(t, "?pipeline=text", readRealdata(t, "rendered/"+name+".png"))
			if n := editDistance(*r.Text, string(readRealdata(t, "rendered/"+name+".txt"))); n != 0 {
				t.Errorf("%s: %d letters are wrong in\n%s", name, n, *r.Text)
			}
		}
	})
	t.Run("Chinese pages", func(t *testing.T) {
		var reference struct {
			Runs []struct{ File, Lang, Text string }
		}
		if err := json.Unmarshal(readRealdata(t, "reference/tesseract.json"), &reference); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"line_zh", "line_zh_mixed", "page_zh"} {
			want := string(readRealdata(t, "rendered/"+name+".txt"))
			r := m.postDone(t, "?pipeline=text", readRealdata(t, "rendered/"+name+".png"))
			most := -1
			for _, run := range reference.Runs {
				if run.File == name+".png" {
					most = editDistance(run.Text, want)
				}
			}
			if n := editDistance(*r.Text, want); n > most {
				t.Errorf("%s: %d letters are wrong, the reference has %d:\n%s", name, n, most, *r.Text)
			}
		}
	})
	t.Run("faces in photos", func(t *testing.T) {
		var reference struct{ Photos map[string][][4]int }
		if err := json.Unmarshal(readRealdata(t, "reference/haar_frontalface_alt2.json"), &reference); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"family_six", "team_ten", "beach_four"} {
			var want struct{ Faces struct{ Boxes [][4]int } }
			if err := json.Unmarshal(readRealdata(t, "photos/"+name+".expected.json"), &want); err != nil {
				t.Fatal(err)
			}
			r := m.postDone(t, "?pipeline=faces", readRealdata(t, "photos/"+name+".jpg"))
			found := 0
			for _, face := range want.Faces.Boxes {
				for _, reg := range r.Regions {
					x, y := reg.Box.X+reg.Box.Width/2, reg.Box.Y+reg.Box.Height/2
					if x > face[0] && x < face[2] && y > face[1] && y < face[3] {
						found++
						break
					}
				}
			}
			switch {
			case found != len(want.Faces.Boxes):
				t.Errorf("%s: found %d of %d faces", name, found, len(want.Faces.Boxes))
			case len(r.Regions) > len(reference.Photos[name+".jpg"]):
				t.Errorf("%s: %d regions, want at most %d as in the reference",
					name, len(r.Regions), len(reference.Photos[name+".jpg"]))
			}
		}
	})
	t.Run("EXIF orientation", func(t *testing.T) {
		for name, orientation := range map[string]int{"exif_Landscape_1": 1, "exif_Landscape_6": 6} {
			r := m.postDone(t, "?pipeline=faces", readRealdata(t, "photos/"+name+".jpg"))
			if got, want := image.Pt(r.Image.Width, r.Image.Height), image.Pt(1800, 1200); got != want {
				t.Errorf("%s: the size is %v, want %v", name, got, want)
			}
			if r.Image.Orientation != orientation {
				t.Errorf("%s: the orientation is %d, want %d", name, r.Image.Orientation, orientation)
			}
		}
	})
}

func hasLabel(r v1.Region, name string) bool {
	for _, l := range r.Labels {
		if l.Label == name {
			return true
		}
	}
	return false
}

func checkBox(t *testing.T, b, within v1.Box) {
	t.Helper()
	rect := func(b v1.Box) image.Rectangle { return image.Rect(b.X, b.Y, b.X+b.Width, b.Y+b.Height) }
	if b.Width <= 0 || b.Height <= 0 {
		t.Errorf("box %+v is empty", b)
	} else if !rect(b).In(rect(within)) {
		t.Errorf("box %+v is not inside %+v", b, within)
	}
}
