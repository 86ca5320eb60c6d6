package chaos

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// An Image is a file with a known result: a region for each of its codes, with the
// code as its text or as its only label.
type Image struct {
	Client string
	File   []byte
	Sum    string // SHA-256 of File, lower-case hex
	Codes  []string
}

// Codes is the number of codes of an image of [NewImage], which is its number of regions.
const Codes = 3

const (
	side   = 16 // pixels of width and height
	header = 54 // bytes before the pixels of a BMP file
)

// NewImage returns a small BMP file. Images with another number or seed differ. Its
// codes are computed from its pixels.
func NewImage(client string, seed, number uint64) Image {
	file := make([]byte, header, header+side*side*3)
	copy(file, "BM")
	binary.LittleEndian.PutUint32(file[2:], header+side*side*3)
	binary.LittleEndian.PutUint32(file[10:], header)
	binary.LittleEndian.PutUint32(file[14:], header-14)
	binary.LittleEndian.PutUint32(file[18:], side)
	binary.LittleEndian.PutUint32(file[22:], side)
	binary.LittleEndian.PutUint16(file[26:], 1)
	binary.LittleEndian.PutUint16(file[28:], 24)
	binary.LittleEndian.PutUint32(file[34:], side*side*3)
	pixels := sha256.Sum256(fmt.Appendf(nil, "%d %d", seed, number))
	for len(file) < header+side*side*3 {
		file = append(file, pixels[:]...)
	}
	sum := sha256.Sum256(file)
	i := Image{Client: client, File: file, Sum: hex.EncodeToString(sum[:]), Codes: make([]string, Codes)}
	for n := range i.Codes {
		i.Codes[n] = hex.EncodeToString(pixels[4*n : 4*n+4])
	}
	return i
}

// NewCopy returns a copy of a PNG file with a comment. Copies with another number or
// seed differ. codes are the expected codes of its regions.
func NewCopy(client string, png []byte, codes []string, seed, number uint64) (Image, error) {
	end, ok := bytes.CutSuffix(png, endOfPNG)
	if !ok {
		return Image{}, errors.New("copy an image: it is not a PNG file")
	}
	chunk := fmt.Appendf([]byte("tEXt"), "Comment\x00%d %d", seed, number)
	file := slices.Clone(end)
	file = binary.BigEndian.AppendUint32(file, uint32(len(chunk)-len("tEXt")))
	file = append(file, chunk...)
	file = binary.BigEndian.AppendUint32(file, crc32.ChecksumIEEE(chunk))
	file = append(file, endOfPNG...)
	sum := sha256.Sum256(file)
	return Image{Client: client, File: file, Sum: hex.EncodeToString(sum[:]), Codes: codes}, nil
}

// endOfPNG is the last chunk of a PNG file.
var endOfPNG = []byte("\x00\x00\x00\x00IEND\xaeB\x60\x82")

// Check returns an error when a done result differs from the known result.
func (i Image) Check(r v1.Result) error {
	switch {
	case r.Image == nil || r.Image.SHA256 != i.Sum:
		return fmt.Errorf("the result is that of another image: %+v", r.Image)
	case len(r.Regions) != len(i.Codes):
		return fmt.Errorf("the result has %d regions, want %d", len(r.Regions), len(i.Codes))
	}
	for n, region := range r.Regions {
		if code := codeText(region); code != i.Codes[n] {
			return fmt.Errorf("region %d has the code %q, want %q", n, code, i.Codes[n])
		}
	}
	return nil
}

// codeText returns the text of a region, or its only label.
func codeText(r v1.Region) string {
	if r.Text == "" && len(r.Labels) == 1 {
		return r.Labels[0].Label
	}
	return r.Text
}
