package detectors

import (
	"cmp"
	"encoding/json"
	"fmt"
	"image"
	"math"
	"slices"

	"gocv.io/x/gocv"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/services/detect/internal/textlines"
	"github.com/sightmesh/sightmesh/services/internal/model"
	"github.com/sightmesh/sightmesh/services/internal/vision"
)

// textLines finds lines of text: ink against its surroundings, dark on light
// and light on dark, put together by geometry.
type textLines struct {
	// LongSide is the size, in pixels, to which a larger picture is reduced
	// for finding lines. Crops are cut from the full picture.
	LongSide int `json:"long_side"`
}

// Crops of lines are made as high as the reader likes them.
const (
	cropHeight    = 48 // of a line, in pixels, with its margin
	cropMinHeight = 36
	cropMaxHeight = 72
	cropMaxWidth  = 4096
)

func newTextLines(settings json.RawMessage) (detector, lane.Loaded, error) {
	d := defaultTextLines()
	if err := lane.DecodeSettings(settings, d); err != nil {
		return nil, lane.Loaded{}, err
	}
	if err := d.validate(); err != nil {
		return nil, lane.Loaded{}, fmt.Errorf("settings: %w", err)
	}
	return d, lane.Loaded{Models: []v1.Model{{Name: "text-lines", Version: "1"}}}, nil
}

// openTextLines makes the detector of a model folder that says how lines are found.
func openTextLines(m *model.Model, s modelSettings) (detector, error) {
	switch {
	case s.Threshold != nil || s.NMS != nil:
		return nil, fmt.Errorf("settings: threshold and nms: not used by %s", m.Kind)
	case s.cropping != defaultCropping():
		return nil, fmt.Errorf("settings: channels, crop_side, padding and square_crops: "+
			"not used by %s, which crops lines for Tesseract", m.Kind)
	}
	if err := m.CheckFields("settings"); err != nil {
		return nil, m.FieldError(err)
	}
	d := defaultTextLines()
	if err := m.DecodeSettings(d); err != nil {
		return nil, err
	}
	if err := d.validate(); err != nil {
		return nil, m.FieldError(fmt.Errorf("settings: %w", err))
	}
	return d, nil
}

func defaultTextLines() *textLines { return &textLines{LongSide: 2400} }

func (d *textLines) validate() error {
	if d.LongSide < 1 {
		return fmt.Errorf("long_side: %d, want 1 or more", d.LongSide)
	}
	return nil
}

// polarity of text.
const (
	darkOnLight = iota
	lightOnDark
)

type found struct {
	textlines.Line
	polarity int
}

func (d *textLines) detect(m gocv.Mat, most int, want wanted) ([]lane.Region, []crop, error) {
	grey := vision.Grey(m)
	defer grey.Close()
	lines := d.find(grey)
	if len(lines) > most {
		slices.SortStableFunc(lines, func(a, b found) int { return cmp.Compare(b.Score, a.Score) })
		lines = lines[:most]
	}
	ordered := make([]textlines.Line, len(lines))
	polarity := map[image.Rectangle]int{}
	for i, l := range lines {
		ordered[i] = l.Line
		polarity[l.Box] = l.polarity
	}
	textlines.Order(ordered)
	regions := make([]lane.Region, len(ordered))
	var cut []crop
	for i, l := range ordered {
		regions[i] = lane.Region{Box: toBox(l.Box), Score: l.Score, Label: "text"}
		if want(regions[i].Label) {
			cut = append(cut, cutLine(grey, l.Box, polarity[l.Box] == lightOnDark))
		}
	}
	return regions, cut, nil
}

// find gives the lines of both polarities in pixels of the full picture.
func (d *textLines) find(grey gocv.Mat) []found {
	scale := 1.0
	work := grey
	if long := max(grey.Cols(), grey.Rows()); long > d.LongSide {
		work = gocv.NewMat()
		defer work.Close()
		scale = reduce(grey, &work, d.LongSide)
	}
	size := image.Pt(work.Cols(), work.Rows())
	var lines []found
	for _, pol := range []int{darkOnLight, lightOnDark} {
		for _, l := range textlines.Find(components(work, pol), size) {
			lines = append(lines, found{l, pol})
		}
	}
	lines = withoutShadows(lines)
	full := image.Rect(0, 0, grey.Cols(), grey.Rows())
	for i := range lines {
		b := &lines[i].Box
		// A pixel of ink at the edge counts, and so does its blur.
		margin := max(2, b.Dy()/8)
		*b = scaled(b.Inset(-margin), 1/scale).Intersect(full)
	}
	return lines
}

