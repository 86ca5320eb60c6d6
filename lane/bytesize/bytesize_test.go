package bytesize

import "testing"

func TestParse_ReadsUnits(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]Size{
		"0": 0, "17": 17, "1.5KiB": 1536, "256MiB": 256 << 20, "2 GiB": 2 << 30,
	} {
		got, err := Parse(in)
		if err != nil {
			t.Errorf("%q: %v", in, err)
		}
		if got != want {
			t.Errorf("%q is %d, want %d", in, got, want)
		}
	}
}

func TestParse_RejectsInvalidSizes(t *testing.T) {
	t.Parallel()
	for _, in := range []string{"", "-1", "1GB", "MiB", "1e30GiB", "NaN"} {
		if _, err := Parse(in); err == nil {
			t.Errorf("%q is accepted", in)
		}
	}
}

func TestSize_String(t *testing.T) {
	t.Parallel()
	for want, n := range map[string]Size{"0": 0, "17": 17, "1536": 1536, "3KiB": 3 << 10, "2GiB": 2 << 30} {
		if got := n.String(); got != want {
			t.Errorf("%d is written %s, want %s", n, got, want)
		}
	}
}

func TestSize_SetKeepsTheValueOnError(t *testing.T) {
	t.Parallel()
	s := Size(17)
	if err := s.Set("much"); err == nil {
		t.Error("an invalid size is accepted")
	}
	if s != 17 {
		t.Errorf("the value is %d, want 17", s)
	}
}
