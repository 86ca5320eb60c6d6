package models

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// npmRegistry runs a registry with one package, dots 1.0.0, with these files. It counts the downloads of the package.
func npmRegistry(t *testing.T, files map[string]string) (fetched *int) {
	t.Helper()
	if _, err := exec.LookPath("npm"); err != nil {
		t.Skip("npm is not installed")
	}
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	all := map[string]string{"package/package.json": `{"name": "dots", "version": "1.0.0"}`}
	for name, text := range files {
		all[name] = text
	}
	for name, text := range all {
		if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644,
			Size: int64(len(text))}); err != nil {
			t.Fatal(err)
		}
		w.Write([]byte(text))
	}
	w.Close()
	z.Close()
	fetched = new(int)
	mux := http.NewServeMux()
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	sum := sha512.Sum512(b.Bytes())
	version := map[string]any{
		"name": "dots", "version": "1.0.0",
		"dist": map[string]string{
			"tarball": s.URL + "/dots.tgz", "integrity": "sha512-" + base64.StdEncoding.EncodeToString(sum[:]),
		},
	}
	mux.HandleFunc("/dots", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(map[string]any{
			"name": "dots", "dist-tags": map[string]string{"latest": "1.0.0"}, "versions": map[string]any{"1.0.0": version},
		})
	})
	mux.HandleFunc("/dots.tgz", func(w http.ResponseWriter, _ *http.Request) {
		*fetched++
		w.Write(b.Bytes())
	})
	t.Setenv("npm_config_registry", s.URL+"/")
	t.Setenv("npm_config_cache", t.TempDir())
	return fetched
}

// TestPull_FromNPM fetches a package with npm from a registry of the test. The package is fetched once for two files.
func TestPull_FromNPM(t *testing.T) {
	data := content(100_000)
	fetched := npmRegistry(t, map[string]string{"package/a/net.onnx": string(data), "package/keys.txt": "abc"})
	e := entryOf(data, Source{NPM: "dots@1.0.0", Path: "package/a/net.onnx"})
	keys := entryOf([]byte("abc"), Source{NPM: "dots@1.0.0", Path: "package/keys.txt"}).Files[0]
	keys.Name = "keys.txt"
	e.Files = append(e.Files, keys)
	t.Chdir(t.TempDir())
	const models = "models" // the default
	if _, err := pullInto(t, models, e); err != nil {
		t.Fatal(err)
	}
	checkFiles(t, filepath.Join(models, "dots"), map[string]string{
		"net.onnx": string(data), "keys.txt": "abc", "model.yaml": "kind: dots\n",
	})
	if *fetched != 1 {
		t.Errorf("the package was fetched %d times, want 1", *fetched)
	}
}

func TestPull_ReportsPackageErrors(t *testing.T) {
	data := content(100_000)
	npmRegistry(t, map[string]string{"package/small": "abc", "package/large": string(data) + "more",
		"package/page": "<html>"})
	for source, want := range map[Source]string{
		{NPM: "dots@1.0.0", Path: "package/none"}:  "npm dots@1.0.0: the package has no package/none",
		{NPM: "dots@1.0.0", Path: "package/small"}: "npm dots@1.0.0: it has 3 bytes, want 100000",
		{NPM: "dots@1.0.0", Path: "package/large"}: "npm dots@1.0.0: it has more than 100000 bytes",
		{NPM: "dots@1.0.0", Path: "package/page"}:  "npm dots@1.0.0: an HTML page in place of the file",
		{NPM: "dots@2.0.0", Path: "package/small"}: "npm dots@2.0.0: npm: exit status 1: ",
		{NPM: "none@1.0.0", Path: "package/small"}: "npm none@1.0.0: npm: exit status 1: ",
	} {
		models := t.TempDir()
		_, err := pullInto(t, models, entryOf(data, source))
		checkError(t, err, "dots: no source has net.onnx", want)
		checkNothing(t, models)
	}
}

// TestPull_WithoutARegistry checks that an unreachable registry does not prevent the use of the next source.
func TestPull_WithoutARegistry(t *testing.T) {
	if _, err := exec.LookPath("npm"); err != nil {
		t.Skip("npm is not installed")
	}
	t.Setenv("npm_config_registry", "http://127.0.0.1:1/")
	t.Setenv("npm_config_cache", t.TempDir())
	data, models := content(1000), t.TempDir()
	npm := Source{NPM: "dots@1.0.0", Path: "package/net.onnx"}
	_, err := pullInto(t, models, entryOf(data, npm))
	checkError(t, err, "npm dots@1.0.0: npm: exit status 1: ", "ECONNREFUSED")
	checkNothing(t, models)
	if _, err := pullInto(t, models, entryOf(data, npm, serve(t, serveFile(data)).source())); err != nil {
		t.Fatal(err)
	}
	checkDots(t, models, data)
}

func TestPull_WithoutPackageClients(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	data, models := content(1000), t.TempDir()
	npm, pip := Source{NPM: "dots@1.0.0", Path: "p"}, Source{Pip: "dots==1.0.0", Path: "p"}
	_, err := pullInto(t, models, entryOf(data, npm, pip))
	checkError(t, err, "npm dots@1.0.0: npm is not installed", "pip dots==1.0.0: pip3 is not installed")
	checkNothing(t, models)
	if _, err := pullInto(t, models, entryOf(data, npm, pip, serve(t, serveFile(data)).source())); err != nil {
		t.Fatal(err)
	}
	checkDots(t, models, data)
}

// TestPull_FromPip fetches a wheel with pip from an index of the test.
func TestPull_FromPip(t *testing.T) {
	if _, err := exec.LookPath("pip3"); err != nil {
		t.Skip("pip3 is not installed")
	}
	t.Chdir(t.TempDir())
	const models = "models" // the default
	data := content(100_000)
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for name, text := range map[string]string{
		"dots/net.onnx":                 string(data),
		"dots-1.0.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: dots\nVersion: 1.0.0\nRequires-Dist: nosuch\n",
		"dots-1.0.0.dist-info/WHEEL":    "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
		"dots-1.0.0.dist-info/RECORD":   "",
	} {
		w, err := z.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		w.Write([]byte(text))
	}
	z.Close()
	const wheel = "dots-1.0.0-py3-none-any.whl"
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, wheel):
			w.Write(b.Bytes())
		case r.URL.Path == "/dots/":
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprintf(w, `<!DOCTYPE html><html><body><a href="/%s">%s</a></body></html>`, wheel, wheel)
		default:
			http.NotFound(w, r)
		}
	})
	t.Setenv("PIP_INDEX_URL", s.URL)
	t.Setenv("PIP_NO_CACHE_DIR", "1")
	e := entryOf(data, Source{Pip: "dots==1.0.0", Path: "dots/net.onnx"})
	if _, err := pullInto(t, models, e); err != nil {
		t.Fatal(err)
	}
	checkDots(t, models, data)
	for source, want := range map[Source]string{
		{Pip: "dots==1.0.0", Path: "dots/none"}:     "pip dots==1.0.0: the package has no dots/none",
		{Pip: "dots==2.0.0", Path: "dots/net.onnx"}: "pip dots==2.0.0: pip3: exit status 1: ",
	} {
		models := t.TempDir()
		_, err := pullInto(t, models, entryOf(data, source))
		checkError(t, err, want)
		checkNothing(t, models)
	}
}
