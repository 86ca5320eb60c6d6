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
	// kind is the type or unit of the value.
	kind string
	// defaultValue is the default in the output; empty when it has none.
	defaultValue string
	text         string
}

// command is a program or a subcommand as --help shows it.
type command struct {
	name        string // with its parents, such as sightmesh up
	description string
	usage       string
	flags       []programFlag
	subcommands []string
}

func flagsPage(bin string) ([]byte, error) {
	var perService []command
	for _, s := range services() {
		c, err := readCommand(bin, []string{s})
		if err != nil {
			return nil, err
		}
		perService = append(perService, c)
	}
	commands, err := readTree(bin, []string{"sightmesh"})
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	out.WriteString(flagsIntroduction)
	common := slices.DeleteFunc(slices.Clone(perService[0].flags), func(f programFlag) bool {
		return slices.ContainsFunc(perService, func(c command) bool { return !slices.Contains(c.flags, f) })
	})
	out.WriteString("\n## All services\n\n`ingress`, `detect`, `classify` and `results` have these flags.\n")
	writeFlags(&out, common)
	for _, c := range perService {
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

// readTree reads a command and its subcommands. It omits a command that has subcommands and no flags.
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

// readCommand runs a program with --help. It sets no environment variables, because they can change defaults.
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
	// defaultAtEnd matches the default that package flag adds to the text of a flag.
	defaultAtEnd = regexp.MustCompile(` \(default (.*)\)$`)
	subcommand   = regexp.MustCompile(`^  ([a-z]+) `)
	variable     = regexp.MustCompile(`SIGHTMESH_[A-Z_]+`)
)

// parseHelp parses the output of --help: sections of package ffcli, and flags in the form of package flag.
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
		case strings.Contains(line, "environment variable"): // the line applies to all flags above
			for i := range c.flags {
				c.flags[i].variable = variableName(c.flags[i].name)
			}
		}
	}
	for i := range c.flags {
		f := &c.flags[i]
		if m := defaultAtEnd.FindStringSubmatch(f.text); m != nil {
			f.text, f.defaultValue = strings.TrimSuffix(f.text, m[0]), strings.Trim(m[1], `"`)
		}
		if f.kind == "" {
			f.kind = "bool"
		}
		if name := variableName(f.name); variable.FindString(f.text) == name {
			f.variable = name
		}
	}
	return c
}

func variableName(name string) string {
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
			f.name, codeSpan(f.variable), formatDefault(f), codeSpan(f.kind), sentence(f.text))
	}
}

// formatDefault returns the default of a flag as Markdown. Package flag does not print zero defaults.
func formatDefault(f programFlag) string {
	if f.defaultValue != "" {
		if strings.Contains(f.defaultValue, " ") {
			return f.defaultValue // such as number of CPUs
		}
		return codeSpan(f.defaultValue)
	}
	switch f.kind {
	case "bool":
		return "`false`"
	case "duration", "int", "uint", "float", "bytes", "pixels", "requests":
		return "`0`"
	}
	return ""
}

func codeSpan(s string) string {
	if s == "" {
		return ""
	}
	return "`" + strings.ReplaceAll(s, "|", `\|`) + "`"
}

var markup = strings.NewReplacer("|", `\|`, "*", `\*`, "<", `\<`)

// sentence returns a description that begins in upper case, with the characters of Markdown escaped.
func sentence(s string) string {
	if s == "" {
		return ""
	}
	return markup.Replace(strings.ToUpper(s[:1]) + s[1:])
}
