// Command genreference writes docs/reference: the flags of every program, from the output of --help, and the metrics of
// every service, from the source code of its packages.
//
//	genreference [--bin FOLDER] [--check] ROOT
//
// ROOT is the folder of the repository. Without --bin, genreference builds the programs first.
//
//go:generate go run . ../..
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

const folder = "docs/reference"

func main() {
	bin := flag.String("bin", "", "`folder` of the programs; empty: build them")
	check := flag.Bool("check", false, "compare the pages with those in the repository, and write nothing")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: genreference [--bin FOLDER] [--check] ROOT")
		os.Exit(2)
	}
	if err := run(flag.Arg(0), *bin, *check); err != nil {
		fmt.Fprintln(os.Stderr, "genreference:", err)
		os.Exit(1)
	}
}

func run(root, bin string, check bool) (err error) {
	if bin == "" {
		if bin, err = os.MkdirTemp("", "genreference"); err != nil {
			return fmt.Errorf("build the programs: %w", err)
		}
		defer func() { err = errors.Join(err, os.RemoveAll(bin)) }()
		if err := build(root, bin); err != nil {
			return err
		}
	}
	pages, err := generate(root, bin)
	if err != nil {
		return err
	}
	if check {
		return compare(root, pages)
	}
	return write(root, pages)
}

// services returns the names of the services, in the order of the pages.
func services() []string { return []string{"ingress", "detect", "classify", "results"} }

func build(root, dir string) error {
	args := []string{"build", "-o", dir + "/", "./tools/sightmesh"}
	for _, s := range services() {
		args = append(args, "./services/"+s)
	}
	cmd := exec.Command("go", args...)
	cmd.Dir, cmd.Stderr = root, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build the programs: %w", err)
	}
	return nil
}

// generate returns the pages by their paths, relative to root.
func generate(root, bin string) (map[string][]byte, error) {
	flags, err := flagsPage(bin)
	if err != nil {
		return nil, err
	}
	metrics, err := metricsPage(root)
	if err != nil {
		return nil, err
	}
	return map[string][]byte{folder + "/flags.md": flags, folder + "/metrics.md": metrics}, nil
}

func write(root string, pages map[string][]byte) error {
	if err := os.MkdirAll(filepath.Join(root, folder), 0o755); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	for name, page := range pages {
		if err := os.WriteFile(filepath.Join(root, name), page, 0o644); err != nil {
			return fmt.Errorf("write: %w", err)
		}
	}
	return nil
}

// compare returns an error with the names of the pages that differ from those in the repository.
func compare(root string, pages map[string][]byte) (err error) {
	for name, page := range pages {
		have, readErr := os.ReadFile(filepath.Join(root, name))
		switch {
		case readErr != nil:
			err = errors.Join(err, fmt.Errorf("read the page: %w", readErr))
		case string(have) != string(page):
			err = errors.Join(err, fmt.Errorf("%s is not up to date: run make build gen", name))
		}
	}
	return err
}
