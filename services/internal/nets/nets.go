// Package nets defines the interface of detectors and classifiers to the engines
// that run neural networks: a [Net] has numbers as input and output. The model folder
// (package model) says what the numbers mean, and the detector or classifier of the
// model's kind decodes them.
//
// There are two engines: OpenCV, which is linked, and ONNX Runtime, whose library is
// looked up at run time. Both run only in lanes, because a net may crash the process.
package nets

import (
	"fmt"
	"math"
	"slices"

	"github.com/sightmesh/sightmesh/lane"
)

// Tensor is an array of numbers in row-major order: the last dimension is contiguous.
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

// String returns the shape, for logs and errors.
func (t Tensor) String() string { return fmt.Sprint(t.Shape) }

// CheckShape returns an error unless the shape is want. A dimension of -1 in want
// matches any number. The error names the output.
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

// Input describes an input of a net. A dimension of -1 means any size.
type Input struct {
	Name  string
	Shape []int
}

// Output describes an output of a net. A dimension of -1 means any size.
type Output struct {
	Name  string
	Shape []int
}

// Describe returns the description of a model's net, which sightmesh models check
// prints.
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
	// Engine returns the name and the version of the engine, such as
	// "onnxruntime 1.28.2".
	Engine() string
	// Inputs and Outputs describe the net as far as the engine knows it. OpenCV
	// knows only the names of outputs.
	Inputs() []Input
	Outputs() []Output
	// Run runs the net on its one input and returns the named outputs in that
	// order, or all outputs when no name is given. The caller owns the data of
	// the returned Tensors.
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

// Run runs a net and returns the named outputs. Values that are infinite or NaN are an
// error: they come from a damaged net, or from another net than the model declares, and
// would otherwise look like an image without regions.
func Run(n Net, in Tensor, outputs []string) ([]Tensor, error) {
	tensors, err := n.Run(in, outputs...)
	if err != nil {
		return nil, err
	}
	for i, t := range tensors {
		if at := slices.IndexFunc(t.Data, isNotFinite); at >= 0 {
			return nil, fmt.Errorf("output %s has values that are not numbers (%v)", outputs[i], t.Data[at])
		}
	}
	return tensors, nil
}

// RunBatch runs a net once on several inputs and returns the outputs of each input. The
// inputs must have the same shape, with 1 as the first dimension.
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

func isNotFinite(f float32) bool { return math.IsNaN(float64(f)) || math.IsInf(float64(f), 0) }

// ArgMax returns the index and the value of the largest score.
func ArgMax(scores []float32) (int, float64) {
	at := 0
	for i, s := range scores {
		if s > scores[at] {
			at = i
		}
	}
	return at, float64(scores[at])
}
