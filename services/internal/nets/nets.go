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
