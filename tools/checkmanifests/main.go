// Command checkmanifests makes the checks of rendered Kubernetes manifests that the
// schemas of Kubernetes cannot make. It checks the configuration of NATS with the
// package of the server, flags and variables with the programs, triggers with the
// consumers that sightmesh setup creates, and references to variables.
//
//	helm template mesh deploy/helm/sightmesh | checkmanifests --bin bin
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"go.yaml.in/yaml/v3"
)

func main() {
	bin := flag.String("bin", "bin", "`folder` of the programs")
	flag.Parse()
	if err := run(os.Stdin, *bin); err != nil {
		fmt.Fprintln(os.Stderr, "checkmanifests:", err)
		os.Exit(1)
	}
}

func run(in io.Reader, bin string) error {
	all, err := read(in)
	if err != nil {
		return err
	}
	programs := programs{bin: bin, usages: map[string]usage{}}
	for _, m := range all {
		err = errors.Join(err, checkName(m), checkNATSConfig(m), checkNATSVersion(m),
			checkTriggers(m, all), checkReferences(m), programs.check(m))
	}
	return err
}

// manifest has the fields of an object that are checked.
type manifest struct {
	Kind     string
	Metadata struct {
		Name        string
		Annotations map[string]string
	}
	Data map[string]string
	Spec struct {
		podSpec  `yaml:",inline"` // of a Pod
		Replicas *int
		Template struct {
			Metadata struct{ Annotations map[string]string }
			Spec     podSpec
		}
		Target   struct{ Name string } `yaml:"scaleTargetRef"`
		Triggers []struct {
			Metadata struct{ Stream, Consumer string }
		}
		MaxUnavailable any `yaml:"maxUnavailable"`
	}
}

type podSpec struct {
	InitContainers []container `yaml:"initContainers"`
	Containers     []container
}

type container struct {
	Name      string
	Image     string
	Args      []string
	Env       []struct{ Name, Value string }
	Resources struct{ Requests map[string]string }
	Startup   struct {
		HTTPGet struct{ Path string } `yaml:"httpGet"`
	} `yaml:"startupProbe"`
	Lifecycle map[string]any
}

// containers returns the containers of a pod, or of the pods of an object.
func (m manifest) containers() (all []container) {
	for _, s := range []podSpec{m.Spec.podSpec, m.Spec.Template.Spec} {
		all = append(append(all, s.InitContainers...), s.Containers...)
	}
	return all
}

func read(in io.Reader) (all []manifest, err error) {
	d := yaml.NewDecoder(in)
	for {
		var m manifest
		err := d.Decode(&m)
		switch {
		case errors.Is(err, io.EOF):
			return all, nil
		case err != nil:
			return nil, fmt.Errorf("read manifest %d: %w", len(all)+1, err)
		case m.Kind != "":
			all = append(all, m)
		}
	}
}
