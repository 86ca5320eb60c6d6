package quality

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Expected is the content of an image as a person sees it, from NAME.expected.json. Boxes
// are left, top, right and bottom, in pixels of the upright image.
type Expected struct {
	// Faces are all faces of the image; nil when they were not counted.
	Faces *struct {
		Count int   `json:"count"`
		Boxes []box `json:"boxes"`
	} `json:"faces"`
	// Counts are exact numbers by label. AtLeast are minimum numbers, for crowded or hard
	// images; 0 allows any number.
	Counts  map[string]int `json:"counts"`
	AtLeast map[string]int `json:"at_least"`
	// Objects are boxes of some or all counted objects.
	Objects []struct {
		Label string `json:"label"`
		Box   box    `json:"box"`
	} `json:"objects"`
	// Alternatives are labels that are as correct as the label that is the key.
	Alternatives map[string][]string `json:"alternatives"`
	// Text has all lines of the image, TextContains some of them.
	Text         []string `json:"text"`
	TextContains []string `json:"text_contains"`
	// Codes has the known texts of the codes of the image.
	Codes []string `json:"codes"`

	// orders are reading orders of Text as indexes. No order means the order of Text.
	orders [][]int
}

type box [4]int

// Image is an image with its expectation.
type Image struct {
	Name     string // file name without folder and extension
	Set      string // name of its folder
	Data     []byte
	Expected Expected
}

// Labels that do not belong to the pipeline objects.
const (
	labelFace = "face"
	labelCode = "qrcode"
)

//go:embed order.json
var orderFile []byte

// order has the reading orders of the text of an image.
type order struct {
	Why    string  `json:"why"`
	Strict *bool   `json:"strict"` // false: its whole text is not known
	Orders [][]int `json:"orders"` // indexes of the lines of its expected text
}

func readOrders(data []byte) (map[string]order, error) {
	var orders map[string]order
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&orders); err != nil {
		return nil, fmt.Errorf("read order.json: %w", err)
	}
	return orders, nil
}

// readingOrders returns the lines of the text in each order in which a person reads them.
func (e Expected) readingOrders() [][]string {
	if len(e.orders) == 0 {
		return [][]string{e.Text}
	}
	all := make([][]string, 0, len(e.orders))
	for _, order := range e.orders {
		lines := make([]string, 0, len(order))
		for _, i := range order {
			lines = append(lines, e.Text[i])
		}
		all = append(all, lines)
	}
	return all
}

// setOrder checks the entry of order.json for the text and stores its orders.
func (e *Expected) setOrder(o order) error {
	if o.Strict != nil && *o.Strict != (len(e.Text) > 0) {
		return fmt.Errorf("strict is %v, and the whole text of the image has %d lines", *o.Strict, len(e.Text))
	}
	for n, order := range o.Orders {
		sorted := slices.Sorted(slices.Values(order))
		for i := range max(len(e.Text), len(sorted)) {
			if i >= len(sorted) || sorted[i] != i || i >= len(e.Text) {
				return fmt.Errorf("orders.%d: %v, want each of 0 to %d once", n, order, len(e.Text)-1)
			}
		}
	}
	e.orders = o.Orders
	return nil
}

// hasText reports whether the image has expected text.
func (e Expected) hasText() bool { return len(e.Text)+len(e.TextContains) > 0 }

// count returns the expected number of a label.
func (e Expected) count(label string) int { return max(e.Counts[label], e.AtLeast[label]) }

// objectLabels returns the sorted labels that the pipeline objects should find.
func (e Expected) objectLabels() []string {
	labels := map[string]bool{}
	for _, counts := range []map[string]int{e.Counts, e.AtLeast} {
		for label, n := range counts {
			if n > 0 && label != labelFace && label != labelCode {
				labels[label] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(labels))
}

// boxes returns the expected boxes of a label.
func (e Expected) boxes(label string) []box {
	var bs []box
	for _, o := range e.Objects {
		if o.Label == label {
			bs = append(bs, o.Box)
		}
	}
	return bs
}

// readSet reads the images of a folder that have an expectation, sorted by name.
func readSet(dir string) ([]Image, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read images: %w", err)
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("read images: %w", err)
	}
	orders, err := readOrders(orderFile)
	if err != nil {
		return nil, err
	}
	var images []Image
	for _, entry := range entries {
		ext := filepath.Ext(entry.Name())
		if !slices.Contains(extensions, strings.ToLower(ext)) {
			continue
		}
		img := Image{Name: strings.TrimSuffix(entry.Name(), ext), Set: filepath.Base(abs)}
		expected, found, err := readExpected(filepath.Join(dir, img.Name))
		if err != nil {
			return nil, err
		}
		if !found {
			continue
		}
		if err := expected.setOrder(orders[img.Name]); err != nil {
			return nil, fmt.Errorf("order.json: %s: %w", img.Name, err)
		}
		img.Expected = expected
		if img.Data, err = os.ReadFile(filepath.Join(dir, entry.Name())); err != nil {
			return nil, fmt.Errorf("read image: %w", err)
		}
		images = append(images, img)
	}
	if len(images) == 0 {
		return nil, fmt.Errorf("read images of %s: none has a file NAME.expected.json or NAME.txt beside it", dir)
	}
	return images, nil
}

// extensions are the file extensions of images.
var extensions = []string{".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".gif"}

// readExpected reads base.expected.json or base.txt. found reports whether one exists.
func readExpected(base string) (e Expected, found bool, err error) {
	data, err := os.ReadFile(base + ".expected.json")
	if err == nil {
		if err := json.Unmarshal(data, &e); err != nil {
			return e, false, fmt.Errorf("read %s.expected.json: %w", base, err)
		}
		return e, true, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return e, false, fmt.Errorf("read the expectation: %w", err)
	}
	data, err = os.ReadFile(base + ".txt")
	if errors.Is(err, fs.ErrNotExist) {
		return e, false, nil
	}
	if err != nil {
		return e, false, fmt.Errorf("read the expectation: %w", err)
	}
	for line := range strings.Lines(string(data)) {
		if line = strings.TrimSpace(line); line != "" {
			e.Text = append(e.Text, line)
		}
	}
	return e, true, nil
}
