package chaos

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// An Image is a small BMP file whose result is known before it is sent: three
// regions, each labelled with one of its codes.
type Image struct {
	Client string
	File   []byte
	Sum    string // SHA-256 of File, lower-case hex
	Codes  [Codes]string
}

// Codes is the number of codes, and so of regions, of an [Image].
const Codes = 3

const (
	side   = 16 // pixels of width and height
	header = 54 // bytes before the pixels of a BMP file
)

// NewImage returns an image that no other number of the same seed has.
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
	i := Image{Client: client, File: file, Sum: hex.EncodeToString(sum[:])}
	for n := range i.Codes {
		i.Codes[n] = hex.EncodeToString(pixels[4*n : 4*n+4])
	}
	return i
}

// Check reports how a result that is done differs from the one that is known.
func (i Image) Check(r v1.Result) error {
	switch {
	case r.Image == nil || r.Image.SHA256 != i.Sum:
		return fmt.Errorf("it is the result of another image: %+v", r.Image)
	case len(r.Regions) != Codes:
		return fmt.Errorf("it has %d regions, want %d", len(r.Regions), Codes)
	}
	for n, region := range r.Regions {
		if len(region.Labels) != 1 || region.Labels[0].Label != i.Codes[n] {
			return fmt.Errorf("region %d has labels %v, want %s", n, region.Labels, i.Codes[n])
		}
	}
	return nil
}
