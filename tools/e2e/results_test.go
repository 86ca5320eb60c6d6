package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"image/jpeg"
	"image/png"
	"net/http"
	"strings"
	"testing"

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

// letters is s without spaces.
func letters(s string) string { return strings.Join(strings.Fields(s), "") }

// wrongArguments counts the letters that have to be changed, added or removed to make
// a of b, spaces not counted.
func wrongArguments(a, b string) int {
	x, y := []rune(letters(a)), []rune(letters(b))
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

// testResults is what every mesh has to answer, however many replicas it has.
func testResults(t *testing.T, m *mesh) {
	t.Run("sample page", func(t *testing.T) {
		a := m.post(t, "?pipeline=text", samplePage(t))
		r := a.result
		if a.status != http.StatusOK || r.Text == nil {
			t.Fatalf("got %v", a)
		}
		if want := strings.Join(sample.Text(), "\n"); wrongArguments(*r.Text, want) != 0 {
			t.Errorf("read\n%s\nwant\n%s", *r.Text, want)
		}
		if r.Status != v1.Done || r.Pipeline != "text" || r.Image == nil || r.Image.Type != "image/png" || r.Image.Width != 820 || r.Image.Height != 480 || len(r.Image.SHA256) != 64 {
			t.Errorf("got %s", a.body)
		}
		if len(r.Models) < 3 || r.Timings == nil || r.Timings.Detect <= 0 || r.Timings.Classify <= 0 || r.Timings.Reply <= 0 {
			t.Errorf("models %v, timings %+v", r.Models, r.Timings)
		}
		if !strings.Contains(a.header.Get("Server-Timing"), "classify;dur=") || !strings.Contains(a.header.Get("Traceparent"), r.TraceID) || len(r.TraceID) != 32 {
			t.Errorf("header %v, trace %s", a.header, r.TraceID)
		}
		for _, reg := range r.Regions {
			checkBox(t, reg.Box, v1.Box{Width: r.Image.Width, Height: r.Image.Height})
			if len(reg.Words) == 0 || reg.Score < 0.5 || reg.Label != "text" || reg.Fraction.Width <= 0 || reg.Fraction.Width > 1 {
				t.Errorf("region %+v", reg)
			}
			for _, w := range reg.Words {
				checkBox(t, w.Box, v1.Box{X: reg.Box.X - 1, Y: reg.Box.Y - 1, Width: reg.Box.Width + 2, Height: reg.Box.Height + 2})
			}
		}
	})
	t.Run("sample face", func(t *testing.T) {
		r := m.postDone(t, "?pipeline=faces", sampleFace(t))
		if len(r.Regions) != 1 || r.Regions[0].Label != "face" || r.Text != nil {
			t.Fatalf("got %+v, want one face", r)
		}
		want := sample.FaceBox()
		b := r.Regions[0].Box
		if cx, cy := b.X+b.Width/2, b.Y+b.Height/2; cx < want.Min.X || cx > want.Max.X || cy < want.Min.Y || cy > want.Max.Y {
			t.Errorf("face at %+v, want the middle in %v", b, want)
		}
		if !hasLabel(r.Regions[0], "eyes-open") {
			t.Errorf("labels %v, want eyes-open", r.Regions[0].Labels)
		}
	})
	t.Run("nothing found", func(t *testing.T) {
		a := m.post(t, "?pipeline=faces", samplePage(t))
		if a.status != http.StatusOK || !bytes.Contains(a.body, []byte(`"regions":[]`)) {
			t.Errorf("got %v, want an empty list", a)
		}
	})
	t.Run("asynchronous", func(t *testing.T) {
		a := m.post(t, "?pipeline=text&priority=bulk", samplePage(t), "Prefer", "respond-async")
		if a.status != http.StatusAccepted || a.header.Get("Preference-Applied") != "respond-async" || a.header.Get("Location") != "/v1/images/"+a.result.ID {
			t.Fatalf("got %v %v", a, a.header)
		}
		eventually(t, timeoutAnswer, func() error {
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
	t.Run("all answers are of their own image", func(t *testing.T) { testOwnAnswers(t, m) })
	t.Run("English pages", func(t *testing.T) {
		for _, name := range []string{"line_en", "line_en_invoice", "page_en"} {
			r := m.postDone(t, "?pipeline=text", realdata(t, "rendered/"+name+".png"))
			if n := wrongArguments(*r.Text, string(realdata(t, "rendered/"+name+".txt"))); n != 0 {
				t.Errorf("%s: %d letters are wrong in\n%s", name, n, *r.Text)
			}
		}
	})
	t.Run("Chinese pages", func(t *testing.T) {
		var reference struct {
			Runs []struct{ File, Lang, Text string }
		}
		if err := json.Unmarshal(realdata(t, "reference/tesseract.json"), &reference); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"line_zh", "line_zh_mixed", "page_zh"} {
			want := string(realdata(t, "rendered/"+name+".txt"))
			r := m.postDone(t, "?pipeline=text", realdata(t, "rendered/"+name+".png"))
			most := -1
			for _, run := range reference.Runs {
				if run.File == name+".png" {
					most = wrongArguments(run.Text, want)
				}
			}
			if n := wrongArguments(*r.Text, want); n > most {
				t.Errorf("%s: %d letters are wrong, the reference has %d:\n%s", name, n, most, *r.Text)
			}
		}
	})
	t.Run("faces in photos", func(t *testing.T) {
		var reference struct{ Photos map[string][][4]int }
		if err := json.Unmarshal(realdata(t, "reference/haar_frontalface_alt2.json"), &reference); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"family_six", "team_ten", "beach_four"} {
			var want struct{ Faces struct{ Boxes [][4]int } }
			if err := json.Unmarshal(realdata(t, "photos/"+name+".expected.json"), &want); err != nil {
				t.Fatal(err)
			}
			r := m.postDone(t, "?pipeline=faces", realdata(t, "photos/"+name+".jpg"))
			found := 0
			for _, face := range want.Faces.Boxes {
				for _, reg := range r.Regions {
					if x, y := reg.Box.X+reg.Box.Width/2, reg.Box.Y+reg.Box.Height/2; x > face[0] && x < face[2] && y > face[1] && y < face[3] {
						found++
						break
					}
				}
			}
			if found != len(want.Faces.Boxes) || len(r.Regions) > len(reference.Photos[name+".jpg"]) {
				t.Errorf("%s: found %d of %d faces with %d regions, the reference has %d", name, found, len(want.Faces.Boxes), len(r.Regions), len(reference.Photos[name+".jpg"]))
			}
		}
	})
	t.Run("EXIF orientation", func(t *testing.T) {
		for name, orientation := range map[string]int{"exif_Landscape_1": 1, "exif_Landscape_6": 6} {
			r := m.postDone(t, "?pipeline=faces", realdata(t, "photos/"+name+".jpg"))
			if r.Image.Width != 1800 || r.Image.Height != 1200 || r.Image.Orientation != orientation {
				t.Errorf("%s: %+v, want 1800 x 1200 by orientation %d", name, r.Image, orientation)
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
	if b.Width <= 0 || b.Height <= 0 || b.X < within.X || b.Y < within.Y || b.X+b.Width > within.X+within.Width || b.Y+b.Height > within.Y+within.Height {
		t.Errorf("box %+v is not in %+v", b, within)
	}
}
