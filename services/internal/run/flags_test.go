package run

import (
	"flag"
	"io"
	"strings"
	"testing"
)

// twoFlags returns a flag set in which max-sessions was max-streams.
func twoFlags(sessions *int) *flag.FlagSet {
	fs := flag.NewFlagSet("test", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.IntVar(sessions, "max-sessions", 100, "sessions at a time")
	FormerName(fs, "max-sessions", "max-streams")
	return fs
}

func TestFormerName_SetsTheFlag(t *testing.T) {
	t.Parallel()
	var sessions int
	fs := twoFlags(&sessions)
	if err := fs.Parse([]string{"--max-streams", "7"}); err != nil {
		t.Fatal(err)
	}
	if sessions != 7 {
		t.Errorf("max-sessions is %d, want 7", sessions)
	}
	given, err := givenFormerNames(fs)
	if err != nil {
		t.Fatal(err)
	}
	if len(given) != 1 {
		t.Fatalf("given under former names: %v, want one", given)
	}
	if got := given[0].former; got != "max-streams" {
		t.Errorf("the former name is %s, want max-streams", got)
	}
}

func TestFormerName_IsNotGivenBesideTheName(t *testing.T) {
	t.Parallel()
	var sessions int
	fs := twoFlags(&sessions)
	if err := fs.Parse([]string{"--max-streams", "7", "--max-sessions", "8"}); err != nil {
		t.Fatal(err)
	}
	if _, err := givenFormerNames(fs); err == nil || !strings.Contains(err.Error(), "--max-streams") {
		t.Errorf("both names: %v, want an error that names --max-streams", err)
	}
}

func TestFormerName_IsInTheUsage(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	fs := twoFlags(new(int))
	fs.SetOutput(&out)
	fs.PrintDefaults()
	if !strings.Contains(out.String(), "former name of --max-sessions") {
		t.Errorf("the usage does not name it:\n%s", out.String())
	}
	if strings.Contains(out.String(), "panic") {
		t.Errorf("the usage has a panic:\n%s", out.String())
	}
}

func TestCommonFlags_ArgumentIsRejected(t *testing.T) {
	t.Parallel()
	var f commonFlags
	_, err := f.parse(Spec{Name: "test"}, []string{"version", "now"}, io.Discard)
	const want = `read flags: test takes no arguments, only flags; have "version"`
	if err == nil || err.Error() != want {
		t.Errorf("the error is %v, want %s", err, want)
	}
}
