package v1_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"testing"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

func TestEveryCodeMakesAProblem(t *testing.T) {
	t.Parallel()
	form := regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`)
	titles := map[string]v1.Code{}
	for _, code := range v1.Codes() {
		p := v1.NewProblem(code, "seen %d", 7)
		if p.Code != code || p.Type != v1.ProblemBase+string(code) || p.Detail != "seen 7" {
			t.Errorf("NewProblem(%s) = %+v", code, p)
		}
		if !form.MatchString(string(code)) {
			t.Errorf("code %q is not lower case with hyphens, as an anchor is", code)
		}
		if p.Status < 400 || p.Status > 599 || http.StatusText(p.Status) == "" {
			t.Errorf("%s has status %d", code, p.Status)
		}
		if other, twice := titles[p.Title]; p.Title == "" || twice {
			t.Errorf("%s has title %q, which %s has too", code, p.Title, other)
		}
		titles[p.Title] = code
	}
	if len(titles) == 0 || !slices.Contains(v1.Codes(), v1.Internal) {
		t.Errorf("Codes() = %v", v1.Codes())
	}
}

func TestUnknownCodeIsInternal(t *testing.T) {
	t.Parallel()
	p := v1.NewProblem("from-a-newer-lane", "what it said")
	if p.Code != v1.Internal || p.Status != http.StatusInternalServerError || p.Detail != "what it said" {
		t.Errorf("got %+v", p)
	}
}

func TestProblemIsAnError(t *testing.T) {
	t.Parallel()
	err := fmt.Errorf("read body: %w", v1.NewProblem(v1.TooLarge, "9 bytes").WithField("image").WithLimit(8))
	var p *v1.Problem
	if !errors.As(err, &p) {
		t.Fatalf("%v does not wrap a problem", err)
	}
	if got, want := err.Error(), "read body: too-large: 9 bytes"; got != want {
		t.Errorf("error is %q, want %q", got, want)
	}
	if got, want := (&v1.Problem{Code: v1.Damaged}).Error(), "damaged"; got != want {
		t.Errorf("error is %q, want %q", got, want)
	}
	got, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"type":"` + v1.ProblemBase + `too-large","title":"The picture has too many bytes","status":413,` +
		`"detail":"9 bytes","code":"too-large","field":"image","limit":8}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
