package vision

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"os"
	"path/filepath"

	"gocv.io/x/gocv"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// CascadeDir is where Debian's opencv-data puts its cascades.
const CascadeDir = "/usr/share/opencv4/haarcascades"

// LoadCascade opens a cascade by its file name without .xml. The caller closes the
// classifier.
func LoadCascade(dir, name string) (gocv.CascadeClassifier, v1.Model, error) {
	if dir == "" {
		dir = CascadeDir
	}
	c, err := OpenCascade(filepath.Join(dir, name+".xml"))
	return c, v1.Model{Name: name, Version: "opencv-" + gocv.OpenCVVersion()}, err
}

// OpenCascade opens the cascade of a file. One that is not XML or holds no cascade is
// refused here, because OpenCV would end the process; one that is damaged further inside
// can still do that. The caller closes the classifier.
func OpenCascade(path string) (gocv.CascadeClassifier, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return gocv.CascadeClassifier{}, fmt.Errorf("load cascade: %w", err)
	}
	if err := xml.Unmarshal(data, &struct{}{}); err != nil {
		return gocv.CascadeClassifier{}, fmt.Errorf("load cascade: read %s: %w", path, err)
	}
	if !bytes.Contains(data, []byte("BOOST")) {
		return gocv.CascadeClassifier{}, fmt.Errorf("load cascade: %s holds no cascade", path)
	}
	c := gocv.NewCascadeClassifier()
	if !c.Load(path) {
		c.Close()
		return gocv.CascadeClassifier{}, fmt.Errorf("load cascade: OpenCV refuses %s", path)
	}
	return c, nil
}
