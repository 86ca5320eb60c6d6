package model

// A Resize says how an image is brought to the size of the input.
type Resize string

// The ways of resizing.
const (
	// Stretch changes width and height on their own.
	Stretch Resize = "stretch"
	// Letterbox keeps the shape of the image and fills what remains at the right and
	// at the bottom.
	Letterbox Resize = "letterbox"
	// LetterboxCenter keeps the shape of the image and fills what remains on both
	// sides.
	LetterboxCenter Resize = "letterbox-center"
	// Shrink keeps the shape of the image and makes it no larger than the width and the
	// height, which are limits. Smaller images keep their size.
	Shrink Resize = "shrink"
	// Height keeps the shape of the image and brings it to the height. Its width
	// follows, and the width is a limit.
	Height Resize = "height"
	// Line gives the image, a line of text, the height of the input. It keeps its shape
	// and fills what remains at the right, but one that would be wider than the input is
	// made as wide.
	Line Resize = "line"
	// Center keeps the shape of the image and cuts off what is far from its center:
	// the shorter side becomes ShortSide pixels, of which the input is the middle.
	Center Resize = "center"
)

// Fixed reports whether every input has the same size.
func (r Resize) Fixed() bool { return r != Shrink && r != Height }

// Channels is what the numbers of a pixel are, in their order.
type Channels string

// The orders of channels.
const (
	RGB  Channels = "rgb"
	BGR  Channels = "bgr"
	Grey Channels = "grey"
)

// Count is how many numbers a pixel has.
func (c Channels) Count() int {
	if c == Grey {
		return 1
	}
	return 3
}

// Input says how an image becomes the input of a network, of the shape 1 × channels ×
// height × width. Each number is (pixel - mean) × scale, or (pixel - mean) / std, of
// pixels from 0 to 255.
type Input struct {
	Width  int    `yaml:"width"`
	Height int    `yaml:"height"`
	Resize Resize `yaml:"resize"`
	// Multiple is what width and height are multiples of when they follow from the
	// image; 0 stands for 1. The image is stretched to the nearest ones.
	Multiple int `yaml:"multiple"`
	// ShortSide is at least as large as Width and Height, and only given for [Center].
	ShortSide int `yaml:"short_side"`
	// Resizable says that the network takes other sizes than the one that its file
	// declares, such as Width × Height. Of the engines, ONNX Runtime keeps to what is
	// declared unless it is told so.
	Resizable bool     `yaml:"resizable"`
	Channels  Channels `yaml:"channels"`
	// Pad is the pixel value, before mean and scale, that letterboxes are filled with.
	Pad int `yaml:"pad"`
	// Mean has a number for each channel, in their order; none stands for 0.
	Mean []float64 `yaml:"mean"`
	// Scale multiplies; 0 stands for 1. Std divides, with a number for each channel.
	// Only one of both is given.
	Scale float64   `yaml:"scale"`
	Std   []float64 `yaml:"std"`
}

// Table returns, for a channel by its place in the order, the number that the network
// gets for each pixel value.
func (in Input) Table(channel int) (table [256]float32) {
	mean, factor := 0.0, 1.0
	if len(in.Mean) > 0 {
		mean = in.Mean[channel]
	}
	switch {
	case len(in.Std) > 0:
		factor = 1 / in.Std[channel]
	case in.Scale != 0:
		factor = in.Scale
	}
	for v := range table {
		table[v] = float32((float64(v) - mean) * factor)
	}
	return table
}
