package model

import (
	"encoding/hex"
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
)

// validate returns the errors in the fields. Each begins with the name of its field.
func (m *Model) validate() []error {
	var errs []error
	bad := func(field, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: %s", field, fmt.Sprintf(format, args...)))
	}
	switch {
	case m.Version == "":
		bad("version", "missing")
	case len(m.Version) > maxVersion || strings.ContainsFunc(m.Version, unicode.IsControl):
		bad("version", "%.60q, want at most %d bytes without control characters", m.Version, maxVersion)
	}
	if m.Kind == "" {
		bad("kind", "missing")
	}
	if slices.Contains(m.givenFields, "engines") && len(m.Engines) == 0 {
		bad("engines", "none, want some of %s, %s", OpenCV, ONNXRuntime)
	}
	for i, e := range m.Engines {
		switch {
		case e != OpenCV && e != ONNXRuntime:
			bad("engines", "%q, want some of %s, %s", e, OpenCV, ONNXRuntime)
		case slices.Contains(m.Engines[:i], e):
			bad("engines", "%s is given twice", e)
		case e == OpenCV && !m.Input.Resize.Fixed():
			bad("engines", "%s finds nothing in inputs of another size than the first, "+
				"which input.resize %s allows", e, m.Input.Resize)
		}
	}
	m.validateFiles(bad)
	if slices.Contains(m.givenFields, "input") {
		m.Input.validate(bad)
	}
	switch {
	case m.Input.Resizable && !slices.Contains(m.Engines, ONNXRuntime):
		bad("input.resizable", "only %s needs it, which is not in engines", ONNXRuntime)
	case m.Input.Resizable && !m.Input.Resize.Fixed():
		bad("input.resizable", "not used with input.resize %s, which has no fixed size", m.Input.Resize)
	}
	m.Output.validate(bad)
	if !isWithin(m.Threshold, 0, 1) {
		bad("threshold", "%v, want 0 to 1", m.Threshold)
	}
	if !isWithin(m.NMS, 0, 1) {
		bad("nms", "%v, want 0 to 1", m.NMS)
	}
	if m.Classes < 0 || m.Classes > maxClasses {
		bad("classes", "%d, want 0 to %d", m.Classes, maxClasses)
	}
	return errs
}

func (m *Model) validateFiles(bad func(field, format string, args ...any)) {
	files := map[string]string{"weights": m.Weights, "config": m.Config, "labels": m.Labels, "dictionary": m.Dictionary}
	named := slices.Collect(maps.Values(files))
	for _, field := range slices.Sorted(maps.Keys(files)) {
		f := files[field]
		if slices.Contains(m.givenFields, field) && (!filepath.IsLocal(f) || f == "." || strings.Contains(f, `\`)) {
			bad(field, "%q, want the name of a file in the folder", f)
		}
	}
	for _, file := range slices.Sorted(maps.Keys(m.SHA256)) {
		sum := m.SHA256[file]
		if file == "" || !slices.Contains(named, file) {
			bad("sha256", "%q is not a file of the model", file)
		}
		if b, err := hex.DecodeString(sum); err != nil || len(b) != 32 || strings.ToLower(sum) != sum {
			bad("sha256", "%s: %q, want 64 digits of lower-case hex", file, sum)
		}
	}
}

// maxSide limits the sides of an input, so that their product cannot overflow.
const maxSide = 8192

func (in Input) validate(bad func(field, format string, args ...any)) {
	if in.Width < 1 || in.Width > maxSide {
		bad("input.width", "%d, want 1 to %d", in.Width, maxSide)
	}
	if in.Height < 1 || in.Height > maxSide {
		bad("input.height", "%d, want 1 to %d", in.Height, maxSide)
	}
	switch in.Resize {
	case Stretch, Letterbox, LetterboxCenter, Shrink, Height, Line, Center:
	default:
		bad("input.resize", "%q, want %s, %s, %s, %s, %s, %s or %s",
			in.Resize, Stretch, Letterbox, LetterboxCenter, Shrink, Height, Line, Center)
	}
	switch {
	case in.Multiple != 0 && in.Resize.Fixed():
		bad("input.multiple", "not used with input.resize %s, which has a fixed size", in.Resize)
	case in.Multiple < 0 || in.Multiple > min(in.Width, in.Height):
		bad("input.multiple", "%d, want 1 to %d", in.Multiple, min(in.Width, in.Height))
	}
	switch least := max(in.Width, in.Height); {
	case in.Resize == Center && (in.ShortSide < least || in.ShortSide > maxSide):
		bad("input.short_side", "%d, want %d to %d", in.ShortSide, least, maxSide)
	case in.Resize != Center && in.ShortSide != 0:
		bad("input.short_side", "only used with input.resize %s", Center)
	}
	switch in.Channels {
	case RGB, BGR, Grey:
	default:
		bad("input.channels", "%q, want %s, %s or %s", in.Channels, RGB, BGR, Grey)
	}
	if in.Pad < 0 || in.Pad > 255 {
		bad("input.pad", "%d, want 0 to 255", in.Pad)
	}
	n := in.Channels.Count()
	if len(in.Mean) > 0 && len(in.Mean) != n {
		bad("input.mean", "%d numbers, want %d", len(in.Mean), n)
	}
	if !allWithin(in.Mean, -1e6, 1e6) {
		bad("input.mean", "%v, want -1e6 to 1e6", in.Mean)
	}
	if in.Scale != 0 && len(in.Std) > 0 {
		bad("input.scale", "given together with std, want only one")
	}
	if in.Scale != 0 && !isWithin(in.Scale, 1e-6, 1e6) {
		bad("input.scale", "%v, want 1e-6 to 1e6", in.Scale)
	}
	if len(in.Std) > 0 && len(in.Std) != n {
		bad("input.std", "%d numbers, want %d", len(in.Std), n)
	}
	if !allWithin(in.Std, 1e-6, 1e6) {
		bad("input.std", "%v, want 1e-6 to 1e6", in.Std)
	}
}

func (o Output) validate(bad func(field, format string, args ...any)) {
	for i, name := range o.Names {
		switch {
		case name == "":
			bad("output.names", "an empty name")
		case slices.Contains(o.Names[:i], name):
			bad("output.names", "%s is given twice", name)
		}
	}
	for _, s := range o.Strides {
		if s < 1 || s > maxSide {
			bad("output.strides", "%d, want 1 to %d", s, maxSide)
		}
	}
	for _, sides := range o.Priors {
		if len(sides) == 0 || !allWithin(sides, 1e-3, maxSide) {
			bad("output.priors", "%v, want sides of 0.001 to %d", sides, maxSide)
		}
	}
	if !isWithin(o.Pixel, 0, 1) {
		bad("output.pixel", "%v, want 0 to 1", o.Pixel)
	}
	if !isWithin(o.Unclip, 0, 10) {
		bad("output.unclip", "%v, want 0 to 10", o.Unclip)
	}
	if !isWithin(o.Space, 0, 1) {
		bad("output.space", "%v, want 0 to 1", o.Space)
	}
	if !allWithin(o.Variances, 1e-6, 1e6) {
		bad("output.variances", "%v, want 1e-6 to 1e6", o.Variances)
	}
}

// isWithin reports whether f is between low and high; it is false for NaN.
func isWithin(f, low, high float64) bool { return f >= low && f <= high && !math.IsNaN(f) }

func allWithin(fs []float64, low, high float64) bool {
	return !slices.ContainsFunc(fs, func(f float64) bool { return !isWithin(f, low, high) })
}
