// Package model reads model folders. A folder holds a file model.yaml, which says
// of a network what it is and how it is fed and read, and the files that it names:
// weights, labels, a dictionary. Nothing is guessed from the weights. A model may also
// be something that is no network, such as a cascade.
//
// The package is pure: what runs a network is package nets, and what its numbers
// mean is decided by the detector or classifier of its kind. That also says which
// fields the kind has, see [Model.CheckNetwork] and [Model.CheckFields].
package model

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// File is the name of the file that describes a model, in its folder.
const File = "model.yaml"

// An Engine runs networks.
type Engine string

// The engines that a model may name.
const (
	OpenCV      Engine = "opencv"
	ONNXRuntime Engine = "onnxruntime"
)

// A Model is a folder with its model.yaml.
type Model struct {
	// Name is that of the folder.
	Name string `yaml:"-"`
	// Dir is the path of the folder.
	Dir string `yaml:"-"`
	// Version is what results say of the model.
	Version string `yaml:"version"`
	// Kind names the detector or classifier that feeds and reads the network.
	Kind string `yaml:"kind"`
	// Engines may run the network, the preferred one first.
	Engines []Engine `yaml:"engines"`
	// Weights, Config, Labels and Dictionary are names of files in the folder. Config is the
	// structure of a Caffe network. Labels has the name of a class in each line, Dictionary
	// a character.
	Weights    string `yaml:"weights"`
	Config     string `yaml:"config"`
	Labels     string `yaml:"labels"`
	Dictionary string `yaml:"dictionary"`
	// SHA256 has the sums of some or all of these files, by name, in lower-case hex.
	SHA256 map[string]string `yaml:"sha256"`
	// Licence is that of the weights, Source says where they come from. Both are for
	// readers.
	Licence string `yaml:"licence"`
	Source  string `yaml:"source"`
	// Input says how an image becomes the input of the network.
	Input Input `yaml:"input"`
	// Output says how the outputs of the network are read.
	Output Output `yaml:"output"`
	// Threshold is the score from which on something counts, between 0 and 1; 0 when
	// the model does not say.
	Threshold float64 `yaml:"threshold"`
	// NMS is the overlap, as intersection over union, above which the weaker of two
	// boxes of one class is dropped. 0 stands for never: networks that have done so.
	NMS float64 `yaml:"nms"`
	// Classes is how many classes the network knows, its background included; as many
	// as Labels has lines.
	Classes int `yaml:"classes"`
	// Settings are those of a kind that is no network.
	Settings map[string]any `yaml:"settings"`

	// ClassNames are the lines of Labels.
	ClassNames []string `yaml:"-"`
	// Characters are the lines of Dictionary.
	Characters []string `yaml:"-"`

	given []string // names of the fields in model.yaml, such as output.format
}

// Output says how the outputs of a network are read. What is needed depends on the
// kind of the model.
type Output struct {
	// Format is one of those that the kind knows.
	Format string `yaml:"format"`
	// Names are those of the outputs, in the order of the kind, when they are not the
	// usual ones.
	Names []string `yaml:"names"`
	// Strides are the distances, in pixels of the input, of the cells of each grid.
	Strides []int `yaml:"strides"`
	// Priors are the sides of the boxes, in pixels of the input, that each cell of
	// each grid begins with.
	Priors [][]float64 `yaml:"priors"`
	// Variances scale the offsets of centers and the logarithms of sides.
	Variances []float64 `yaml:"variances"`
	// Pixel is the probability from which on a pixel is in a line of text, and Unclip
	// how far lines are grown: by area × Unclip ÷ circumference to each side.
	Pixel  float64 `yaml:"pixel"`
	Unclip float64 `yaml:"unclip"`
	// Space is the probability from which on there is a space between two letters of
	// the Latin script, although another character is more likely; 0 for never.
	Space float64 `yaml:"space"`
}

// ErrAbsent says that there is no folder of that name.
var ErrAbsent = errors.New("the folder does not exist")

// Limits of a folder.
const (
	maxDescription = 1 << 20 // bytes of model.yaml
	maxText        = 8 << 20 // bytes of labels and dictionary
	maxClasses     = 100_000
	maxLine        = 256 // bytes of a label or a character
	maxVersion     = 64  // bytes; it is in every result
)

// Find returns the folder of a model: name itself when it is a path, that is has a
// slash, and otherwise the folder of that name below root.
func Find(root, name string) (string, error) {
	switch {
	case name == "":
		return "", errors.New("model: no name and no path")
	case strings.ContainsRune(name, filepath.Separator):
		return filepath.Clean(name), nil
	case !filepath.IsLocal(name) || name == ".":
		return "", fmt.Errorf("model: %q is neither a name nor a path", name)
	}
	return filepath.Join(root, name), nil
}

