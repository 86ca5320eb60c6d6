// Package model reads model folders. A folder contains a file model.yaml and the files
// that it names: weights, labels, a dictionary. model.yaml says what the model is, how the
// input of its network is made, and how the outputs are decoded. Nothing is guessed from
// the weights. A model need not be a network: it can be a cascade, for example.
//
// The package runs no native code. Package nets runs networks, and the detector or
// classifier of the model's kind decodes their outputs. It also checks that the model has
// the fields of its kind, see [Model.CheckNetwork] and [Model.CheckFields].
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
	// Name is the name of the folder.
	Name string `yaml:"-"`
	// Dir is the path of the folder.
	Dir string `yaml:"-"`
	// Version is the version of the model in results.
	Version string `yaml:"version"`
	// Kind names the detector or classifier that uses the model.
	Kind string `yaml:"kind"`
	// Engines are those that can run the network, the preferred one first.
	Engines []Engine `yaml:"engines"`
	// Weights, Config, Labels and Dictionary are names of files in the folder. Config is the
	// structure of a Caffe network. Each line of Labels is the name of a class, and each line
	// of Dictionary a character.
	Weights    string `yaml:"weights"`
	Config     string `yaml:"config"`
	Labels     string `yaml:"labels"`
	Dictionary string `yaml:"dictionary"`
	// SHA256 has the checksums of some or all of these files, by name, in lower-case hex.
	SHA256 map[string]string `yaml:"sha256"`
	// Licence is the licence of the weights, and Source is where they come from. The
	// program uses neither.
	Licence string `yaml:"licence"`
	Source  string `yaml:"source"`
	// Input says how an image becomes the input of the network.
	Input Input `yaml:"input"`
	// Output says how the outputs of the network are decoded.
	Output Output `yaml:"output"`
	// Threshold is the minimum score, between 0 and 1; 0 means that the model has none.
	Threshold float64 `yaml:"threshold"`
	// NMS is the limit of non-maximum suppression: of two boxes of one class whose
	// intersection over union is larger, the one with the lower score is removed. 0
	// disables it, for networks that include it.
	NMS float64 `yaml:"nms"`
	// Classes is the number of classes of the network, with its background. It equals the
	// number of lines of Labels.
	Classes int `yaml:"classes"`
	// Settings are the settings of a kind that is not a network.
	Settings map[string]any `yaml:"settings"`

	// ClassNames are the lines of Labels.
	ClassNames []string `yaml:"-"`
	// Characters are the lines of Dictionary.
	Characters []string `yaml:"-"`

	givenFields []string // names of the fields that model.yaml contains, such as output.format
}

// Output says how the outputs of a network are decoded. The kind of the model determines
// which fields are needed.
type Output struct {
	// Format is one of the formats of the kind.
	Format string `yaml:"format"`
	// Names are the names of the outputs, in the order that the kind defines. Empty means
	// the usual names of the kind.
	Names []string `yaml:"names"`
	// Strides has, for each grid, the distance of its cells in pixels of the input.
	Strides []int `yaml:"strides"`
	// Priors has, for each grid, the sides of the default boxes of a cell, in pixels of
	// the input.
	Priors [][]float64 `yaml:"priors"`
	// Variances scale the offsets of centers and the logarithms of sides.
	Variances []float64 `yaml:"variances"`
	// Pixel is the probability above which a pixel belongs to a line of text. Unclip says
	// how far the detected lines are expanded: by area × Unclip ÷ circumference on each
	// side.
	Pixel  float64 `yaml:"pixel"`
	Unclip float64 `yaml:"unclip"`
	// Space is the probability above which there is a space between two Latin letters,
	// although another character is more likely; 0 disables this.
	Space float64 `yaml:"space"`
}

// ErrNotFound says that the model folder does not exist.
var ErrNotFound = errors.New("the folder does not exist")

// Limits of a folder.
const (
	maxDescription = 1 << 20 // bytes of model.yaml
	maxText        = 8 << 20 // bytes of labels and dictionary
	maxClasses     = 100_000
	maxLine        = 256 // bytes of a label or a character
	maxVersion     = 64  // bytes; every result contains the version
)

