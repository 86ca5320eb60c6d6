//go:build interop_clients

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// generators is a copy of the folder generators with its npm packages. Clients are
// generated in it.
type generators struct {
	dir string
	// openAPI and asyncAPI are the paths of the API descriptions.
	openAPI, asyncAPI string
}

func newGenerators(t *testing.T) *generators {
	t.Helper()
	g := &generators{
		dir:      filepath.Join(t.TempDir(), "generators"),
		openAPI:  filepath.Join(root(t), "contracts", "openapi.json"),
		asyncAPI: filepath.Join(root(t), "contracts", "asyncapi.json"),
	}
	if err := os.CopyFS(g.dir, os.DirFS(filepath.Join(root(t), "tools", "e2e", "generators"))); err != nil {
		t.Fatal(err)
	}
	g.run(t, "npm", "ci")
	return g
}

// run runs a program in the folder and returns its output. The program must succeed.
func (g *generators) run(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = g.dir
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=readonly",
		"REDOCLY_TELEMETRY=off", "REDOCLY_SUPPRESS_UPDATE_NOTICE=true")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestClients_Descriptions runs linters on the API descriptions and generates clients
// from openapi.json. A program with each client posts an image, reads its result, and
// reads a problem.
func TestClients_Descriptions(t *testing.T) {
	g := newGenerators(t)
	t.Run("redocly", func(t *testing.T) {
		out := g.run(t, "npx", "redocly", "lint", "--config", "redocly.yaml", "--format", "github-actions", g.openAPI)
		if strings.Contains(out, "::warning") {
			t.Error(out)
		}
	})
	t.Run("spectral", func(t *testing.T) {
		g.run(t, "npx", "spectral", "lint", "-r", "spectral.yaml", "--fail-severity", "hint", g.openAPI, g.asyncAPI)
	})
	t.Run("AsyncAPI parser", func(t *testing.T) { g.run(t, "node", "asyncapi.mjs", g.asyncAPI) })

	m := start(t, nil)
	image := filepath.Join(root(t), "tools", "e2e", "testdata", "codes.png")
	const want = "done 4 unknown-pipeline\n"
	check := func(t *testing.T, name string, args ...string) {
		t.Helper()
		if got := g.run(t, name, append(args, m.base(), image)...); got != want {
			t.Errorf("the client prints %q, want %q", got, want)
		}
	}
	t.Run("ogen", func(t *testing.T) {
		g.run(t, "go", "tool", "ogen", "--target", "ogen/api", "--package", "api", "--loglevel", "error", g.openAPI)
		check(t, "go", "run", "./ogen")
	})
	t.Run("oapi-codegen", func(t *testing.T) {
		if err := os.MkdirAll(filepath.Join(g.dir, "oapicodegen", "api"), 0o755); err != nil {
			t.Fatal(err)
		}
		g.run(t, "go", "tool", "oapi-codegen", "-generate", "types,client", "-package", "api",
			"-o", "oapicodegen/api/api.gen.go", g.openAPI)
		check(t, "go", "run", "./oapicodegen")
	})
	g.run(t, "npx", "openapi-typescript", g.openAPI, "-o", "openapi-typescript.d.ts")
	g.run(t, "npx", "openapi-ts", "-i", g.openAPI, "-o", "hey-api", "-c", "@hey-api/client-fetch")
	g.run(t, "npx", "tsc", "-p", ".")
	t.Run("openapi-typescript", func(t *testing.T) { check(t, "node", "js/openapi-typescript.mjs") })
	t.Run("hey-api", func(t *testing.T) { check(t, "node", "js/hey-api.mjs") })
}
