package models

import (
	"bytes"
	"path/filepath"
	"regexp"
	"testing"
)

// TestList_PrintsStates checks the list with a model in each state.
func TestList_PrintsStates(t *testing.T) {
	t.Parallel()
	models := t.TempDir()
	writeFolder(t, filepath.Join(models, "yunet"), map[string]string{"yunet_n_640_640.onnx": "other"})
	writeFolder(t, filepath.Join(models, "fastestdet"), map[string]string{"model.yaml": "mine"})
	c, err := BuiltIn()
	if err != nil {
		t.Fatal(err)
	}
	e, _ := c.entry("haar-frontalface-alt2")
	_, notInstalled := pullInto(t, models, e)
	var out bytes.Buffer
	if err := List(Config{Models: models}, &out); err != nil {
		t.Fatal(err)
	}
	want := []string{
		`(?m)^NAME +SIZE +LICENCE +STATE +DESCRIPTION$`,
		`(?m)^yolox-nano +3\.7 MB +Apache-2\.0 +not installed +objects of the 80 classes of COCO$`,
		`(?m)^yunet +0\.3 MB +Apache-2\.0 +wrong hash: yunet_n_640_640\.onnx +faces`,
		`(?m)^fastestdet +1\.0 MB +BSD-3-Clause +incomplete: FastestDet\.onnx, labels\.txt +objects`,
		`(?m)^faces +yunet$`,
	}
	if notInstalled != nil {
		t.Logf("the state of a complete model is not tested without the package opencv-data: %v", notInstalled)
	} else {
		want = append(want, `(?m)^haar-frontalface-alt2 +\d\.\d MB +BSD-3-Clause +installed +faces`)
	}
	for _, w := range want {
		if !regexp.MustCompile(w).MatchString(out.String()) {
			t.Errorf("no %q in\n%s", w, &out)
		}
	}
}