// components binarises a picture against its surroundings and takes the ink
// apart.
func components(grey gocv.Mat, polarity int) []textlines.Component {
	const block, contrast = 41, 14
	ink := gocv.NewMat()
	defer ink.Close()
	if polarity == darkOnLight {
		gocv.AdaptiveThreshold(grey, &ink, 255, gocv.AdaptiveThresholdMean, gocv.ThresholdBinaryInv, block, contrast)
	} else {
		gocv.AdaptiveThreshold(grey, &ink, 255, gocv.AdaptiveThresholdMean, gocv.ThresholdBinary, block, -contrast)
	}
	labels, stats, centroids := gocv.NewMat(), gocv.NewMat(), gocv.NewMat()
	defer labels.Close()
	defer stats.Close()
	defer centroids.Close()
	n := gocv.ConnectedComponentsWithStats(ink, &labels, &stats, &centroids)
	out := make([]textlines.Component, 0, n)
	for i := 1; i < n; i++ { // 0 is the background
		x, y := int(stats.GetIntAt(i, 0)), int(stats.GetIntAt(i, 1))
		out = append(out, textlines.Component{
			Box:  image.Rect(x, y, x+int(stats.GetIntAt(i, 2)), y+int(stats.GetIntAt(i, 3))),
			Area: int(stats.GetIntAt(i, 4)),
		})
	}
	return out
}

// withoutShadows drops lines that the other polarity explains better: around
// and inside dark letters there is light, and it lies in lines too.
func withoutShadows(lines []found) []found {
	slices.SortStableFunc(lines, func(a, b found) int {
		return cmp.Compare(weight(b), weight(a))
	})
	var kept []found
	for _, l := range lines {
		shadow := slices.ContainsFunc(kept, func(k found) bool {
			i := k.Box.Intersect(l.Box)
			return 10*i.Dx()*i.Dy() > 3*l.Box.Dx()*l.Box.Dy()
		})
		if !shadow {
			kept = append(kept, l)
		}
	}
	return kept
}

func weight(f found) float64 {
	return f.Score * math.Sqrt(float64(f.Box.Dx())*float64(f.Box.Dy()))
}

// cutLine takes the pixels of a line, dark on light, of a height that is read
// well.
func cutLine(m gocv.Mat, box image.Rectangle, invert bool) crop {
	region := m.Region(box)
	defer region.Close()
	out := gocv.NewMat()
	defer out.Close()
	region.CopyTo(&out)
	if h := box.Dy(); h < cropMinHeight || h > cropMaxHeight || box.Dx() > cropMaxWidth {
		f := min(float64(cropHeight)/float64(h), float64(cropMaxWidth)/float64(box.Dx()))
		how := gocv.InterpolationCubic
		if f < 1 {
			how = gocv.InterpolationArea
		}
		gocv.Resize(out, &out, image.Pt(max(1, int(float64(box.Dx())*f+0.5)), max(1, int(float64(h)*f+0.5))), 0, 0, how)
	}
	if invert {
		gocv.BitwiseNot(out, &out)
	}
	return crop{width: out.Cols(), height: out.Rows(), channels: out.Channels(), pixels: out.ToBytes()}
}

func scaled(r image.Rectangle, f float64) image.Rectangle {
	return image.Rect(
		int(math.Floor(float64(r.Min.X)*f)), int(math.Floor(float64(r.Min.Y)*f)),
		int(math.Ceil(float64(r.Max.X)*f)), int(math.Ceil(float64(r.Max.Y)*f)))
}

func toBox(r image.Rectangle) v1.Box {
	return v1.Box{X: r.Min.X, Y: r.Min.Y, Width: r.Dx(), Height: r.Dy()}
}

func toRectangle(b v1.Box) image.Rectangle { return image.Rect(b.X, b.Y, b.X+b.Width, b.Y+b.Height) }
