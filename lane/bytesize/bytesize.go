// Package bytesize reads and writes numbers of bytes with binary units, for
// flags and configuration files.
package bytesize

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Size is a number of bytes. A pointer to it is a [flag.Value].
type Size int64

// units are the units of a number of bytes. The empty one is last, because it is a suffix
// of every number.
var units = []struct {
	name string
	size float64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"", 1}}

// Parse parses a number of bytes that is not negative, such as 268435456, 256MiB or 2GiB.
func Parse(s string) (Size, error) {
	for _, u := range units {
		number, found := strings.CutSuffix(s, u.name)
		if !found {
			continue
		}
		f, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if err != nil || f < 0 || math.IsNaN(f) || f*u.size >= math.MaxInt64 {
			break
		}
		return Size(f * u.size), nil
	}
	return 0, fmt.Errorf("%q is not a number of bytes, such as 268435456, 256MiB or 2GiB", s)
}

// String returns s as a multiple of the largest possible unit.
func (s Size) String() string {
	for _, u := range units {
		if size := Size(u.size); s != 0 && s%size == 0 {
			return fmt.Sprint(int64(s/size), u.name)
		}
	}
	return "0"
}

// Set parses text like [Parse].
func (s *Size) Set(text string) error {
	n, err := Parse(text)
	if err != nil {
		return err
	}
	*s = n
	return nil
}
