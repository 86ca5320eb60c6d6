package pool

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/lane"
	"github.com/sightmesh/sightmesh/lane/internal/jsonerror"
)

// maxText is the maximum size of a text in a reply, in bytes.
const maxText = 1 << 20

// newReplyProblem returns the problem of a reply that does not follow the protocol.
func newReplyProblem(format string, args ...any) error {
	return v1.NewProblem(v1.Internal, "the reply of the lane is invalid: "+format, args...)
}

// decodeReply decodes a reply that is known to be JSON. The error is a [*v1.Problem] that names
// the field and its value.
func decodeReply(facts []byte, into any) error {
	if i := invalidUTF8(facts); i >= 0 { // the decoder would replace it
		path, value := jsonerror.Locate(facts, i+1)
		return newReplyProblem("%s: %.60q, want UTF-8", path, strings.Trim(value, `"`))
	}
	if err := json.Unmarshal(facts, into); err != nil {
		return newReplyProblem("%s", jsonerror.Describe("", facts, err))
	}
	return nil
}

// invalidUTF8 returns the offset of the first byte that is not valid UTF-8, or -1.
func invalidUTF8(b []byte) int {
	if utf8.Valid(b) {
		return -1
	}
	for i := 0; ; {
		r, size := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && size == 1 {
			return i
		}
		i += size
	}
}

// checkDetected returns a [*v1.Problem] for an invalid reply to Detect.
func checkDetected(d lane.Detected, maxRegions int) error {
	switch {
	case d.Width < 1 || d.Height < 1:
		return newReplyProblem("width and height: %d x %d, want 1 or more", d.Width, d.Height)
	case d.Orientation < 0 || d.Orientation > 8:
		return newReplyProblem("orientation: %d, want 1 to 8", d.Orientation)
	case maxRegions > 0 && len(d.Regions) > maxRegions:
		return newReplyProblem("regions: %d of them, want at most %d", len(d.Regions), maxRegions)
	}
	for i, r := range d.Regions {
		field := fmt.Sprintf("regions.%d.", i)
		if err := cmp.Or(
			checkBox(field+"box", r.Box, d.Width, d.Height),
			checkScore(field+"score", r.Score),
			checkLabel(field+"label", r.Label),
			checkText(field+"text", r.Text, maxText),
			checkPolygon(field+"polygon", r.Polygon, d.Width, d.Height),
			checkLandmarks(field, r.Landmarks, d.Width, d.Height),
		); err != nil {
			return err
		}
	}
	for i, c := range d.Crops {
		if c.Source == nil {
			continue
		}
		if err := checkBox(fmt.Sprintf("crops.%d.source", i), *c.Source, d.Width, d.Height); err != nil {
			return err
		}
	}
	return nil
}

// checkPolygon allows corners outside of the image by as much as landmarks.
func checkPolygon(field string, corners []v1.Point, width, height int) error {
	if n := len(corners); n != 0 && (n < 3 || n > lane.MaxCorners) {
		return newReplyProblem("%s: %d corners, want none or 3 to %d", field, n, lane.MaxCorners)
	}
	for i, c := range corners {
		if err := checkNear(fmt.Sprintf("%s.%d", field, i), c.X, c.Y, width, height); err != nil {
			return err
		}
	}
	return nil
}

func checkLandmarks(field string, landmarks []v1.Landmark, width, height int) error {
	if len(landmarks) > lane.MaxLandmarks {
		return newReplyProblem("%slandmarks: %d of them, want at most %d", field, len(landmarks), lane.MaxLandmarks)
	}
	for i, l := range landmarks {
		name := fmt.Sprintf("%slandmarks.%d", field, i)
		if err := checkName(name+".name", l.Name); err != nil {
			return err
		}
		if err := checkNear(name, l.X, l.Y, width, height); err != nil {
			return err
		}
	}
	return nil
}

// checkNear allows points that are outside of the image by at most its width and height.
func checkNear(field string, x, y, width, height int) error {
	if x < -width || y < -height || x > 2*width || y > 2*height {
		return newReplyProblem("%s: %d, %d, which is far outside of %d x %d", field, x, y, width, height)
	}
	return nil
}

// checkClassified returns a [*v1.Problem] for an invalid reply to Classify.
func checkClassified(c lane.Classified, crops []lane.Crop) error {
	if len(c.Answers) != len(crops) {
		return newReplyProblem("answers: %d of them, want one for each of %d crops", len(c.Answers), len(crops))
	}
	for i, a := range c.Answers {
		crop := crops[i] //nolint:gosec // there are as many as answers
		if err := checkCropLabel(fmt.Sprintf("answers.%d.", i), a, crop); err != nil {
			return err
		}
	}
	return nil
}

