package classify

import "testing"

func TestSum_HasThreeDecimals(t *testing.T) {
	t.Parallel()
	if got := sum(0.1, 0.2); got != 0.3 {
		t.Errorf("0.1 ms and 0.2 ms are %v ms, want 0.3", got)
	}
}
