package main

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/sightmesh/sightmesh/tools/internal/metricdefs"
)

const root = "../.."

func TestPages_AreUpToDate(t *testing.T) {
	t.Parallel()
	bin := filepath.Join(root, "bin")
	if _, err := os.Stat(filepath.Join(bin, "sightmesh")); err != nil {
		t.Fatalf("%v: run make build first", err)
	}
	pages, err := generate(root, bin)
	if err != nil {
		t.Fatal(err)
	}
	if err := compare(root, pages); err != nil {
		t.Error(err)
	}
}

func TestCompare_NamesPagesThatDiffer(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pages := map[string][]byte{folder + "/flags.md": []byte("a")}
	if err := compare(dir, pages); err == nil {
		t.Error("a page is missing: no error")
	}
	if err := write(dir, pages); err != nil {
		t.Fatal(err)
	}
	if err := compare(dir, pages); err != nil {
		t.Errorf("the page is the same: %v", err)
	}
	pages[folder+"/flags.md"] = []byte("b")
	if err := compare(dir, pages); err == nil {
		t.Error("the page differs: no error")
	}
}

func TestParseHelp_Service(t *testing.T) {
	t.Parallel()
	got := parseHelp(`Usage of detect:
  -admin address
    	address of probes (default "127.0.0.1:0")
  -lanes int
    	lanes of
    	the worker (default number of CPUs)
  -quiet
    	log less

Each of these flags can be given as an environment variable: -log-level as SIGHTMESH_LOG_LEVEL.

  -version
    	print the version and exit
`)
	want := []programFlag{
		{"admin", "SIGHTMESH_ADMIN", "address", "127.0.0.1:0", "address of probes"},
		{"lanes", "SIGHTMESH_LANES", "int", "number of CPUs", "lanes of the worker"},
		{"quiet", "SIGHTMESH_QUIET", "bool", "", "log less"},
		{"version", "", "bool", "", "print the version and exit"},
	}
	if !reflect.DeepEqual(got.flags, want) {
		t.Errorf("got %+v, want %+v", got.flags, want)
	}
}

func TestParseHelp_Command(t *testing.T) {
	t.Parallel()
	got := parseHelp(`DESCRIPTION
  measure a mesh

USAGE
  sightmesh bench [flags] IMAGE...

SUBCOMMANDS
  floor  measure the streams alone

FLAGS
  -models folder
    	folder of models; default from SIGHTMESH_MODELS (default "models")
`)
	want := command{
		description: "measure a mesh", usage: "sightmesh bench [flags] IMAGE...", subcommands: []string{"floor"},
		flags: []programFlag{
			{"models", "SIGHTMESH_MODELS", "folder", "models", "folder of models; default from SIGHTMESH_MODELS"},
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestUnit_FollowsFromTheName(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"sightmesh_lane_seconds": "seconds", "sightmesh_message_bytes_total": "bytes", "sightmesh_sessions": "number",
	} {
		if got := unit(metricdefs.Metric{Name: name}); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}
