package setup

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Bytes is a flag for a number of bytes, such as 268435456, 256MiB or 2GiB.
type Bytes int64

// units of a number of bytes. The empty one is last, because every number ends
// with it.
var units = []struct {
	name string
	size float64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"", 1}}

// String returns the number in the largest unit of which it is a multiple.
func (b *Bytes) String() string {
	for _, u := range units {
		if size := Bytes(u.size); *b != 0 && *b%size == 0 {
			return fmt.Sprint(int64(*b/size), u.name)
		}
	}
	return "0"
}

// Set reads the number.
func (b *Bytes) Set(s string) error {
	for _, u := range units {
		number, found := strings.CutSuffix(s, u.name)
		if !found {
			continue
		}
		f, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if err != nil || f < 0 || f*u.size >= math.MaxInt64 {
			break
		}
		*b = Bytes(f * u.size)
		return nil
	}
	return fmt.Errorf("%q is no number of bytes, such as 268435456, 256MiB or 2GiB", s)
}
