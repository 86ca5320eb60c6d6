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

// validate returns what is wrong with the fields. Each error begins with the name of
// its field.
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
	if slices.Contains(m.given, "engines") && len(m.Engines) == 0 {
		bad("engines", "none, want some of %s, %s", OpenCV, ONNXRuntime)
	}
	for i, e := range m.Engines {
		switch {
		case e != OpenCV && e != ONNXRuntime:
			bad("engines", "%q, want some of %s, %s", e, OpenCV, ONNXRuntime)
		case slices.Contains(m.Engines[:i], e):
			bad("engines", "%s is given twice", e)
		case e == OpenCV && !m.Input.Resize.Fixed():
			bad("engines", "%s, which finds nothing in an input of another size than its first, and input.resize is %s",
				e, m.Input.Resize)
		}
	}
	m.validateFiles(bad)
	if slices.Contains(m.given, "input") {
		m.Input.validate(bad)
	}
	switch {
	case m.Input.Resizable && !slices.Contains(m.Engines, ONNXRuntime):
		bad("input.resizable", "given, but only %s keeps to the size that a file declares", ONNXRuntime)
	case m.Input.Resizable && !m.Input.Resize.Fixed():
		bad("input.resizable", "given, but %s has no fixed size", m.Input.Resize)
	}
	m.Output.validate(bad)
	if !within(m.Threshold, 0, 1) {
		bad("threshold", "%v, want 0 to 1", m.Threshold)
	}
	if !within(m.NMS, 0, 1) {
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
		if slices.Contains(m.given, field) && (!filepath.IsLocal(f) || f == "." || strings.Contains(f, `\`)) {
			bad(field, "%q, want the name of a file in the folder", f)
		}
	}
	for _, file := range slices.Sorted(maps.Keys(m.SHA256)) {
		sum := m.SHA256[file]
		if file == "" || !slices.Contains(named, file) {
			bad("sha256", "%q is none of the files of the model", file)
		}
		if b, err := hex.DecodeString(sum); err != nil || len(b) != 32 || strings.ToLower(sum) != sum {
			bad("sha256", "%s: %q, want 64 digits of lower-case hex", file, sum)
		}
	}
}

// maxSide bounds the sides of an input, so that their product cannot overflow.
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
		bad("input.multiple", "%d, but %s has a fixed size", in.Multiple, in.Resize)
	case in.Multiple < 0 || in.Multiple > min(in.Width, in.Height):
		bad("input.multiple", "%d, want 1 to %d", in.Multiple, min(in.Width, in.Height))
	}
	switch least := max(in.Width, in.Height); {
	case in.Resize == Center && (in.ShortSide < least || in.ShortSide > maxSide):
		bad("input.short_side", "%d, want %d to %d", in.ShortSide, least, maxSide)
	case in.Resize != Center && in.ShortSide != 0:
		bad("input.short_side", "given, but only %s has one", Center)
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
	if !all(in.Mean, -1e6, 1e6) {
		bad("input.mean", "%v, want -1e6 to 1e6", in.Mean)
	}
	if in.Scale != 0 && len(in.Std) > 0 {
		bad("input.scale", "given beside std, want one of both")
	}
	if in.Scale != 0 && !within(in.Scale, 1e-6, 1e6) {
		bad("input.scale", "%v, want 1e-6 to 1e6", in.Scale)
	}
	if len(in.Std) > 0 && len(in.Std) != n {
		bad("input.std", "%d numbers, want %d", len(in.Std), n)
	}
	if !all(in.Std, 1e-6, 1e6) {
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
		if len(sides) == 0 || !all(sides, 1e-3, maxSide) {
			bad("output.priors", "%v, want sides of 0.001 to %d", sides, maxSide)
		}
	}
	if !within(o.Pixel, 0, 1) {
		bad("output.pixel", "%v, want 0 to 1", o.Pixel)
	}
	if !within(o.Unclip, 0, 10) {
		bad("output.unclip", "%v, want 0 to 10", o.Unclip)
	}
	if !within(o.Space, 0, 1) {
		bad("output.space", "%v, want 0 to 1", o.Space)
	}
	if !all(o.Variances, 1e-6, 1e6) {
		bad("output.variances", "%v, want 1e-6 to 1e6", o.Variances)
	}
}

// within is false for what is no number.
func within(f, low, high float64) bool { return f >= low && f <= high && !math.IsNaN(f) }

func all(fs []float64, low, high float64) bool {
	return !slices.ContainsFunc(fs, func(f float64) bool { return !within(f, low, high) })
}
