package decoders

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/services/internal/model"
	"github.com/sightmesh/sightmesh/services/internal/nets"
)

// Output formats of a classifier.
const (
	// probabilities are scores without conversion.
	probabilities = "probabilities"
	// logits are converted to scores with softmax.
	logits = "logits"
)

// defaultTop is the default of the setting top.
const defaultTop = 5

// classifier decodes networks with a score for each class.
type classifier struct {
	names     []string
	classes   []string
	logits    bool
	threshold float64
	top       int
}

func newClassifier(m *model.Model, outputs []string, o Options) (Decoder, error) {
	used := []string{"labels", "classes", "threshold", "output.format", "output.names"}
	if err := cmp.Or(m.CheckNetwork(used...), m.CheckClasses(2)); err != nil {
		return nil, err
	}
	if m.Output.Format != probabilities && m.Output.Format != logits {
		return nil, fmt.Errorf("output.format: %q, want %s or %s", m.Output.Format, probabilities, logits)
	}
	d := &classifier{classes: m.ClassNames, logits: m.Output.Format == logits, top: cmp.Or(o.Top, defaultTop)}
	if d.top < 1 {
		return nil, fmt.Errorf("top: %d, want 1 or more", d.top)
	}
	var err error
	if d.threshold, err = m.EffectiveThreshold(o.Threshold); err != nil {
		return nil, err
	}
	d.names, err = m.OnlyOutput(outputs)
	return d, err
}

func (d *classifier) Outputs() []string { return d.names }

func (d *classifier) Decode(outputs []nets.Tensor, _ lane.Crop) (lane.CropLabel, error) {
	if err := checkVector(d.names[0], outputs[0], len(d.classes)); err != nil {
		return lane.CropLabel{}, err
	}
	scores := outputs[0].Data
	if d.logits {
		scores = softmax(scores)
	}
	var labels []v1.Label
	for i, s := range scores {
		score := float64(s)
		if score < -1e-3 || score > 1.001 {
			return lane.CropLabel{}, fmt.Errorf("output %s has a score of %v, want 0 to 1: "+
				"does output.format fit the network?", d.names[0], s)
		}
		if score >= d.threshold {
			labels = append(labels, v1.Label{Label: d.classes[i], Score: math.Round(min(score, 1)*1e4) / 1e4})
		}
	}
	slices.SortStableFunc(labels, func(a, b v1.Label) int { return cmp.Compare(b.Score, a.Score) })
	if labels = labels[:min(len(labels), d.top)]; len(labels) == 0 {
		return lane.CropLabel{}, nil
	}
	return lane.CropLabel{Labels: labels, Score: labels[0].Score}, nil
}

// softmax converts logits to scores whose sum is 1.
func softmax(logits []float32) []float32 {
	most := slices.Max(logits) // subtracted from all to avoid an overflow; it does not change the result
	powers := make([]float64, len(logits))
	sum := 0.0
	for i, l := range logits {
		powers[i] = math.Exp(float64(l - most))
		sum += powers[i]
	}
	scores := make([]float32, len(logits))
	for i, p := range powers {
		scores[i] = float32(p / sum)
	}
	return scores
}

// checkVector returns an error unless an output has the shape 1 × n, possibly followed by
// dimensions of 1. An n of -1 means any number.
func checkVector(name string, t nets.Tensor, n int) error {
	want := []int{1, n}
	for len(want) < len(t.Shape) {
		want = append(want, 1)
	}
	return t.CheckShape(name, want...)
}
