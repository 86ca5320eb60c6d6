package v1

import "testing"

func TestDrawRegions_Titles(t *testing.T) {
	t.Parallel()
	regions := []Region{
		{Label: "face", Score: 0.97},
		{Label: "text", Text: "hello"},
		{Label: "object", Score: 0.5, Labels: []Label{{Label: "bicycle", Score: 0.9}, {Label: "car"}}},
	}
	for i, want := range []string{"face 0.97", "", "object 0.50, bicycle"} {
		if got := DrawRegions(regions)[i].Title; got != want {
			t.Errorf("region %d has the title %q, want %q", i, got, want)
		}
	}
}

func TestDrawRegions_NoneIsAnEmptyList(t *testing.T) {
	t.Parallel()
	if got := DrawRegions(nil); got == nil || len(got) != 0 {
		t.Errorf("got %#v, want an empty list", got)
	}
}