// Load reads the model.yaml of a folder and checks it, with the labels and the
// dictionary that it names. The error wraps [ErrAbsent] when there is no such
// folder, and otherwise names file and field. The weights are read by
// [Model.ReadWeights].
func Load(dir string) (*Model, error) {
	m := &Model{Name: filepath.Base(dir), Dir: dir}
	if err := m.load(); err != nil {
		return nil, fmt.Errorf("load model %s: %w", m.Name, err)
	}
	return m, nil
}

func (m *Model) load() error {
	switch info, err := os.Stat(m.Dir); {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s: %w", m.Dir, ErrAbsent)
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%s: want a folder with %s", m.Dir, File)
	}
	data, err := m.read(File, maxDescription)
	if err != nil {
		return err
	}
	path := filepath.Join(m.Dir, File)
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	if err := d.Decode(m); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := d.Decode(&struct{}{}); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: want one YAML document", path)
	}
	if m.given, err = fieldNames(data); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if errs := m.validate(); len(errs) > 0 {
		return fmt.Errorf("%s: %w", path, errors.Join(errs...))
	}
	if m.ClassNames, err = m.lines("labels", m.Labels); err != nil {
		return err
	}
	if n := len(m.ClassNames); m.Labels != "" && n != m.Classes {
		return fmt.Errorf("%s: classes: %d, but %s has %d lines", path, m.Classes, m.Labels, n)
	}
	m.Characters, err = m.lines("dictionary", m.Dictionary)
	return err
}

// ReadWeights returns the contents of the weights, and of the configuration where
// the model names one. Files that cannot be a model are refused by what they are,
// and those with another sum than model.yaml says.
func (m *Model) ReadWeights() (weights, config []byte, err error) {
	if weights, err = m.read(m.Weights, -1); err != nil {
		return nil, nil, fmt.Errorf("load model %s: weights: %w", m.Name, err)
	}
	if m.Config == "" {
		return weights, nil, nil
	}
	if config, err = m.read(m.Config, -1); err != nil {
		return nil, nil, fmt.Errorf("load model %s: config: %w", m.Name, err)
	}
	return weights, config, nil
}

// FieldError returns the error of a field of the model, which err names.
func (m *Model) FieldError(err error) error {
	return fmt.Errorf("model %s: %s: %w", m.Name, File, err)
}

// WeightsPath returns the path of the weights.
func (m *Model) WeightsPath() string { return filepath.Join(m.Dir, m.Weights) }

// read returns the content of a file of the folder that has at most so many bytes;
// -1 for any number.
func (m *Model) read(name string, most int64) ([]byte, error) {
	path := filepath.Join(m.Dir, name)
	info, err := os.Stat(path) // before it is opened: a pipe would wait for a writer
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s: not a regular file", path)
	case most >= 0 && info.Size() > most:
		return nil, fmt.Errorf("%s: %d bytes, want at most %d", path, info.Size(), most)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if err := checkContent(data); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if want, ok := m.SHA256[name]; ok {
		sum := sha256.Sum256(data)
		if got := hex.EncodeToString(sum[:]); got != want {
			return nil, fmt.Errorf("%s: its SHA-256 is %s, and %s says %s: it is another file, or was damaged", path, got, File, want)
		}
	}
	return data, nil
}

// checkContent refuses what is often found in place of a file that was to be
// downloaded.
func checkContent(data []byte) error {
	head := bytes.ToLower(bytes.TrimSpace(data[:min(len(data), 512)]))
	switch {
	case len(data) == 0:
		return errors.New("the file has no bytes")
	case bytes.HasPrefix(head, []byte("version https://git-lfs.github.com/")):
		return errors.New("a Git LFS pointer in place of the file: git lfs pull gets the file itself")
	case bytes.HasPrefix(head, []byte("<!doctype html")), bytes.HasPrefix(head, []byte("<html")):
		return errors.New("an HTML page in place of the file")
	}
	return nil
}

// lines returns those of a text file of the folder, none for no file. A space is a
// line like any other.
func (m *Model) lines(field, name string) ([]string, error) {
	if name == "" {
		return nil, nil
	}
	data, err := m.read(name, maxText)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", field, err)
	}
	text := strings.ReplaceAll(strings.TrimPrefix(string(data), "\ufeff"), "\r\n", "\n")
	all := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if i := slices.Index(all, ""); i >= 0 {
		return nil, fmt.Errorf("%s: %s: line %d is empty", field, filepath.Join(m.Dir, name), i+1)
	}
	for i, line := range all {
		if err := checkLine(line); err != nil {
			return nil, fmt.Errorf("%s: %s: line %d: %w", field, filepath.Join(m.Dir, name), i+1, err)
		}
	}
	return all, nil
}

// checkLine returns an error for a line that could not be in a result.
func checkLine(line string) error {
	switch {
	case len(line) > maxLine:
		return fmt.Errorf("%d bytes, want at most %d", len(line), maxLine)
	case !utf8.ValidString(line):
		return errors.New("not UTF-8")
	case strings.ContainsFunc(line, unicode.IsControl):
		return fmt.Errorf("%q has a control character", line)
	}
	return nil
}
