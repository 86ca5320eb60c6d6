// Package quality compares the results of the pipelines with the content of images that a
// person has written down, and writes the tables of docs/models.md.
//
// The folder of an image also has NAME.expected.json, or NAME.txt with the whole text, line by
// line. The package sends each image to every pipeline of [Pipelines] that the mesh serves, and
// to the same lanes without a mesh. Both results must be equal.
//
// # Text
//
// Texts are compared after NFKC, with quotes, dashes and full stops folded into those of
// ASCII. There are two error rates, each a number of edits divided by a number of expected
// characters:
//
//   - in any order: without spaces, each expected line against the piece of the result that
//     is most like it. Missing lines count; unexpected lines do not.
//   - strict: with single spaces, the whole result against the whole text in reading order.
//     It needs the whole text, so it is not computed for images with TextContains.
//
// order.json has the reading orders of images whose expected lines are in another order.
//
// # Regions
//
// A face, object or code that is expected with a box is found by one region that overlaps
// it (intersection over union of at least 0.4) or has its centre inside. An object that is
// expected by number is found by any region of its label, or of an alternative label.
// Other regions are false, unless the image has no expectation for their kind.
package quality
