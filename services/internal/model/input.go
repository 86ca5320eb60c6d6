package model

// A Resize says how an image is resized to the size of the input.
type Resize string

// The values of Resize.
const (
	// Stretch scales width and height independently.
	Stretch Resize = "stretch"
	// Letterbox keeps the aspect ratio and pads at the right and at the bottom.
	Letterbox Resize = "letterbox"
	// LetterboxCenter keeps the aspect ratio and pads equally on both sides.
	LetterboxCenter Resize = "letterbox-center"
	// Shrink keeps the aspect ratio. Width and height are limits to which larger images
	// are reduced. Smaller images keep their size.
	Shrink Resize = "shrink"
	// Height keeps the aspect ratio and scales the image to the height. The width is a
	// limit.
	Height Resize = "height"
	// Line scales a line of text to the height of the input. It keeps the aspect ratio
	// and pads at the right. A line that would be wider than the input is compressed to
	// the width of the input.
	Line Resize = "line"
	// Center keeps the aspect ratio and crops: it scales the shorter side of the image to
	// ShortSide pixels, and the input is the center of the result.
	Center Resize = "center"
)

// Fixed reports whether the inputs for all images have the same size.
func (r Resize) Fixed() bool { return r != Shrink && r != Height }

// Channels says what the numbers of a pixel are, in their order.
type Channels string

// The values of Channels.
const (
	RGB  Channels = "rgb"
	BGR  Channels = "bgr"
	Grey Channels = "grey"
)

// Count returns the number of values per pixel.
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
	// Multiple applies to inputs whose size follows from the image: width and height are
	// rounded to multiples of it, and the image is stretched to them. 0 means 1.
	Multiple int `yaml:"multiple"`
	// ShortSide is used only by [Center], and is at least as large as Width and Height.
	ShortSide int `yaml:"short_side"`
	// Resizable says that the network accepts other sizes than the one that its file
	// declares, such as Width × Height. It is for ONNX Runtime, which otherwise accepts
	// only the declared size.
	Resizable bool     `yaml:"resizable"`
	Channels  Channels `yaml:"channels"`
	// Pad is the pixel value, before mean and scale, of the padding.
	Pad int `yaml:"pad"`
	// Mean has a number for each channel, in their order; empty means 0.
	Mean []float64 `yaml:"mean"`
	// Scale is a factor; 0 means 1. Std has a divisor for each channel. At most one of
	// the two is set.
	Scale float64   `yaml:"scale"`
	Std   []float64 `yaml:"std"`
}

// Table returns the number that the network gets for each pixel value of a channel. The
// channel is an index into the order of Channels.
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
