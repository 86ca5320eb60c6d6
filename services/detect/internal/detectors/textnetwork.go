package detectors

import (
	"cmp"
	"fmt"
	"image"
	"image/color"
	"math"
	"slices"

	"gocv.io/x/gocv"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/services/detect/internal/dbtext"
	"github.com/sightmesh/sightmesh/services/detect/internal/textlines"
	"github.com/sightmesh/sightmesh/services/internal/model"
	"github.com/sightmesh/sightmesh/services/internal/nets"
	"github.com/sightmesh/sightmesh/services/internal/nets/engines"
	"github.com/sightmesh/sightmesh/services/internal/vision"
)

// dbText is the kind of networks that find lines of text, see package dbtext.
const dbText = "db-text"

// textNetwork finds lines of text with a network.
type textNetwork struct {
	model   *model.Model
	net     nets.Net
	output  []string // the name of its one output
	options dbtext.Options
	grey    bool // crops are grey
}

// minShrunk is the minimum of the sides of a line in the output of a network, in pixels. It
// is that of PP-OCR.
const minShrunk = 3

func openTextNetwork(m *model.Model, s modelSettings, o engines.Options) (*textNetwork, error) {
	d := &textNetwork{
		model: m, grey: s.Channels == model.Grey,
		options: dbtext.Options{Pixel: m.Output.Pixel, Unclip: m.Output.Unclip, MinSide: minShrunk},
	}
	var err error
	if d.options.Score, err = m.EffectiveThreshold(s.Threshold); err != nil {
		return nil, fmt.Errorf("model %s: %w", m.Name, err)
	}
	if err := checkTextModel(m); err != nil {
		return nil, m.FieldError(err)
	}
	if name := unusedSetting(s); name != "" {
		return nil, fmt.Errorf("settings: %s: not used by %s", name, dbText)
	}
	net, err := engines.Open(m, o)
	if err != nil {
		return nil, err
	}
	names, err := m.OnlyOutput(nets.OutputNames(net))
	if err != nil {
		net.Close()
		return nil, m.FieldError(err)
	}
	d.net, d.output = net, names
	return d, nil
}

func checkTextModel(m *model.Model) error {
	if err := m.CheckNetwork("threshold", "output.pixel", "output.unclip", "output.names"); err != nil {
		return err
	}
	switch o := m.Output; {
	case !(o.Pixel > 0):
		return fmt.Errorf("output.pixel: %v, want more than 0, and at most 1", o.Pixel)
	case !(o.Unclip > 0):
		return fmt.Errorf("output.unclip: %v, want more than 0", o.Unclip)
	}
	return nil
}

// unusedSetting returns the name of a setting that has no effect on lines of text, whose crops
// have a fixed height, or "" if there is none.
func unusedSetting(s modelSettings) string {
	usual := defaultCropping()
	switch {
	case s.NMS != nil:
		return "nms"
	case s.SquareCrops:
		return "square_crops"
	case s.Padding != usual.Padding:
		return "padding"
	case s.CropSide != usual.CropSide:
		return "crop_side"
	}
	return ""
}

func (d *textNetwork) detect(m gocv.Mat, most int, want cropFilter) ([]lane.Region, []crop, error) {
	lines, err := d.lines(m)
	if err != nil {
		return nil, nil, fmt.Errorf("model %s: %w", d.model.Name, err)
	}
	slices.SortStableFunc(lines, func(a, b dbtext.Line) int { return cmp.Compare(b.Score, a.Score) })
	lines = sortLines(lines[:min(len(lines), most)])
	full := image.Rect(0, 0, m.Cols(), m.Rows())
	const label = "text"
	crops := want(label)
	from := m
	if crops && d.grey {
		from = vision.ToGrey(m)
		defer from.Close()
	}
	regions := make([]lane.Region, 0, len(lines))
	var cut []crop
	for _, l := range lines {
		box := l.Corners.Bounds().Intersect(full)
		if box.Empty() {
			continue
		}
		r := lane.Region{Box: toBox(box), Score: math.Round(min(l.Score, 1)*1e4) / 1e4, Label: label}
		level := isLevel(l.Corners)
		if !level {
			for _, p := range l.Corners {
				r.Polygon = append(r.Polygon, v1.Point{
					X: clampRound(p.X, -m.Cols(), 2*m.Cols()), Y: clampRound(p.Y, -m.Rows(), 2*m.Rows()),
				})
			}
		}
		regions = append(regions, r)
		switch {
		case !crops:
		case level:
			cut = append(cut, cropLine(from, box, false))
		default:
			cut = append(cut, cropQuad(from, l.Corners))
		}
	}
	return regions, cut, nil
}

