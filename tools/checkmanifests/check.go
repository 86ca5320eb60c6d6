package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/sightmesh/sightmesh/contracts/streams"
	"github.com/sightmesh/sightmesh/lane/pipeline"
)

// longestName is the limit of a label value, because Kubernetes uses the names of
// Services, Jobs and Pods as labels.
const longestName = 63

func checkName(m manifest) error {
	if n := len(m.Metadata.Name); n > longestName {
		return fmt.Errorf("%s %s: the name has %d characters, want %d at most", m.Kind, m.Metadata.Name, n, longestName)
	}
	return nil
}

// checkNATSConfig creates a NATS server with each nats.conf, without starting it.
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
		return fmt.Errorf("%s %s: create a server with nats.conf: %w", m.Kind, m.Metadata.Name, err)
	}
	return nil
}

// natsOptions parses a configuration as the NATS server in a pod does.
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

// checkNATSVersion checks that the image has the version of NATS with which checkNATSConfig
// checks the configuration.
func checkNATSVersion(m manifest) error {
	if m.Kind != "StatefulSet" {
		return nil
	}
	for _, c := range m.containers() {
		_, tag, _ := strings.Cut(filepath.Base(c.Image), ":")
		if c.Name == "nats" && !strings.HasPrefix(tag, server.VERSION) {
			return fmt.Errorf("%s %s: image %s, want the version %s that go.mod names",
				m.Kind, m.Metadata.Name, c.Image, server.VERSION)
		}
	}
	return nil
}

// checkTriggers checks that a ScaledObject has one trigger for the consumer of each
// pipeline that its workers serve, and no other trigger.
func checkTriggers(m manifest, all []manifest) error {
	if m.Kind != "ScaledObject" {
		return nil
	}
	name := fmt.Sprintf("%s %s", m.Kind, m.Metadata.Name)
	stage, pipelines, err := readServed(m.Spec.Target.Name, all)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	known := map[string]string{} // streams by consumer
	for _, c := range streams.Consumers(streams.Config{Pipelines: pipelines}) {
		if strings.HasPrefix(c.Config.Durable, stage+"-") {
			known[c.Config.Durable] = c.Stream
		}
	}
	for _, t := range m.Spec.Triggers {
		if stream, ok := known[t.Metadata.Consumer]; !ok || stream != t.Metadata.Stream {
			err = errors.Join(err, fmt.Errorf("%s: %s has no consumer %q", name, t.Metadata.Stream, t.Metadata.Consumer))
		}
		delete(known, t.Metadata.Consumer)
	}
	for consumer := range known {
		err = errors.Join(err, fmt.Errorf("%s: no trigger for the consumer %s", name, consumer))
	}
	return err
}

// readServed returns the stage of the workers of a Deployment, and the pipelines of their
// flag --serve. Without the flag, these are all pipelines.
func readServed(deployment string, all []manifest) (stage string, pipelines []string, err error) {
	pipelines = pipeline.BuiltInNames()
	for _, m := range all {
		if text, ok := m.Data["pipelines.yaml"]; ok {
			file, err := pipeline.Parse(strings.NewReader(text))
			if err != nil {
				return "", nil, fmt.Errorf("%s %s: %w", m.Kind, m.Metadata.Name, err)
			}
			pipelines = nil
			for _, p := range file {
				pipelines = append(pipelines, p.Name)
			}
		}
	}
	at := slices.IndexFunc(all, func(m manifest) bool { return m.Kind == "Deployment" && m.Metadata.Name == deployment })
	if at < 0 {
		return "", nil, fmt.Errorf("there is no Deployment %q", deployment)
	}
	for _, c := range all[at].Spec.Template.Spec.Containers {
		stage = c.Name
		for _, arg := range c.Args {
			if names, ok := strings.CutPrefix(arg, "--serve="); ok {
				pipelines = strings.Split(names, ",")
			}
		}
	}
	return stage, pipelines, nil
}

var reference = regexp.MustCompile(`\$\(([A-Za-z_][A-Za-z0-9_]*)\)`)

// checkReferences checks that a variable is defined before a variable that refers to it.
// Otherwise Kubernetes does not replace the reference.
func checkReferences(m manifest) (err error) {
	for _, c := range m.containers() {
		defined := map[string]bool{}
		for _, v := range c.Env {
			for _, r := range reference.FindAllStringSubmatch(v.Value, -1) {
				if !defined[r[1]] {
					err = errors.Join(err, fmt.Errorf("%s %s: %s refers to %s, which is not defined before it",
						m.Kind, m.Metadata.Name, v.Name, r[1]))
				}
			}
			defined[v.Name] = true
		}
	}
	return err
}

// programs has the programs of the images, with the flags that --help lists.
type programs struct {
	bin    string
	usages map[string]usage
}

// usage has the flags of a program.
type usage map[string]bool

var flagLine = regexp.MustCompile(`(?m)^ +-([a-z][a-z0-9-]*)`)

// check compares the arguments and variables of each container of the mesh with the
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
				err = errors.Join(err, fmt.Errorf("%s %s: %s has no flag with the variable %s",
					m.Kind, m.Metadata.Name, program, v.Name))
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
	out, err := exec.Command(command[0], append(command[1:], "--help")...).CombinedOutput()
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
