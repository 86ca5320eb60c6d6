// Package regionfilter filters the regions of a result by the parameters min_score,
// labels and top of a request. It is pure. Stored results have all regions.
package regionfilter

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// Names of the parameters.
const (
	MinScore = "min_score"
	Labels   = "labels"
	Top      = "top"
)

// MaxValue is the maximum length of the value of a parameter, in bytes.
const MaxValue = 8192

// maxTop is the maximum number of regions of a pipeline.
const maxTop = 10_000

// Filter selects regions. The zero value keeps all regions.
type Filter struct {
	// MinScore is the lowest score of a kept region, from 0 to 1.
	MinScore float64
	// Labels keeps the regions that have one of these labels, as their label or among
	// their further labels. Without labels it keeps regions with any label.
	Labels []string
	// Top is the maximum number of kept regions, those with the highest scores. 0
	// keeps all.
	Top int
}

// Parse parses a filter from values by parameter name. Each may be missing. The error is a
// [*v1.Problem] that names the invalid parameter.
func Parse(values map[string]string) (Filter, error) {
	var f Filter
	if text, ok := values[MinScore]; ok {
		score, err := parseDecimal(text)
		if err != nil || !(score >= 0 && score <= 1) || len(text) > MaxValue {
			return f, invalid(MinScore, "%s is %.20q, want a number from 0 to 1", MinScore, text)
		}
		f.MinScore = score
	}
	if text, ok := values[Labels]; ok {
		if len(text) > MaxValue {
			return f, invalid(Labels, "%s may have %d bytes", Labels, MaxValue).WithLimit(MaxValue)
		}
		for label := range strings.SplitSeq(text, ",") {
			if label = strings.TrimSpace(label); label == "" {
				return f, invalid(Labels, "%s is %.60q, want names with commas between", Labels, text)
			}
			f.Labels = append(f.Labels, label)
		}
	}
	if text, ok := values[Top]; ok {
		n, err := strconv.ParseUint(text, 10, 31) // no sign
		if err != nil || n < 1 || n > maxTop || len(text) > MaxValue {
			return f, invalid(Top, "%s is %.20q, want 1 to %d", Top, text, maxTop).WithLimit(maxTop)
		}
		f.Top = int(n)
	}
	return f, nil
}

// parseDecimal parses a decimal number without a sign, with or without an exponent, such as 0.5 or 1e-3. It rejects
// what [strconv.ParseFloat] accepts besides: signs, hexadecimal numbers and names such as inf.
func parseDecimal(text string) (float64, error) {
	if strings.IndexAny(text, "0123456789.") != 0 || strings.ContainsAny(text, "xXpP_") {
		return 0, strconv.ErrSyntax
	}
	return strconv.ParseFloat(text, 64)
}

// Headers returns the parameter name of each header of a NATS message.
func Headers() map[string]string {
	return map[string]string{v1.HeaderMinScore: MinScore, v1.HeaderLabels: Labels, v1.HeaderTop: Top}
}

// ParseHeader parses a filter from the headers of a NATS message, whose names are not
// case-sensitive. The error is a [*v1.Problem] that names the invalid parameter.
func ParseHeader(h map[string][]string) (Filter, error) {
	values := map[string]string{}
	for header, name := range Headers() {
		for given, all := range h {
			_, twice := values[name]
			switch {
			case !strings.EqualFold(given, header):
			case twice || len(all) > 1:
				return Filter{}, invalid(name, "%s is given more than once", header)
			case len(all) == 1 && all[0] == "":
				return Filter{}, invalid(name, "%s is empty", header)
			case len(all) == 1:
				values[name] = all[0]
			}
		}
	}
	return Parse(values)
}

// IsZero reports whether the filter keeps all regions.
func (f Filter) IsZero() bool { return f.MinScore == 0 && len(f.Labels) == 0 && f.Top == 0 }

func invalid(field, format string, args ...any) *v1.Problem {
	return v1.NewProblem(v1.InvalidParameter, format, args...).WithField(field)
}

// Apply returns a copy of r with the kept regions, in their order. If r has a text, the
// copy has the text of the kept regions. Apply does not change r.
func (f Filter) Apply(r v1.Result) v1.Result {
	if f.IsZero() || r.Regions == nil {
		return r
	}
	kept := make([]v1.Region, 0, len(r.Regions))
	for _, region := range r.Regions {
		if region.Score >= f.MinScore && f.hasLabel(region) {
			kept = append(kept, region)
		}
	}
	r.Regions = topRegions(kept, f.Top)
	if r.Text != nil {
		var text strings.Builder
		for _, region := range r.Regions {
			if region.Text != "" {
				text.WriteString(region.Text + "\n")
			}
		}
		s := text.String()
		r.Text = &s
	}
	return r
}

func (f Filter) hasLabel(r v1.Region) bool {
	return len(f.Labels) == 0 || slices.Contains(f.Labels, r.Label) ||
		slices.ContainsFunc(r.Labels, func(l v1.Label) bool { return slices.Contains(f.Labels, l.Label) })
}

// topRegions returns the n regions with the highest scores, in their order. Of regions with
// equal scores it prefers the first ones.
func topRegions(regions []v1.Region, n int) []v1.Region {
	if n == 0 || len(regions) <= n {
		return regions
	}
	places := make([]int, len(regions))
	for i := range places {
		places[i] = i
	}
	slices.SortStableFunc(places, func(a, b int) int { return cmp.Compare(regions[b].Score, regions[a].Score) })
	places = places[:n]
	slices.Sort(places)
	kept := make([]v1.Region, n)
	for i, place := range places {
		kept[i] = regions[place]
	}
	return kept
}