// lines runs the network and finds the lines in its output, in pixels of the image. It
// rejects an output that is not probabilities.
func (d *textNetwork) lines(m gocv.Mat) ([]dbtext.Line, error) {
	input, at := vision.Fit(m, d.model.Input)
	height, width := input.Shape[2], input.Shape[3]
	outputs, err := nets.Run(d.net, input, d.output)
	if err != nil {
		return nil, err
	}
	name, out := d.output[0], outputs[0]
	if err := out.CheckShape(name, 1, 1, height, width); err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(out.Data, func(p float32) bool { return p < 0 || p > 1.001 }); i >= 0 {
		return nil, fmt.Errorf("output %s has a value of %v, want probabilities", name, out.Data[i])
	}
	lines := dbtext.Find(out.Data, width, height, d.options)
	for i := range lines {
		for c := range lines[i].Corners {
			p := &lines[i].Corners[c]
			p.X, p.Y = at.ToImage(p.X, p.Y)
		}
	}
	return lines, nil
}

// isLevel reports whether a line equals its upright box, within one pixel.
func isLevel(q dbtext.Quad) bool {
	const most = 1.0
	return q[0].X < q[1].X && math.Abs(q[0].Y-q[1].Y) <= most && math.Abs(q[0].X-q[3].X) <= most
}

// sortLines returns lines in reading order. It sorts them as if the image was rotated by
// the median of their angles.
func sortLines(lines []dbtext.Line) []dbtext.Line {
	angles := make([]float64, 0, len(lines))
	for _, l := range lines {
		angles = append(angles, math.Atan2(l.Corners[1].Y-l.Corners[0].Y, l.Corners[1].X-l.Corners[0].X))
	}
	slices.Sort(angles)
	if len(angles) == 0 {
		return nil
	}
	sin, cos := math.Sincos(-angles[len(angles)/2])
	boxes := make([]textlines.Line, len(lines))
	byBox := map[image.Rectangle][]dbtext.Line{}
	for i, l := range lines {
		q := l.Corners
		for c, p := range q {
			q[c] = dbtext.Point{X: p.X*cos - p.Y*sin, Y: p.X*sin + p.Y*cos}
		}
		boxes[i].Box = q.Bounds()
		byBox[boxes[i].Box] = append(byBox[boxes[i].Box], l)
	}
	textlines.Order(boxes)
	ordered := make([]dbtext.Line, len(lines))
	for i, b := range boxes {
		same := byBox[b.Box]
		ordered[i], byBox[b.Box] = same[0], same[1:]
	}
	return ordered
}

// cropQuad returns the crop of a line that is not level, rotated upright.
func cropQuad(m gocv.Mat, q dbtext.Quad) crop {
	width := max(1, int(math.Round(math.Hypot(q[1].X-q[0].X, q[1].Y-q[0].Y))))
	height := max(1, int(math.Round(math.Hypot(q[3].X-q[0].X, q[3].Y-q[0].Y))))
	from := gocv.NewPoint2fVectorFromPoints([]gocv.Point2f{point2f(q[0]), point2f(q[1]), point2f(q[3])})
	defer from.Close()
	to := gocv.NewPoint2fVectorFromPoints([]gocv.Point2f{{}, {X: float32(width)}, {Y: float32(height)}})
	defer to.Close()
	turn := gocv.GetAffineTransform2f(from, to)
	defer turn.Close()
	upright := gocv.NewMat()
	defer upright.Close()
	gocv.WarpAffineWithParams(m, &upright, turn, image.Pt(width, height),
		gocv.InterpolationCubic, gocv.BorderReplicate, color.RGBA{})
	return cropLine(upright, image.Rect(0, 0, width, height), false)
}

func point2f(p dbtext.Point) gocv.Point2f { return gocv.Point2f{X: float32(p.X), Y: float32(p.Y)} }
