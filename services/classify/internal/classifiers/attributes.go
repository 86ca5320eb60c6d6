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

// faceAttributes labels faces with eyes-open, glasses and smile, with the cascades of
// opencv-data.
//
// A cascade has no score. The scores here are computed from the number of its raw hits, as
// hits ÷ (hits + a constant). They are not probabilities, but more hits give a higher score.
// Labels have a score of at least 0.5; a missing label says little. The constants were
// chosen by eye on 26 faces in photos: smile is given to most faces that smile broadly and
// to two of five that do not; glasses to neither of the two faces with glasses, and to no
// other.
type faceAttributes struct {
	Dir string `json:"dir"` // folder of the cascades; empty means that of opencv-data

	eyes    gocv.CascadeClassifier // finds open eyes
	glasses gocv.CascadeClassifier // also finds eyes behind glasses
	smile   gocv.CascadeClassifier
}

// faceSide is the size to which faces are scaled, in pixels: the cascades were trained on
// small images.
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
	return classifyEach(crops, f.classifyOne)
}

func (f *faceAttributes) classifyOne(c crop) (lane.CropLabel, error) {
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
	eyes := countHits(&f.eyes, upper, image.Pt(faceSide/8, faceSide/8), faceSide/3)
	behind := countHits(&f.glasses, upper, image.Pt(faceSide/8, faceSide/8), faceSide/3)
	smile := countHits(&f.smile, lower, image.Pt(faceSide/4, faceSide/8), faceSide)

	return lane.CropLabel{Labels: newAttributeLabels(eyes, behind, smile)}, nil
}

// newAttributeLabels converts the hits of the three cascades to labels, the best first.
func newAttributeLabels(eyes, behind, smile int) []v1.Label {
	var labels []v1.Label
	add := func(name string, score float64) {
		if score >= 0.5 {
			labels = append(labels, v1.Label{Label: name, Score: roundScore(score)})
		}
	}
	add("eyes-open", hitScore(max(eyes, behind), 6))
	// Glasses hide eyes more from the first cascade than from the second.
	add("glasses", hitScore(max(0, behind-2*eyes), 6))
	add("smile", hitScore(smile, 100))
	slices.SortStableFunc(labels, func(a, b v1.Label) int { return cmp.Compare(b.Score, a.Score) })
	return labels
}

// countHits returns the number of raw hits of a cascade, before OpenCV groups them. least and most
// limit the size of a hit.
func countHits(c *gocv.CascadeClassifier, m gocv.Mat, least image.Point, most int) int {
	return len(c.DetectMultiScaleWithParams(m, 1.1, 0, 0, least, image.Pt(most, most)))
}

// hitScore returns a score for a number of hits; it is 0.5 for half hits.
func hitScore(hits, half int) float64 { return float64(hits) / float64(hits+half) }
