// Package nets is what detectors and classifiers need of an engine that runs
// neural networks: a [Net] takes numbers and returns numbers. What the numbers
// mean is said by the model folder (package model) and decoded by the detector or
// classifier of its kind.
//
// There are two engines: OpenCV, which is always there, and ONNX Runtime, whose
// library is found at run time. Both run in lanes only: a net may end the process.
package nets

import (
	"fmt"
	"math"
	"slices"

	"github.com/sightmesh/sightmesh/lane"
)

// Tensor is an array of numbers, the last dimension next to each other.
type Tensor struct {
	Shape []int
	Data  []float32
}

// NewTensor returns a Tensor of zeros.
func NewTensor(shape ...int) Tensor {
	n := 1
	for _, d := range shape {
		n *= d
	}
	return Tensor{Shape: shape, Data: make([]float32, n)}
}

// String returns the shape, for messages.
func (t Tensor) String() string { return fmt.Sprint(t.Shape) }

// CheckShape returns an error unless the output of this name has the shape that is
// wanted, where -1 is any number.
func (t Tensor) CheckShape(name string, want ...int) error {
	ok := len(t.Shape) == len(want)
	for i := 0; ok && i < len(want); i++ {
		ok = want[i] == -1 || t.Shape[i] == want[i]
	}
	if !ok {
		return fmt.Errorf("output %s has the shape %v, want %v", name, t.Shape, want)
	}
	return nil
}

// Input describes an input of a net. A dimension of -1 is any.
type Input struct {
	Name  string
	Shape []int
}

// Output describes an output of a net. A dimension of -1 is any.
type Output struct {
	Name  string
	Shape []int
}

// Describe returns what people who look into a model are told of its net.
func Describe(model string, n Net) lane.Network {
	d := lane.Network{Model: model, Engine: n.Engine()}
	for _, in := range n.Inputs() {
		d.Inputs = append(d.Inputs, lane.Tensor(in))
	}
	for _, out := range n.Outputs() {
		d.Outputs = append(d.Outputs, lane.Tensor(out))
	}
	return d
}

// Net is a loaded network. It belongs to one goroutine at a time.
type Net interface {
	// Engine says what runs the net, with its version, such as "onnxruntime 1.28.2".
	Engine() string
	// Inputs and Outputs describe the net, as far as the engine knows: OpenCV
	// knows the names of outputs only.
	Inputs() []Input
	Outputs() []Output
	// Run runs the net on its one input and returns the outputs that are asked
	// for, in order, or all of them. The data of a returned Tensor is the
	// caller's.
	Run(in Tensor, outputs ...string) ([]Tensor, error)
	// Close frees the net.
	Close()
}

// OutputNames returns the names of the outputs of a net.
func OutputNames(n Net) []string {
	names := make([]string, 0, len(n.Outputs()))
	for _, o := range n.Outputs() {
		names = append(names, o.Name)
	}
	return names
}

// Run runs a net and returns the outputs of these names. An output with values that are
// infinite or not numbers is an error: a net that is broken, or not the one that its model
// declares, must not look like one that has found nothing.
func Run(n Net, in Tensor, outputs []string) ([]Tensor, error) {
	tensors, err := n.Run(in, outputs...)
	if err != nil {
		return nil, err
	}
	for i, t := range tensors {
		if at := slices.IndexFunc(t.Data, isNoNumber); at >= 0 {
			return nil, fmt.Errorf("output %s has values that are not numbers (%v)", outputs[i], t.Data[at])
		}
	}
	return tensors, nil
}

// RunBatch runs a net once on inputs of the same shape, whose first dimension is 1, and
// returns the outputs of each.
func RunBatch(n Net, inputs []Tensor, outputs []string) ([][]Tensor, error) {
	if len(inputs) == 1 {
		tensors, err := Run(n, inputs[0], outputs)
		return [][]Tensor{tensors}, err
	}
	batch := Tensor{Shape: slices.Clone(inputs[0].Shape)}
	batch.Shape[0] = len(inputs)
	for _, in := range inputs {
		batch.Data = append(batch.Data, in.Data...)
	}
	tensors, err := Run(n, batch, outputs)
	if err != nil {
		return nil, err
	}
	each := make([][]Tensor, len(inputs))
	for i, t := range tensors {
		if len(t.Shape) == 0 || t.Shape[0] != len(inputs) {
			return nil, fmt.Errorf("output %s has the shape %v for a batch of %d", outputs[i], t.Shape, len(inputs))
		}
		size := len(t.Data) / len(inputs)
		for j := range inputs {
			shape := slices.Clone(t.Shape)
			shape[0] = 1
			each[j] = append(each[j], Tensor{Shape: shape, Data: t.Data[j*size : (j+1)*size]})
		}
	}
	return each, nil
}

func isNoNumber(f float32) bool { return math.IsNaN(float64(f)) || math.IsInf(float64(f), 0) }

// Best returns the place and the value of the largest number.
func Best(scores []float32) (int, float64) {
	at := 0
	for i, s := range scores {
		if s > scores[at] {
			at = i
		}
	}
	return at, float64(scores[at])
}