func checkCropLabel(field string, a lane.CropLabel, crop lane.Crop) error {
	if err := cmp.Or(checkScore(field+"score", a.Score), checkText(field+"text", a.Text, maxText)); err != nil {
		return err
	}
	if len(a.Embedding) > lane.MaxEmbedding {
		return newReplyProblem("%sembedding: %d numbers, want at most %d", field, len(a.Embedding), lane.MaxEmbedding)
	}
	for i, l := range a.Labels {
		field := fmt.Sprintf("%slabels.%d.", field, i)
		if err := cmp.Or(checkName(field+"label", l.Label), checkScore(field+"score", l.Score)); err != nil {
			return err
		}
	}
	for i, w := range a.Words {
		field := fmt.Sprintf("%swords.%d.", field, i)
		if err := cmp.Or(
			checkBox(field+"box", w.Box, crop.Width, crop.Height),
			checkScore(field+"score", w.Score),
			checkText(field+"text", w.Text, maxText),
		); err != nil {
			return err
		}
	}
	return nil
}

// signatures are the first bytes of the files that a lane can encode.
var signatures = map[string][]byte{
	"image/png": []byte("\x89PNG\r\n\x1a\n"), "image/jpeg": []byte("\xff\xd8\xff"),
}

// checkDrawn returns a [*v1.Problem] for an invalid reply to Draw.
func checkDrawn(d lane.Drawn, encoded []byte, mediaType string) error {
	signature, ok := signatures[mediaType]
	switch {
	case d.Width < 1 || d.Height < 1:
		return newReplyProblem("width and height: %d x %d, want 1 or more", d.Width, d.Height)
	case !ok || !bytes.HasPrefix(encoded, signature):
		return newReplyProblem("%d bytes of pixels that begin with %.8q, want %s", len(encoded), encoded, mediaType)
	}
	return nil
}

func checkBox(field string, b v1.Box, width, height int) error {
	if b.Width < 1 || b.Height < 1 {
		return newReplyProblem("%s: %d x %d, want a width and a height of 1 or more", field, b.Width, b.Height)
	}
	if b.X < 0 || b.Y < 0 || b.Width > width-b.X || b.Height > height-b.Y {
		return newReplyProblem("%s: %d x %d at %d, %d, which is not inside of %d x %d",
			field, b.Width, b.Height, b.X, b.Y, width, height)
	}
	return nil
}

func checkScore(field string, score float64) error {
	if score < 0 || score > 1 {
		return newReplyProblem("%s: %v, want 0 to 1", field, score)
	}
	return nil
}

// checkName checks a label that must not be empty.
func checkName(field, name string) error {
	if name == "" {
		return newReplyProblem("%s: %q, want 1 to %d bytes", field, name, lane.MaxLabel)
	}
	return checkLabel(field, name)
}

// checkLabel rejects U+FFFD, which replaces bytes that are not UTF-8. A text can contain this
// character, because it may be in the image.
func checkLabel(field, label string) error {
	if strings.ContainsRune(label, utf8.RuneError) {
		return newReplyProblem("%s: %.60q, want UTF-8", field, label)
	}
	return checkText(field, label, lane.MaxLabel)
}

func checkText(field, text string, maxLen int) error {
	switch {
	case len(text) > maxLen:
		return newReplyProblem("%s: %.60q, %d bytes, want at most %d", field, text, len(text), maxLen)
	case strings.ContainsRune(text, 0):
		return newReplyProblem("%s: %.60q, want no NUL", field, text)
	}
	return nil
}

// newFailureProblem returns the problem of a failed request. A code that lanes must not use, such as
// [v1.Cancelled], becomes [v1.Internal] with the code in its detail.
func newFailureProblem(code v1.Code, detail string) *v1.Problem {
	switch code {
	case v1.EmptyBody, v1.UnsupportedType, v1.Damaged, v1.TooLarge, v1.TooManyPixels, v1.TooManyScans,
		v1.TooSlow, v1.TooMuchMemory, v1.InvalidMessage, v1.Internal:
	case "":
		detail = "the lane failed without a code: " + detail
		code = v1.Internal
	default:
		detail = fmt.Sprintf("the lane failed with %.60q: %s", code, detail)
		code = v1.Internal
	}
	return v1.NewProblem(code, "%s", detail)
}
