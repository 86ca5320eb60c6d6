package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
	"golang.org/x/mod/zip"

	"github.com/sightmesh/sightmesh/tools/internal/sample"
)

// modules is the path prefix of every module of the repository. The rest of the path
// of a module is its folder.
const modules = "github.com/sightmesh/sightmesh"

// publicModules are the folders of the modules that programs outside the repository
// may require.
var publicModules = []string{"contracts", "lane"}

// TestModules_OutsiderBuilds builds testdata/outsider as a user does: outside the
// repository, without replace, from a module proxy. The proxy has the public modules
// of the commit HEAD, so uncommitted changes are not tested. The program then runs as
// a lane pool and as a client of a mesh.
func TestModules_OutsiderBuilds(t *testing.T) {
	outsider := buildOutsider(t)
	t.Run("pool", func(t *testing.T) {
		if got, want := output(t, "", nil, outsider), "bounds 20 x 10 at 0, 0\n"; got != want {
			t.Errorf("the outsider's pool printed %q, want %q", got, want)
		}
	})
	t.Run("mesh", func(t *testing.T) {
		m := start(t, nil)
		page := filepath.Join(t.TempDir(), "page.png")
		if err := os.WriteFile(page, samplePage(t), 0o600); err != nil {
			t.Fatal(err)
		}
		got, want := output(t, "", nil, outsider, m.nats, page), strings.Join(sample.Text(), "\n")
		if n := editDistance(got, want); n != 0 {
			t.Errorf("the outsider's client read text with %d wrong letters:\n%s\nwant\n%s", n, got, want)
		}
	})
}

// TestModules_NarrowImports checks that the public modules have no unnecessary
// dependencies. The packages of lane import no NATS, no native code, no metrics and no
// traces. The packages of contracts import no other module of the repository.
func TestModules_NarrowImports(t *testing.T) {
	for _, tt := range []struct {
		module  string
		banned  []string
		allowed string // an exception from banned
	}{
		{"lane", []string{"github.com/nats-io", "gocv.io", "github.com/prometheus", "go.opentelemetry.io"}, ""},
		{"contracts", []string{modules}, modules + "/contracts"},
	} {
		dir := filepath.Join(root(t), tt.module)
		deps := output(t, dir, []string{"GOWORK=off"}, "go", "list", "-deps", "./...")
		for _, dep := range strings.Fields(deps) {
			banned := slices.ContainsFunc(tt.banned, func(parent string) bool { return isBelow(dep, parent) })
			if banned && !isBelow(dep, tt.allowed) {
				t.Errorf("a package of %s imports %s", tt.module, dep)
			}
		}
	}
}

// isBelow reports whether an import path is parent or a package below it.
func isBelow(path, parent string) bool {
	return path == parent || strings.HasPrefix(path, parent+"/")
}

