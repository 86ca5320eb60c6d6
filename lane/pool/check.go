package pool

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane"
)

// Limits of what a lane may answer.
const (
	maxLabel = 256     // bytes of a label
	maxText  = 1 << 20 // bytes of the text of a crop
	// maxDetail is how many bytes of the detail of a failure are kept.
	maxDetail = 1 << 10
)

// wrong returns the problem of an answer that does not follow the contract.
func wrong(format string, args ...any) error {
	return v1.NewProblem(v1.Internal, "the lane answers "+format, args...)
}

// typeError says which field of an answer has which type, without names of Go.
func typeError(err error) string {
	var t *json.UnmarshalTypeError
	if errors.As(err, &t) {
		return fmt.Sprintf("%s: a JSON %s, which does not belong there", t.Field, t.Value)
	}
	return err.Error()
}

// checkDetected returns a [*v1.Problem] when a lane could not have found that.
func checkDetected(d lane.Detected, most int) error {
	switch {
	case d.Width < 1 || d.Height < 1:
		return wrong("width and height: %d x %d, want 1 or more", d.Width, d.Height)
	case d.Orientation < 0 || d.Orientation > 8:
		return wrong("orientation: %d, want 1 to 8", d.Orientation)
	case most > 0 && len(d.Regions) > most:
		return wrong("regions: %d of them, want at most %d", len(d.Regions), most)
	}
	for i, r := range d.Regions {
		field := fmt.Sprintf("regions.%d.", i)
		if err := checkBox(field+"box", r.Box, d.Width, d.Height); err != nil {
			return err
		}
		if err := checkLabel(field, r.Label, r.Score); err != nil {
			return err
		}
	}
	return nil
}

// checkClassified returns a [*v1.Problem] when a lane could not have said that
// of the crops.
func checkClassified(c lane.Classified, crops []lane.Crop) error {
	if len(c.Answers) != len(crops) {
		return wrong("answers: %d of them, want one for each of %d crops", len(c.Answers), len(crops))
	}
	for i, a := range c.Answers {
		field := fmt.Sprintf("answers.%d.", i)
		if err := checkLabel(field, "", a.Score); err != nil {
			return err
		}
		if len(a.Text) > maxText || !utf8.ValidString(a.Text) {
			return wrong("%stext: want UTF-8 of at most %d bytes", field, maxText)
		}
		for j, l := range a.Labels {
			if err := checkLabel(fmt.Sprintf("%slabels.%d.", field, j), l.Label, l.Score); err != nil {
				return err
			}
		}
		for j, w := range a.Words {
			word := fmt.Sprintf("%swords.%d.", field, j)
			crop := crops[i] //nolint:gosec // there are as many as answers
			if err := checkBox(word+"box", w.Box, crop.Width, crop.Height); err != nil {
				return err
			}
			if err := checkLabel(word, "", w.Score); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkBox(field string, b v1.Box, width, height int) error {
	if b.Width < 1 || b.Height < 1 || b.X < 0 || b.Y < 0 || b.Width > width-b.X || b.Height > height-b.Y {
		return wrong("%s: %d x %d at %d, %d, which is not inside of %d x %d", field, b.Width, b.Height, b.X, b.Y, width, height)
	}
	return nil
}

func checkLabel(field, label string, score float64) error {
	switch {
	case len(label) > maxLabel || !utf8.ValidString(label):
		return wrong("%slabel: want UTF-8 of at most %d bytes", field, maxLabel)
	case strings.ContainsRune(label, 0):
		return wrong("%slabel: %q, want no NUL", field, label)
	case score < 0 || score > 1:
		return wrong("%sscore: %v, want 0 to 1", field, score)
	}
	return nil
}

// failure returns the problem of a failed answer. What a lane cannot know, such
// as that a job was cancelled, is an internal problem that tells its code.
func failure(code v1.Code, detail string) *v1.Problem {
	switch code {
	case v1.EmptyBody, v1.UnsupportedType, v1.Damaged, v1.TooLarge, v1.TooManyPixels, v1.TooManyScans,
		v1.TooSlow, v1.TooMuchMemory, v1.InvalidMessage, v1.Internal:
	default:
		detail = fmt.Sprintf("the lane failed with %.60q: %s", code, detail)
		code = v1.Internal
	}
	detail = strings.ToValidUTF8(detail[:min(len(detail), maxDetail)], "") // without half a character
	return v1.NewProblem(code, "%s", detail)
}