// maxNames is the maximum number of models that the error for an absent folder names.
const maxNames = 20

// Open loads the model of the setting model of a pipeline, see [Find]. The error for a name without a folder has the
// names of the first 20 models in root.
func Open(root, name string) (*Model, error) {
	dir, err := Find(root, name)
	if err != nil {
		return nil, fmt.Errorf("settings.%w", err)
	}
	m, err := Load(dir)
	if errors.Is(err, ErrNotFound) && !isPath(name) {
		err = fmt.Errorf("%w; sightmesh models pull fetches models, see docs/models.md", err)
		if names := modelNames(root); len(names) > 0 {
			more := ""
			if n := len(names) - maxNames; n > 0 {
				names, more = names[:maxNames], fmt.Sprintf(" and %d more", n)
			}
			err = fmt.Errorf("%w; the folder %s has %s%s", err, root, strings.Join(names, ", "), more)
		}
	}
	return m, err
}

// Find returns the path of a model folder. A name with a slash is a path and is returned
// as it is. Any other name is that of a folder in root.
func Find(root, name string) (string, error) {
	switch {
	case name == "":
		return "", errors.New("model: missing, want the name of a model or the path of a folder")
	case isPath(name):
		return filepath.Clean(name), nil
	case !filepath.IsLocal(name) || name == ".":
		return "", fmt.Errorf("model: %q, want the name of a model or the path of a folder, with a slash", name)
	}
	return filepath.Join(root, name), nil
}

func isPath(name string) bool { return strings.ContainsRune(name, filepath.Separator) }

// modelNames returns the names of the models in a folder, sorted. A folder that cannot be read has none.
func modelNames(root string) []string {
	files, _ := fs.Glob(os.DirFS(root), "*/"+File) // its only error is for a bad pattern
	for i, f := range files {
		files[i] = filepath.Dir(f)
	}
	return files
}

// Load reads and checks the model.yaml of a folder, with the labels and the dictionary
// that it names. The error wraps [ErrNotFound] when the folder does not exist, and otherwise
// names file and field. Load does not read the weights, see [Model.ReadWeights].
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
		return fmt.Errorf("%s: %w", m.Dir, ErrNotFound)
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
	if m.givenFields, err = fieldNames(data); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if errs := m.validate(); len(errs) > 0 {
		return fmt.Errorf("%s: %w", path, errors.Join(errs...))
	}
	if m.ClassNames, err = m.readLines("labels", m.Labels); err != nil {
		return err
	}
	if n := len(m.ClassNames); m.Labels != "" && n != m.Classes {
		return fmt.Errorf("%s: classes: %d, but %s has %d lines", path, m.Classes, m.Labels, n)
	}
	m.Characters, err = m.readLines("dictionary", m.Dictionary)
	return err
}

// ReadWeights returns the contents of the weights and of the configuration; config is nil
// for a model without one. Files with another checksum than that in model.yaml are
// rejected, and so are files that cannot be a model, with an error that says what they are.
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

// FieldError wraps an error about a field of model.yaml. err must begin with the name of
// the field.
func (m *Model) FieldError(err error) error {
	return fmt.Errorf("model %s: %s: %w", m.Name, File, err)
}

// WeightsPath returns the path of the weights.
func (m *Model) WeightsPath() string { return filepath.Join(m.Dir, m.Weights) }

// read returns the content of a file in the folder. A file of more than most bytes is an
// error; -1 means no limit.
func (m *Model) read(name string, most int64) ([]byte, error) {
	path := filepath.Join(m.Dir, name)
	info, err := os.Stat(path) // checked before it is opened: opening a pipe blocks
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
			return nil, fmt.Errorf("%s: its SHA-256 is %s, but %s has %s: it is another file, or damaged",
				path, got, File, want)
		}
	}
	return data, nil
}

// checkContent rejects the content that a failed download often leaves in place of a file.
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

// readLines returns the lines of a text file in the folder, and nil when name is empty. A line
// that is a single space is valid; an empty line is an error.
func (m *Model) readLines(field, name string) ([]string, error) {
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

// checkLine returns an error for a line that a result cannot contain.
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
