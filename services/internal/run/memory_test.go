package run

import (
	"testing"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

func TestCapMemory_FollowsTheContainer(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name      string
		container uint64
		err       error
		want      uint64
	}{
		{"no limit", 0, memlimit.ErrNoLimit, 1 << 30},
		{"512 MiB", 512 << 20, nil, 512 << 20},
		{"8 GiB", 8 << 30, nil, 1 << 30},
	} {
		got, err := capMemory(func() (uint64, error) { return tt.container, tt.err })()
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if got != tt.want {
			t.Errorf("%s: %d bytes, want %d", tt.name, got, tt.want)
		}
	}
}
