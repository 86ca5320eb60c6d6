package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/lane/pipeline"
)

// longestName is that of a label: Kubernetes makes one of the names of Services,
// Jobs and Pods.
const longestName = 63

func checkName(m manifest) error {
	if n := len(m.Metadata.Name); n > longestName {
		return fmt.Errorf("%s %s: the name has %d characters, want %d at most", m.Kind, m.Metadata.Name, n, longestName)
	}
	return nil
}

// checkNATSConfig makes a server of each nats.conf, without starting it.
func checkNATSConfig(m manifest) error {
	conf, ok := m.Data["nats.conf"]
	if !ok {
		return nil
	}
	opts, err := natsOptions(conf)
	if err != nil {
		return fmt.Errorf("%s %s: nats.conf: %w", m.Kind, m.Metadata.Name, err)
	}
	if opts.MaxPayload < streams.MaxMessage+streams.HeaderAllowance {
		return fmt.Errorf("%s %s: max_payload is %d, want %d", m.Kind, m.Metadata.Name, opts.MaxPayload,
			streams.MaxMessage+streams.HeaderAllowance)
	}
	if _, err := server.NewServer(opts); err != nil {
		return fmt.Errorf("%s %s: make a server of nats.conf: %w", m.Kind, m.Metadata.Name, err)
	}
	return nil
}

// natsOptions parses a configuration as the server does in a pod.
func natsOptions(conf string) (opts *server.Options, err error) {
	dir, err := os.MkdirTemp("", "nats")
	if err != nil {
		return nil, fmt.Errorf("write the configuration: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	file := filepath.Join(dir, "nats.conf")
	conf = strings.ReplaceAll(conf, "$POD_NAME", "pod-0")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		return nil, fmt.Errorf("write the configuration: %w", err)
	}
	if opts, err = server.ProcessConfigFile(file); err != nil {
		return nil, fmt.Errorf("parse: %w", err)
	}
	return opts, nil
}

// checkNATSVersion: the configuration is checked with the server that runs it.
func checkNATSVersion(m manifest) error {
	if m.Kind != "StatefulSet" {
		return nil
	}
	for _, c := range m.containers() {
		if _, tag, _ := strings.Cut(filepath.Base(c.Image), ":"); c.Name == "nats" && !strings.HasPrefix(tag, server.VERSION) {
			return fmt.Errorf("%s %s: image %s, want the version %s that go.mod names", m.Kind, m.Metadata.Name, c.Image, server.VERSION)
		}
	}
	return nil
}

// checkTriggers: the consumers whose lag scales workers are those of the built-in
// pipelines, each once.
func checkTriggers(m manifest) (err error) {
	known := map[string]string{} // stream of each consumer
	for _, c := range streams.Consumers(streams.Config{Pipelines: pipeline.BuiltInNames()}) {
		known[c.Config.Durable] = c.Stream
	}
	for _, t := range m.Spec.Triggers {
		if stream, ok := known[t.Metadata.Consumer]; !ok || stream != t.Metadata.Stream {
			err = errors.Join(err, fmt.Errorf("%s %s: %s has no consumer %q", m.Kind, m.Metadata.Name, t.Metadata.Stream, t.Metadata.Consumer))
		}
		delete(known, t.Metadata.Consumer)
	}
	if len(m.Spec.Triggers) == 0 {
		return err
	}
	stage := m.Metadata.Name[strings.LastIndex(m.Metadata.Name, "-")+1:]
	for consumer := range known {
		if strings.HasPrefix(consumer, stage+"-") {
			err = errors.Join(err, fmt.Errorf("%s %s: no trigger for the consumer %s", m.Kind, m.Metadata.Name, consumer))
		}
	}
	return err
}

var reference = regexp.MustCompile(`\$\(([A-Za-z_][A-Za-z0-9_]*)\)`)

// checkReferences: a variable that another one refers to is defined before it, or
// Kubernetes leaves the reference as it stands.
func checkReferences(m manifest) (err error) {
	for _, c := range m.containers() {
		defined := map[string]bool{}
		for _, v := range c.Env {
			for _, r := range reference.FindAllStringSubmatch(v.Value, -1) {
				if !defined[r[1]] {
					err = errors.Join(err, fmt.Errorf("%s %s: %s refers to %s, which is not defined before it", m.Kind, m.Metadata.Name, v.Name, r[1]))
				}
			}
			defined[v.Name] = true
		}
	}
	return err
}

// programs are those of the images, by what they say of their flags.
type programs struct {
	bin    string
	usages map[string]usage
}

// usage is the flags of a program.
type usage map[string]bool

var flagLine = regexp.MustCompile(`(?m)^ +-([a-z][a-z0-9-]*)`)

// check holds the arguments and variables of each container of ours against the
// flags of its program.
func (p programs) check(m manifest) (err error) {
	for _, c := range m.containers() {
		_, service, ours := strings.Cut(filepath.Base(c.Image), "sightmesh-")
		if !ours {
			continue
		}
		program, _, _ := strings.Cut(service, ":")
		command := []string{filepath.Join(p.bin, program)}
		if program == "setup" {
			command = []string{filepath.Join(p.bin, "sightmesh")}
			for _, a := range c.Args {
				if strings.HasPrefix(a, "-") || len(command) > 2 || len(command) == 2 && command[1] != "models" {
					break
				}
				command = append(command, a)
			}
		}
		flags, usageErr := p.usage(command)
		if usageErr != nil {
			return errors.Join(err, usageErr)
		}
		for _, a := range c.Args {
			name, _, _ := strings.Cut(strings.TrimLeft(a, "-"), "=")
			if strings.HasPrefix(a, "-") && !flags[name] {
				err = errors.Join(err, fmt.Errorf("%s %s: %s has no flag --%s", m.Kind, m.Metadata.Name, program, name))
			}
		}
		for _, v := range c.Env {
			name, isOurs := strings.CutPrefix(v.Name, "SIGHTMESH_")
			if name = strings.ToLower(strings.ReplaceAll(name, "_", "-")); isOurs && !flags[name] {
				err = errors.Join(err, fmt.Errorf("%s %s: %s has no flag of %s", m.Kind, m.Metadata.Name, program, v.Name))
			}
		}
	}
	return err
}

func (p programs) usage(command []string) (usage, error) {
	key := strings.Join(command, " ")
	if u, ok := p.usages[key]; ok {
		return u, nil
	}
	out, err := exec.Command(command[0], append(command[1:], "--help")...).CombinedOutput() //nolint:noctx // it ends at once
	if err != nil {
		return nil, fmt.Errorf("run %s --help: %w", key, err)
	}
	u := usage{}
	for _, found := range flagLine.FindAllSubmatch(out, -1) {
		u[string(found[1])] = true
	}
	p.usages[key] = u
	return u, nil
}