// TestModules_OneVersion checks that every go.mod of the repository requires the
// modules of the repository at the same version.
func TestModules_OneVersion(t *testing.T) {
	requiredBy := map[string][]string{} // by version
	err := filepath.WalkDir(root(t), func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && strings.HasPrefix(d.Name(), ".") || d.Name() == "node_modules":
			return filepath.SkipDir
		case d.Name() != "go.mod":
			return nil
		}
		for _, r := range parseModFile(t, path).Require {
			if isBelow(r.Mod.Path, modules) {
				requiredBy[r.Mod.Version] = append(requiredBy[r.Mod.Version], path+" requires "+r.Mod.Path)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(requiredBy) != 1 {
		var report strings.Builder
		for _, version := range slices.Sorted(maps.Keys(requiredBy)) {
			fmt.Fprintf(&report, "\n%s:\n\t%s", version, strings.Join(requiredBy[version], "\n\t"))
		}
		t.Errorf("the go.mod files require modules of the repository at %d versions, want 1%s", len(requiredBy), &report)
	}
}

// buildOutsider builds testdata/outsider in a temporary folder and returns the path of
// the program.
func buildOutsider(t testing.TB) string {
	t.Helper()
	version := publicVersion(t)
	main, err := os.ReadFile(filepath.Join("testdata", "outsider", "main.go"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, content := range map[string][]byte{
		"main.go": main,
		"go.mod":  []byte("module example.com/outsider\n\ngo 1.26.0\n"),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// Third-party modules come from the module cache of this machine when it has
	// them. The build has its own module cache, so that it never uses the same
	// version of another commit.
	host := strings.Fields(output(t, dir, nil, "go", "env", "GOMODCACHE", "GOPROXY"))
	cache := filepath.Join(host[0], "cache", "download")
	proxies := []string{"file://" + moduleProxy(t, version), "file://" + cache, host[1]}
	env := []string{
		"GOWORK=off", "GOFLAGS=-mod=mod -modcacherw", "GOMODCACHE=" + t.TempDir(),
		"GOPROXY=" + strings.Join(proxies, ","), "GONOPROXY=none", "GOSUMDB=off",
	}
	get := []string{"get"}
	for _, name := range publicModules {
		get = append(get, modules+"/"+name+"@"+version)
	}
	output(t, dir, env, "go", get...)
	// With -trimpath the build does not depend on the folder of the module cache,
	// so that the next run uses the build cache.
	output(t, dir, env, "go", "build", "-trimpath", "-o", "outsider", ".")
	return filepath.Join(dir, "outsider")
}

// publicVersion returns the version at which the services require contracts.
func publicVersion(t testing.TB) string {
	t.Helper()
	for _, r := range parseModFile(t, filepath.Join(root(t), "services", "go.mod")).Require {
		if r.Mod.Path == modules+"/contracts" {
			return r.Mod.Version
		}
	}
	t.Fatal("services/go.mod does not require contracts")
	return ""
}

// moduleProxy creates a module proxy with the public modules of the commit HEAD, and
// returns its folder.
func moduleProxy(t testing.TB, version string) string {
	t.Helper()
	head, err := tryOutput(root(t), nil, "git", "rev-parse", "--verify", "HEAD")
	if err != nil {
		t.Fatalf("the modules are zipped from the commit HEAD, which needs git and the repository: %v", err)
	}
	commit := strings.TrimSpace(head)
	// CreateFromVCS does not accept a linked worktree, whose .git is a file.
	clone := filepath.Join(t.TempDir(), "clone")
	output(t, root(t), nil, "git", "clone", "--quiet", "--no-checkout", "--shared", ".", clone)
	date := strings.TrimSpace(output(t, clone, nil, "git", "show", "-s", "--format=%cI", commit))
	committed, err := time.Parse(time.RFC3339, date)
	if err != nil {
		t.Fatal(err)
	}
	proxy := t.TempDir()
	for _, name := range publicModules {
		m := module.Version{Path: modules + "/" + name, Version: version}
		dir := filepath.Join(proxy, filepath.FromSlash(m.Path), "@v")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		info, err := json.Marshal(struct {
			Version string
			Time    time.Time
		}{version, committed.UTC()})
		if err != nil {
			t.Fatal(err)
		}
		for suffix, content := range map[string]string{
			"list":            version + "\n",
			version + ".info": string(info),
			version + ".mod":  output(t, clone, nil, "git", "show", commit+":"+name+"/go.mod"),
		} {
			if err := os.WriteFile(filepath.Join(dir, suffix), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		f, err := os.Create(filepath.Join(dir, version+".zip"))
		if err != nil {
			t.Fatal(err)
		}
		if err := zip.CreateFromVCS(f, m, clone, commit, name); err != nil {
			t.Fatalf("zip %s: %v", m, err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return proxy
}

// parseModFile reads a go.mod file.
func parseModFile(t testing.TB, path string) *modfile.File {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := modfile.Parse(path, b, nil)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// output runs a program in a folder, with env added to its environment, and
// returns its standard output.
func output(t testing.TB, dir string, env []string, name string, args ...string) string {
	t.Helper()
	out, err := tryOutput(dir, env, name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// tryOutput is like output, but returns the error, which includes the standard error
// of the program.
func tryOutput(dir string, env []string, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = append(cmd.Environ(), env...)
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s: %w", strings.Join(cmd.Args, " "), err)
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w\n%s", err, exit.Stderr)
		}
		return "", err
	}
	return string(out), nil
}
