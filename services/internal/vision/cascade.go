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

// CascadeDir is the folder of the cascades of Debian's package opencv-data.
const CascadeDir = "/usr/share/opencv4/haarcascades"

// LoadCascade opens the cascade in the file name.xml of the folder dir; an empty dir means
// [CascadeDir]. The caller closes the classifier.
func LoadCascade(dir, name string) (gocv.CascadeClassifier, v1.Model, error) {
	if dir == "" {
		dir = CascadeDir
	}
	c, err := OpenCascade(filepath.Join(dir, name+".xml"))
	return c, v1.Model{Name: name, Version: "opencv-" + gocv.OpenCVVersion()}, err
}

// OpenCascade opens the cascade in a file. A file that is not XML or contains no cascade is
// rejected here, because OpenCV would end the process. A file with other damage can still
// end the process. The caller closes the classifier.
func OpenCascade(path string) (gocv.CascadeClassifier, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return gocv.CascadeClassifier{}, fmt.Errorf("load cascade: %w", err)
	}
	if err := xml.Unmarshal(data, &struct{}{}); err != nil {
		return gocv.CascadeClassifier{}, fmt.Errorf("load cascade: read %s: %w", path, err)
	}
	if !bytes.Contains(data, []byte("BOOST")) {
		return gocv.CascadeClassifier{}, fmt.Errorf("load cascade: %s contains no cascade", path)
	}
	c := gocv.NewCascadeClassifier()
	if !c.Load(path) {
		c.Close()
		return gocv.CascadeClassifier{}, fmt.Errorf("load cascade: OpenCV cannot load %s", path)
	}
	return c, nil
}
