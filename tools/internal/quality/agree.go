package quality

import (
	"bytes"
	"encoding/json"
	"slices"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// agree reports whether the result of a mesh has the regions, labels, texts and scores of the
// lanes alone, or the same problem. The boxes of words are not compared: lanes return them in
// pixels of the crop.
func agree(mesh, alone v1.Result) bool {
	if mesh.Problem != nil || alone.Problem != nil {
		return mesh.Problem != nil && alone.Problem != nil && mesh.Problem.Code == alone.Problem.Code
	}
	return slices.EqualFunc(mesh.Regions, alone.Regions, func(m, a v1.Region) bool {
		m.Fraction, m.Words = v1.Fraction{}, nil
		of, errM := json.Marshal(m) // JSON has no difference between an empty list and a missing list
		want, errA := json.Marshal(a)
		return errM == nil && errA == nil && bytes.Equal(of, want)
	})
}
