package detectors

import (
	"encoding/json"
	"fmt"
	"image"

	"gocv.io/x/gocv"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/services/detect/internal/codes"
	"github.com/sightmesh/sightmesh/services/detect/internal/textlines"
	"github.com/sightmesh/sightmesh/services/internal/model"
	"github.com/sightmesh/sightmesh/services/internal/vision"
)

// codeReader finds and reads QR codes, bar codes and similar codes.
type codeReader struct{ reader *codes.Reader }

// codesSettings are the settings of the kind codes.
type codesSettings struct {
	// Formats are the names of the formats to read; empty means all formats.
	Formats []string `json:"formats"`
}

func newCodes(settings json.RawMessage) (detector, lane.Loaded, error) {
	var s codesSettings
	if err := lane.DecodeSettings(settings, &s); err != nil {
		return nil, lane.Loaded{}, err
	}
	r, err := codes.NewReader(s.Formats...)
	if err != nil {
		return nil, lane.Loaded{}, fmt.Errorf("settings.formats: %w", err)
	}
	return &codeReader{r}, lane.Loaded{Models: []v1.Model{{Name: "zxing-cpp", Version: codes.Version()}}}, nil
}

// openQR creates the detector of a model folder of the kind qr.
func openQR(m *model.Model, s modelSettings) (detector, error) {
	switch {
	case s.Threshold != nil || s.NMS != nil:
		return nil, fmt.Errorf("settings: threshold and nms: not used by %s", m.Kind)
	case s.cropping != defaultCropping():
		return nil, fmt.Errorf("settings: channels, crop_side, padding and square_crops: "+
			"not used by %s, which crops codes by their corners", m.Kind)
	}
	if err := m.CheckFields(); err != nil {
		return nil, m.FieldError(err)
	}
	r, err := codes.NewReader("qr-code")
	if err != nil {
		return nil, m.FieldError(err)
	}
	return &codeReader{r}, nil
}

// detect returns every region with the score 1: codes have no score.
func (d *codeReader) detect(m gocv.Mat, most int, want cropFilter) ([]lane.Region, []crop, error) {
	grey := vision.ToGrey(m)
	defer grey.Close()
	found, err := d.reader.Read(grey)
	if err != nil {
		return nil, nil, err
	}
	found = found[:min(len(found), most)]
	sortCodes(found)
	regions := make([]lane.Region, len(found))
	var cut []crop
	full := image.Rect(0, 0, grey.Cols(), grey.Rows())
	for i, c := range found {
		box := clipBox(c.Box(), full)
		regions[i] = lane.Region{
			Box: toBox(box), Polygon: newPolygon(c.Corners, box), Score: 1, Label: c.Format, Text: c.Text,
		}
		if want(regions[i].Label) {
			cut = append(cut, cropUpright(grey, c.Corners))
		}
	}
	return regions, cut, nil
}

// sortCodes sorts codes into reading order, like lines of text.
func sortCodes(found []codes.Code) {
	boxes := make([]textlines.Line, len(found))
	byBox := map[image.Rectangle][]codes.Code{}
	for i, c := range found {
		box := c.Box()
		boxes[i].Box = box
		byBox[box] = append(byBox[box], c)
	}
	textlines.Order(boxes)
	for i, b := range boxes {
		same := byBox[b.Box]
		found[i], byBox[b.Box] = same[0], same[1:]
	}
}

// clipBox returns the part of a box that is inside the image, with sides of at least one
// pixel: a bar code may be found in a single row, and its corners are rounded.
func clipBox(box, full image.Rectangle) image.Rectangle {
	box.Min.X = min(max(box.Min.X, 0), full.Max.X-1)
	box.Min.Y = min(max(box.Min.Y, 0), full.Max.Y-1)
	box.Max.X = min(max(box.Max.X, box.Min.X+1), full.Max.X)
	box.Max.Y = min(max(box.Max.Y, box.Min.Y+1), full.Max.Y)
	return box
}

// newPolygon returns the polygon of a region, or nil if the corners are those of its box.
func newPolygon(corners [4]image.Point, box image.Rectangle) []v1.Point {
	if corners == boxCorners(box) {
		return nil
	}
	polygon := make([]v1.Point, len(corners))
	for i, p := range corners {
		polygon[i] = v1.Point{X: p.X, Y: p.Y}
	}
	return polygon
}

// boxCorners returns the corners of a box, clockwise from the top left.
func boxCorners(r image.Rectangle) [4]image.Point {
	return [4]image.Point{r.Min, {X: r.Max.X, Y: r.Min.Y}, r.Max, {X: r.Min.X, Y: r.Max.Y}}
}
