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

// textLines finds lines of text: it finds ink that is darker or lighter than its
// surroundings, and groups it into lines by geometry.
type textLines struct {
	// LongSide is the longer side, in pixels, to which larger images are reduced for
	// finding lines. Crops are taken from the full image.
	LongSide int `json:"long_side"`
}

// Crops of lines have a height that Tesseract reads well.
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
		return nil, lane.Loaded{}, fmt.Errorf("settings.%w", err)
	}
	return d, lane.Loaded{Models: []v1.Model{{Name: "text-lines", Version: "1"}}}, nil
}

// openTextLines creates the detector of a model folder with settings for finding lines.
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
		return nil, m.FieldError(fmt.Errorf("settings.%w", err))
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

// Polarities of text.
const (
	darkOnLight = iota
	lightOnDark
)

// inkLine is a line with its polarity.
type inkLine struct {
	textlines.Line
	polarity int
}

func (d *textLines) detect(m gocv.Mat, most int, want cropFilter) ([]lane.Region, []crop, error) {
	grey := vision.ToGrey(m)
	defer grey.Close()
	lines := d.find(grey)
	if len(lines) > most {
		slices.SortStableFunc(lines, func(a, b inkLine) int { return cmp.Compare(b.Score, a.Score) })
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
			cut = append(cut, cropLine(grey, l.Box, polarity[l.Box] == lightOnDark))
		}
	}
	return regions, cut, nil
}

// find returns the lines of both polarities, in pixels of the full image.
func (d *textLines) find(grey gocv.Mat) []inkLine {
	scale := 1.0
	work := grey
	if long := max(grey.Cols(), grey.Rows()); long > d.LongSide {
		work = gocv.NewMat()
		defer work.Close()
		scale = reduce(grey, &work, d.LongSide)
	}
	size := image.Pt(work.Cols(), work.Rows())
	var lines []inkLine
	for _, pol := range []int{darkOnLight, lightOnDark} {
		for _, l := range textlines.Find(components(work, pol), size) {
			lines = append(lines, inkLine{l, pol})
		}
	}
	lines = removeShadows(lines)
	full := image.Rect(0, 0, grey.Cols(), grey.Rows())
	for i := range lines {
		b := &lines[i].Box
		// Include the blurred edges of the ink.
		margin := max(2, b.Dy()/8)
		*b = scaleBox(b.Inset(-margin), 1/scale).Intersect(full)
	}
	return lines
}

// components binarises an image with a local threshold and returns the connected components
// of the ink.
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

// removeShadows removes lines that overlap a better line of the other polarity: the light
// areas around and inside dark letters also form lines.
func removeShadows(lines []inkLine) []inkLine {
	slices.SortStableFunc(lines, func(a, b inkLine) int {
		return cmp.Compare(weight(b), weight(a))
	})
	var kept []inkLine
	for _, l := range lines {
		shadow := slices.ContainsFunc(kept, func(k inkLine) bool {
			i := k.Box.Intersect(l.Box)
			return 10*i.Dx()*i.Dy() > 3*l.Box.Dx()*l.Box.Dy()
		})
		if !shadow {
			kept = append(kept, l)
		}
	}
	return kept
}

// weight returns how good a line is: its score times the square root of its area.
func weight(f inkLine) float64 {
	return f.Score * math.Sqrt(float64(f.Box.Dx())*float64(f.Box.Dy()))
}

// cropLine returns the crop of a line, dark on light, with a height that Tesseract reads
// well. invert is for lines that are light on dark.
func cropLine(m gocv.Mat, box image.Rectangle, invert bool) crop {
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
		size := image.Pt(max(1, int(float64(box.Dx())*f+0.5)), max(1, int(float64(h)*f+0.5)))
		gocv.Resize(out, &out, size, 0, 0, how)
	}
	if invert {
		gocv.BitwiseNot(out, &out)
	}
	return crop{width: out.Cols(), height: out.Rows(), channels: out.Channels(), pixels: out.ToBytes()}
}

// scaleBox returns r scaled by f, enlarged to whole pixels.
func scaleBox(r image.Rectangle, f float64) image.Rectangle {
	return image.Rect(
		int(math.Floor(float64(r.Min.X)*f)), int(math.Floor(float64(r.Min.Y)*f)),
		int(math.Ceil(float64(r.Max.X)*f)), int(math.Ceil(float64(r.Max.Y)*f)))
}

func toBox(r image.Rectangle) v1.Box {
	return v1.Box{X: r.Min.X, Y: r.Min.Y, Width: r.Dx(), Height: r.Dy()}
}

func toRectangle(b v1.Box) image.Rectangle { return image.Rect(b.X, b.Y, b.X+b.Width, b.Y+b.Height) }
