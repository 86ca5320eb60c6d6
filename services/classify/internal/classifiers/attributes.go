package classifiers

import (
	"cmp"
	"encoding/json"
	"fmt"
	"image"
	"slices"

	"gocv.io/x/gocv"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/services/internal/vision"
)

// faceAttributes says of a face whether its eyes are open, it wears glasses
// and smiles, with the cascades of opencv-data.
//
// A cascade says yes or no. The scores here are how many raw hits it has, as
// hits ÷ (hits + a constant): not a probability, but more agreement gives a
// higher score. A label is given when its score is at least 0.5, so absence
// says little. The constants were set by eye on 26 faces of photos: smile is
// given to most that smile broadly and to two of five that do not; glasses to
// neither of the two that wear them, and to no other.
type faceAttributes struct {
	Dir string `json:"dir"` // folder of the cascades

	eyes    gocv.CascadeClassifier // finds open eyes
	glasses gocv.CascadeClassifier // finds eyes behind glasses too
	smile   gocv.CascadeClassifier
}

// faceSide is the size at which attributes are looked for: the cascades were
// trained on small pictures.
const faceSide = 128

func newFaceAttributes(settings json.RawMessage) (classifier, lane.Loaded, error) {
	f := &faceAttributes{}
	if err := lane.DecodeSettings(settings, f); err != nil {
		return nil, lane.Loaded{}, err
	}
	var models []v1.Model
	for _, c := range []struct {
		name string
		into *gocv.CascadeClassifier
	}{
		{"haarcascade_eye", &f.eyes}, {"haarcascade_eye_tree_eyeglasses", &f.glasses}, {"haarcascade_smile", &f.smile},
	} {
		loaded, m, err := vision.LoadCascade(f.Dir, c.name)
		if err != nil {
			return nil, lane.Loaded{}, err
		}
		*c.into = loaded
		models = append(models, m)
	}
	return f, lane.Loaded{Models: models}, nil
}

func (f *faceAttributes) channels() int { return 1 }

func (f *faceAttributes) classify(crops []crop) ([]lane.CropLabel, error) {
	return oneByOne(crops, f.look)
}

func (f *faceAttributes) look(c crop) (lane.CropLabel, error) {
	raw, err := gocv.NewMatFromBytes(c.Height, c.Width, gocv.MatTypeCV8UC1, c.pixels)
	if err != nil {
		return lane.CropLabel{}, fmt.Errorf("read crop: %w", err)
	}
	defer raw.Close()
	face := gocv.NewMat()
	defer face.Close()
	gocv.Resize(raw, &face, image.Pt(faceSide, faceSide), 0, 0, gocv.InterpolationLinear)
	gocv.EqualizeHist(face, &face)

	upper := face.Region(image.Rect(0, faceSide/8, faceSide, faceSide*5/8))
	defer upper.Close()
	lower := face.Region(image.Rect(0, faceSide/2, faceSide, faceSide))
	defer lower.Close()
	eyes := hits(&f.eyes, upper, image.Pt(faceSide/8, faceSide/8), faceSide/3)
	behind := hits(&f.glasses, upper, image.Pt(faceSide/8, faceSide/8), faceSide/3)
	smile := hits(&f.smile, lower, image.Pt(faceSide/4, faceSide/8), faceSide)

	return lane.CropLabel{Labels: attributes(eyes, behind, smile)}, nil
}

// attributes turns the hits of the three cascades into labels, best first.
func attributes(eyes, behind, smile int) []v1.Label {
	var labels []v1.Label
	add := func(name string, score float64) {
		if score >= 0.5 {
			labels = append(labels, v1.Label{Label: name, Score: rounded(score)})
		}
	}
	add("eyes-open", agreement(max(eyes, behind), 6))
	// Glasses hide eyes from the plain cascade more than from the other.
	add("glasses", agreement(max(0, behind-2*eyes), 6))
	add("smile", agreement(smile, 100))
	slices.SortStableFunc(labels, func(a, b v1.Label) int { return cmp.Compare(b.Score, a.Score) })
	return labels
}

// hits counts the raw hits of a cascade before they are grouped.
func hits(c *gocv.CascadeClassifier, m gocv.Mat, least image.Point, most int) int {
	return len(c.DetectMultiScaleWithParams(m, 1.1, 0, 0, least, image.Pt(most, most)))
}

func agreement(hits, half int) float64 { return float64(hits) / float64(hits+half) }
