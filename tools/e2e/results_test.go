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
		switch {
		case a.status != http.StatusOK:
			t.Fatalf("got %v: status %v, want 200", a, a.status)
		case r.Text == nil:
			t.Fatalf("got %v: no text", a)
		}
		if want := strings.Join(sample.Text(), "\n"); wrongArguments(*r.Text, want) != 0 {
			t.Errorf("read\n%s\nwant\n%s", *r.Text, want)
		}
		switch {
		case r.Status != v1.Done:
			t.Errorf("got %s: status %v, want done", a.body, r.Status)
		case r.Pipeline != "text":
			t.Errorf(`got %s: pipeline %q, want "text"`, a.body, r.Pipeline)
		case r.Image == nil:
			t.Errorf("got %s: no image", a.body)
		case r.Image.Type != "image/png":
			t.Errorf(`got %s: Image.Type %q, want "image/png"`, a.body, r.Image.Type)
		case r.Image.Width != 820:
			t.Errorf("got %s: Image.Width %v, want 820", a.body, r.Image.Width)
		case r.Image.Height != 480:
			t.Errorf("got %s: Image.Height %v, want 480", a.body, r.Image.Height)
		case len(r.Image.SHA256) != 64:
			t.Errorf("got %s: %d Image.SHA256, want 64", a.body, len(r.Image.SHA256))
		}
		switch {
		case len(r.Models) < 3:
			t.Errorf("models %v, timings %+v: %d models, want at least 3", r.Models, r.Timings, len(r.Models))
		case r.Timings == nil:
			t.Errorf("models %v, timings %+v: no timings", r.Models, r.Timings)
		case r.Timings.Detect <= 0:
			t.Errorf("models %v, timings %+v: Timings.Detect %v, want more than 0",
				r.Models, r.Timings, r.Timings.Detect)
		case r.Timings.Classify <= 0:
			t.Errorf("models %v, timings %+v: Timings.Classify %v, want more than 0",
				r.Models, r.Timings, r.Timings.Classify)
		case r.Timings.Reply <= 0:
			t.Errorf("models %v, timings %+v: Timings.Reply %v, want more than 0",
				r.Models, r.Timings, r.Timings.Reply)
		}
		switch {
		case !strings.Contains(a.header.Get("Server-Timing"), "classify;dur="):
			t.Errorf(`header %v, trace %s: want strings.Contains(a.header.Get("Server-Timing"), "classify;dur=")`,
				a.header, r.TraceID)
		case !strings.Contains(a.header.Get("Traceparent"), r.TraceID):
			t.Errorf(`header %v, trace %s: want strings.Contains(a.header.Get("Traceparent"), r.TraceID)`,
				a.header, r.TraceID)
		case len(r.TraceID) != 32:
			t.Errorf("header %v, trace %s: %d trace id, want 32", a.header, r.TraceID, len(r.TraceID))
		}
		for _, reg := range r.Regions {
			checkBox(t, reg.Box, v1.Box{Width: r.Image.Width, Height: r.Image.Height})
			switch {
			case len(reg.Words) == 0:
				t.Errorf("region %+v: no reg.Words", reg)
			case reg.Score < 0.5:
				t.Errorf("region %+v: reg.Score %v, want at least 0.5", reg, reg.Score)
			case reg.Label != "text":
				t.Errorf(`region %+v: reg.Label %q, want "text"`, reg, reg.Label)
			case reg.Fraction.Width <= 0 || reg.Fraction.Width > 1:
				t.Errorf("region %+v: reg.Fraction.Width = %v", reg, reg.Fraction.Width)
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
			t.Fatalf("got %+v, want one face: %d regions, want 1", r, len(r.Regions))
		case r.Regions[0].Label != "face":
			t.Fatalf(`got %+v, want one face: Regions[0].Label %q, want "face"`, r, r.Regions[0].Label)
		case r.Text != nil:
			t.Fatalf("got %+v, want one face: text %v, want nil", r, r.Text)
		}
		want := sample.FaceBox()
		b := r.Regions[0].Box
		switch cx, cy := b.X+b.Width/2, b.Y+b.Height/2; {
		case cx < want.Min.X || cx > want.Max.X:
			t.Errorf("face at %+v, want the middle in %v: cx = %v", b, want, cx)
		case cy < want.Min.Y || cy > want.Max.Y:
			t.Errorf("face at %+v, want the middle in %v: cy = %v", b, want, cy)
		}
		if !hasLabel(r.Regions[0], "eyes-open") {
			t.Errorf("labels %v, want eyes-open", r.Regions[0].Labels)
		}
	})
	t.Run("nothing found", func(t *testing.T) {
		a := m.post(t, "?pipeline=faces", samplePage(t))
		switch {
		case a.status != http.StatusOK:
			t.Errorf("got %v, want an empty list: status %v, want 200", a, a.status)
		case !bytes.Contains(a.body, []byte(`"regions":[]`)):
			t.Errorf("got %v, want an empty list: want bytes.Contains(a.body, []byte(`\"regions\":[]`))", a)
		}
	})
	t.Run("asynchronous", func(t *testing.T) {
		a := m.post(t, "?pipeline=text&priority=bulk", samplePage(t), "Prefer", "respond-async")
		switch {
		case a.status != http.StatusAccepted:
			t.Fatalf("got %v %v: status %v, want 202", a, a.header, a.status)
		case a.header.Get("Preference-Applied") != "respond-async":
			t.Fatalf(`got %v %v: Preference-Applied %q, want "respond-async"`,
				a, a.header, a.header.Get("Preference-Applied"))
		case a.header.Get("Location") != "/v1/images/"+a.result.ID:
			t.Fatalf("got %v %v: location %v, want %v",
				a, a.header, a.header.Get("Location"), "/v1/images/"+a.result.ID)
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
			switch {
			case found != len(want.Faces.Boxes):
				t.Errorf("%s: found %d of %d faces with %d regions, the reference has %d: found %v, want %v",
					name, found, len(want.Faces.Boxes), len(r.Regions), len(reference.Photos[name+".jpg"]), found, len(want.Faces.Boxes))
			case len(r.Regions) > len(reference.Photos[name+".jpg"]):
				t.Errorf(`%s: found %d of %d faces with %d regions, the reference has %d: %d regions, want at most len(reference.Photos[name+".jpg"])`,
					name, found, len(want.Faces.Boxes), len(r.Regions), len(reference.Photos[name+".jpg"]), len(r.Regions))
			}
		}
	})
	t.Run("EXIF orientation", func(t *testing.T) {
		for name, orientation := range map[string]int{"exif_Landscape_1": 1, "exif_Landscape_6": 6} {
			r := m.postDone(t, "?pipeline=faces", realdata(t, "photos/"+name+".jpg"))
			switch {
			case r.Image.Width != 1800:
				t.Errorf("%s: %+v, want 1800 x 1200 by orientation %d: Image.Width %v, want 1800",
					name, r.Image, orientation, r.Image.Width)
			case r.Image.Height != 1200:
				t.Errorf("%s: %+v, want 1800 x 1200 by orientation %d: Image.Height %v, want 1200",
					name, r.Image, orientation, r.Image.Height)
			case r.Image.Orientation != orientation:
				t.Errorf("%s: %+v, want 1800 x 1200 by orientation %d: Image.Orientation %v, want %v",
					name, r.Image, orientation, r.Image.Orientation, orientation)
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
	switch {
	case b.Width <= 0:
		t.Errorf("box %+v is not in %+v: width %v, want more than 0", b, within, b.Width)
	case b.Height <= 0:
		t.Errorf("box %+v is not in %+v: height %v, want more than 0", b, within, b.Height)
	case b.X < within.X:
		t.Errorf("box %+v is not in %+v: X %v, want at least within.X", b, within, b.X)
	case b.Y < within.Y:
		t.Errorf("box %+v is not in %+v: Y %v, want at least within.Y", b, within, b.Y)
	case b.X+b.Width > within.X+within.Width:
		t.Errorf("box %+v is not in %+v: X+b.Width %v, want at most within.X+within.Width", b, within, b.X+b.Width)
	case b.Y+b.Height > within.Y+within.Height:
		t.Errorf("box %+v is not in %+v: Y+b.Height %v, want at most within.Y+within.Height", b, within, b.Y+b.Height)
	}
}
