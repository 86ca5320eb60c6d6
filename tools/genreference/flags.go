package main

import (
	"bytes"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// programFlag is a flag as --help shows it.
type programFlag struct {
	name string
	// variable is the environment variable; empty when there is none.
	variable string
	// kind is the type or the unit of the value.
	kind string
	// byDefault is empty for none.
	byDefault string
	text      string
}

// command is a program or a subcommand as --help shows it.
type command struct {
	name        string // as it is typed
	description string
	usage       string
	flags       []programFlag
	subcommands []string
}

func flagsPage(bin string) ([]byte, error) {
	var of []command
	for _, s := range services() {
		c, err := readCommand(bin, []string{s})
		if err != nil {
			return nil, err
		}
		of = append(of, c)
	}
	commands, err := readTree(bin, []string{"sightmesh"})
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	out.WriteString(flagsIntroduction)
	common := slices.DeleteFunc(slices.Clone(of[0].flags), func(f programFlag) bool {
		return slices.ContainsFunc(of, func(c command) bool { return !slices.Contains(c.flags, f) })
	})
	out.WriteString("\n## All services\n\n`ingress`, `detect`, `classify` and `results` have these flags.\n")
	writeFlags(&out, common)
	for _, c := range of {
		fmt.Fprintf(&out, "\n## %s\n\nIn addition to the flags of [all services](#all-services):\n", c.name)
		writeFlags(&out, slices.DeleteFunc(c.flags, func(f programFlag) bool { return slices.Contains(common, f) }))
	}
	for _, c := range commands {
		fmt.Fprintf(&out, "\n## %s\n\n%s:\n\n    %s\n", c.name, sentence(strings.TrimSuffix(c.description, ".")), c.usage)
		writeFlags(&out, c.flags)
	}
	return out.Bytes(), nil
}

const flagsIntroduction = `# Flags

<!-- Written by tools/genreference from what the programs print with --help. Change the programs, and run make gen. -->

` + "`--help`" + ` prints the flags of a program. A flag is given as ` +
	"`--lanes 2` or `--lanes=2`" + `, with one dash or two. A flag
overrides its environment variable. A flag with an empty cell has no environment variable. An empty default is the
empty string.

A duration is a number with a unit, such as ` + "`300ms`, `20s` or `1h30m`" +
	`. A number of bytes has no unit; flags whose
description or default has a unit, such as ` + "`2GiB`" + `, also accept ` + "`KiB`, `MiB` and `GiB`" + `.
`

// readTree reads a command and those below it. Commands without flags of their own are kept
// when they have no subcommands.
func readTree(bin string, argv []string) ([]command, error) {
	c, err := readCommand(bin, argv)
	if err != nil {
		return nil, err
	}
	var all []command
	if len(c.flags) > 0 || len(c.subcommands) == 0 {
		all = append(all, c)
	}
	for _, sub := range c.subcommands {
		below, err := readTree(bin, append(slices.Clone(argv), sub))
		if err != nil {
			return nil, err
		}
		all = append(all, below...)
	}
	return all, nil
}

// readCommand runs a program with --help, without environment variables: they may change
// defaults.
func readCommand(bin string, argv []string) (command, error) {
	cmd := exec.Command(filepath.Join(bin, argv[0]), append(slices.Clone(argv[1:]), "--help")...)
	cmd.Env = []string{}
	text, err := cmd.CombinedOutput()
	if err != nil {
		return command{}, fmt.Errorf("run %s --help: %w: %s", strings.Join(argv, " "), err, text)
	}
	c := parseHelp(string(text))
	c.name = strings.Join(argv, " ")
	if len(c.flags) == 0 && len(c.subcommands) == 0 && c.usage == "" {
		return c, fmt.Errorf("%s --help cannot be read: %s", c.name, text)
	}
	return c, nil
}

var (
	flagLine = regexp.MustCompile(`^  -([a-z][a-z0-9-]*)(?: (.*))?$`)
	// defaultAtEnd ends the text of a flag, as package flag writes it.
	defaultAtEnd = regexp.MustCompile(` \(default (.*)\)$`)
	subcommand   = regexp.MustCompile(`^  ([a-z]+) `)
	variable     = regexp.MustCompile(`SIGHTMESH_[A-Z_]+`)
)

// parseHelp reads the output of --help: sections of package ffcli, and flags as package
// flag prints them.
func parseHelp(text string) (c command) {
	section := ""
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		switch {
		case line == strings.ToUpper(line) && line != "" && line[0] != ' ':
			section = line
		case section == "DESCRIPTION" && c.description == "":
			c.description = strings.TrimSpace(line)
		case section == "USAGE" && c.usage == "":
			c.usage = strings.TrimSpace(line)
		case section == "SUBCOMMANDS" && subcommand.MatchString(line):
			c.subcommands = append(c.subcommands, subcommand.FindStringSubmatch(line)[1])
		case flagLine.MatchString(line):
			m := flagLine.FindStringSubmatch(line)
			c.flags = append(c.flags, programFlag{name: m[1], kind: m[2]})
		case strings.HasPrefix(line, "    \t") && len(c.flags) > 0:
			f := &c.flags[len(c.flags)-1]
			f.text = strings.TrimSpace(f.text + " " + strings.TrimSpace(line))
		case strings.Contains(line, "environment variable"): // of all flags above
			for i := range c.flags {
				c.flags[i].variable = variableOf(c.flags[i].name)
			}
		}
	}
	for i := range c.flags {
		f := &c.flags[i]
		if m := defaultAtEnd.FindStringSubmatch(f.text); m != nil {
			f.text, f.byDefault = strings.TrimSuffix(f.text, m[0]), strings.Trim(m[1], `"`)
		}
		if f.kind == "" {
			f.kind = "bool"
		}
		if name := variableOf(f.name); variable.FindString(f.text) == name {
			f.variable = name
		}
	}
	return c
}

func variableOf(name string) string {
	return "SIGHTMESH_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

func writeFlags(out *bytes.Buffer, flags []programFlag) {
	if len(flags) == 0 {
		out.WriteString("\nIt has no flags.\n")
		return
	}
	out.WriteString("\n| flag | environment variable | default | type or unit | description |\n|---|---|---|---|---|\n")
	for _, f := range flags {
		fmt.Fprintf(out, "| `--%s` | %s | %s | %s | %s |\n",
			f.name, code(f.variable), defaultOf(f), code(f.kind), sentence(f.text))
	}
}

// defaultOf returns what a flag is when it is not given. Package flag prints no default that
// is zero.
func defaultOf(f programFlag) string {
	if f.byDefault != "" {
		if strings.Contains(f.byDefault, " ") {
			return f.byDefault // such as number of CPUs
		}
		return code(f.byDefault)
	}
	switch f.kind {
	case "bool":
		return "`false`"
	case "duration", "int", "uint", "float", "bytes", "pixels", "requests":
		return "`0`"
	}
	return ""
}

func code(s string) string {
	if s == "" {
		return ""
	}
	return "`" + strings.ReplaceAll(s, "|", `\|`) + "`"
}

var markup = strings.NewReplacer("|", `\|`, "*", `\*`, "<", `\<`)

// sentence makes a description begin in upper case, and escapes what Markdown would read.
func sentence(s string) string {
	if s == "" {
		return ""
	}
	return markup.Replace(strings.ToUpper(s[:1]) + s[1:])
}
