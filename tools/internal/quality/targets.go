package quality

import (
	"errors"
	"fmt"
	"strings"
)

// target is a wanted value of a pipeline, with its measured value.
type target struct {
	name     string
	want     string
	measured string
	met      bool
}

const (
	mostAnyOrder      = 0.02 // of the characters of texts
	mostStrict        = 0.04
	mostFalseFaces    = 1
	mostObjectsMissed = 4
	notServed         = "not served"
)

// judge compares the measurements with the targets. Drawn images are compared with the
// baseline, and other images with the error rates for photos.
func judge(all []measured, baseline map[string]TextErrors) []target {
	var targets []target
	for _, m := range all {
		switch m.Name {
		case "text":
			targets = append(targets, judgeText(m, baseline)...)
		case "faces":
			targets = append(targets, judgeFaces(m)...)
		case "objects":
			targets = append(targets, judgeObjects(m)...)
		case "codes":
			targets = append(targets, judgeCodes(m)...)
		}
	}
	return append(targets, judgeAgreement(all)...)
}

func judgeText(m measured, baseline map[string]TextErrors) []target {
	var photos, drawn, before TextErrors
	for _, a := range m.results {
		if !a.scored {
			continue
		}
		of := Score{Text: &photos}
		if b, ok := baseline[a.image.Name]; ok {
			of.Text = &drawn
			was := Score{Text: &before}
			was.add(Score{Text: &b})
		}
		of.add(a.score)
	}
	rate := func(name string, wrong, chars int, most float64) target {
		return newTarget(m, name, fmt.Sprintf("at most %s", percent(most)),
			fmt.Sprintf("%s, %d of %d characters", percent(ratio(wrong, chars)), wrong, chars), ratio(wrong, chars) <= most)
	}
	var targets []target
	if photos.Chars > 0 || len(m.results) == 0 {
		targets = append(targets,
			rate("text of photos, in any order", photos.AnyOrder, photos.Chars, mostAnyOrder),
			rate("text of photos, strict", photos.Strict, photos.StrictChars, mostStrict))
	}
	if before.Chars > 0 {
		targets = append(targets,
			rate("text of drawn pages, in any order", drawn.AnyOrder, drawn.Chars, ratio(before.AnyOrder, before.Chars)),
			rate("text of drawn pages, strict", drawn.Strict, drawn.StrictChars, ratio(before.Strict, before.StrictChars)))
	}
	return targets
}

func judgeFaces(m measured) []target {
	s := m.sum()
	notAnimals := s.False - s.AnimalFaces
	return []target{
		newTarget(m, "faces found", "all", fmt.Sprintf("%d of %d", s.Found, s.Expected), s.Found == s.Expected),
		newTarget(m, "false faces, without those of animals", fmt.Sprintf("at most %d", mostFalseFaces),
			fmt.Sprint(notAnimals), notAnimals <= mostFalseFaces),
	}
}

func judgeObjects(m measured) []target {
	s := m.sum()
	missed := s.Expected - s.Found
	found := "all"
	if len(s.Missed) > 0 {
		found = "all but " + strings.Join(s.Missed, ", ")
	}
	return []target{
		newTarget(m, "objects missed", fmt.Sprintf("at most %d", mostObjectsMissed),
			fmt.Sprintf("%d of %d", missed, s.Expected), missed <= mostObjectsMissed),
		newTarget(m, "labels of objects found in their images", "all", found, len(s.Missed) == 0),
	}
}

func judgeCodes(m measured) []target {
	s := m.sum()
	return []target{
		newTarget(m, "codes found", "all", fmt.Sprintf("%d of %d", s.Found, s.Expected), s.Found == s.Expected),
		newTarget(m, "false codes", "none", fmt.Sprint(s.False), s.False == 0),
	}
}

func judgeAgreement(all []measured) []target {
	agreed, compared := 0, 0
	var differ []string
	for _, m := range all {
		for _, a := range m.results {
			compared++
			if a.agree {
				agreed++
			} else {
				differ = append(differ, m.Name+" of "+a.image.Name)
			}
		}
	}
	equal := fmt.Sprintf("%d of %d", agreed, compared)
	if len(differ) > 0 {
		equal += ", not " + strings.Join(differ, ", ")
	}
	return []target{{"results of the mesh that are those of its lanes alone", "all", equal, agreed == compared}}
}

// newTarget returns a target of a pipeline. A pipeline that is not served misses it.
func newTarget(m measured, name, want, got string, met bool) target {
	if m.reason != "" {
		return target{name, want, notServed, false}
	}
	return target{name, want, got, met}
}

// missedTargets returns an error that names the missed targets.
func missedTargets(targets []target) error {
	var errs []error
	for _, t := range targets {
		if !t.met {
			errs = append(errs, fmt.Errorf("target missed: %s: %s, want %s", t.name, t.measured, t.want))
		}
	}
	return errors.Join(errs...)
}

// sum adds up the scores of all images.
func (m measured) sum() Score {
	var s Score
	for _, a := range m.results {
		if a.scored {
			s.add(a.score)
		}
	}
	return s
}

func ratio(n, of int) float64 {
	if of == 0 {
		return 0
	}
	return float64(n) / float64(of)
}

func percent(f float64) string { return fmt.Sprintf("%.1f %%", 100*f) }
