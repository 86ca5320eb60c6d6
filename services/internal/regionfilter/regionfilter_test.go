package regionfilter

import (
	"errors"
	"strings"
	"testing"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

func TestFilter_Apply(t *testing.T) {
	t.Parallel()
	all := "car:a bus:b person:c dog:d\n"
	result := func() v1.Result {
		text := strings.ReplaceAll("a b c d ", " ", "\n")
		return v1.Result{Text: &text, Regions: []v1.Region{
			{Label: "car", Score: 0.5, Text: "a"}, {Label: "bus", Score: 0.9, Text: "b"},
			{Label: "person", Score: 0.7, Text: "c", Labels: []v1.Label{{Label: "smile", Score: 0.6}}},
			{Label: "dog", Score: 0.7, Text: "d"},
		}}
	}
	for name, tt := range map[string]struct {
		values map[string]string
		want   string
	}{
		"none":                      {nil, all},
		"score":                     {map[string]string{"min_score": "0.7"}, "bus:b person:c dog:d\n"},
		"no score":                  {map[string]string{"min_score": "0"}, all},
		"label":                     {map[string]string{"labels": "car"}, "car:a\n"},
		"labels":                    {map[string]string{"labels": "dog, car"}, "car:a dog:d\n"},
		"a further label":           {map[string]string{"labels": "smile"}, "person:c\n"},
		"no region":                 {map[string]string{"labels": "Car"}, "\n"},
		"top":                       {map[string]string{"top": "2"}, "bus:b person:c\n"},
		"top of few":                {map[string]string{"top": "9"}, all},
		"top of those with a score": {map[string]string{"top": "1", "labels": "car,dog", "min_score": "0.1"}, "dog:d\n"},
	} {
		f, err := Parse(tt.values)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		before := result()
		after := f.Apply(before)
		var got []string
		text := ""
		for _, r := range after.Regions {
			got = append(got, r.Label+":"+r.Text)
			text += r.Text + "\n"
		}
		if s := strings.Join(got, " ") + "\n"; s != tt.want {
			t.Errorf("%s: kept %q, want %q", name, s, tt.want)
		}
		if *after.Text != text {
			t.Errorf("%s: the text is %q, want %q", name, *after.Text, text)
		}
		if after.Regions == nil {
			t.Errorf("%s: no regions are null, want an empty list", name)
		}
		if len(before.Regions) != 4 {
			t.Errorf("%s: the result that was given has changed", name)
		}
	}
}

func TestParse_MinScore(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]float64{
		"0": 0, "1": 1, "0.5": 0.5, ".5": 0.5, "1.": 1, "00.25": 0.25, "1e-3": 0.001, "5E-1": 0.5,
	} {
		f, err := Parse(map[string]string{MinScore: text})
		if err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if f.MinScore != want {
			t.Errorf("%s: got %v, want %v", text, f.MinScore, want)
		}
	}
}

func TestParse_LimitsTheLabels(t *testing.T) {
	t.Parallel()
	longest := strings.Repeat("a", MaxValue)
	if _, err := Parse(map[string]string{Labels: longest}); err != nil {
		t.Errorf("the longest label: %v", err)
	}
	_, err := Parse(map[string]string{Labels: longest + "a"})
	var p *v1.Problem
	if !errors.As(err, &p) {
		t.Fatalf("a longer label: %v, want a problem", err)
	}
	if p.Limit != MaxValue {
		t.Errorf("a longer label: the limit is %d, want %d", p.Limit, MaxValue)
	}
}

func TestParse_NamesTheInvalidParameter(t *testing.T) {
	t.Parallel()
	for name, values := range map[string][]string{
		"min_score": {
			"0." + strings.Repeat("0", MaxValue), "-0.1", "1.1", "NaN", "high", "", "+0.5", "0x1p-1", "0X1P-1", "-0", "0_1",
			".", "e-1",
		},
		"labels": {strings.Repeat("a", MaxValue+1), "", "a,,b", ","},
		"top":    {strings.Repeat("0", MaxValue) + "1", "0", "-1", "10001", "1.5", "all", "+1", "0x1", "1_0", ""},
	} {
		for _, value := range values {
			_, err := Parse(map[string]string{name: value})
			var p *v1.Problem
			if !errors.As(err, &p) {
				t.Errorf("%s=%.20s: %v, want a problem", name, value, err)
				continue
			}
			if p.Code != v1.InvalidParameter {
				t.Errorf("%s=%.20s: the code is %s, want %s", name, value, p.Code, v1.InvalidParameter)
			}
			if p.Field != name {
				t.Errorf("%s=%.20s: the field is %q, want %q", name, value, p.Field, name)
			}
		}
	}
}
