package pipeline

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// positions finds the lines of the fields of pipelines in a file.
type positions struct {
	pipelines []*yaml.Node
}

func newPositions(text []byte) (positions, error) {
	var document struct {
		Pipelines yaml.Node `yaml:"pipelines"`
	}
	if err := yaml.Unmarshal(text, &document); err != nil {
		var wrongTypes *yaml.TypeError
		if !errors.As(err, &wrongTypes) { // the caller has the same error
			return positions{}, err
		}
	}
	if document.Pipelines.Kind != yaml.SequenceNode {
		return positions{}, nil
	}
	return positions{document.Pipelines.Content}, nil
}

// line returns the line of a field of a pipeline, or that of its parent if it is missing.
func (p positions) line(pipeline int, field string) int {
	if pipeline >= len(p.pipelines) {
		return 0
	}
	at := p.pipelines[pipeline]
	line := at.Line
	for {
		key, value, rest := child(at, field)
		if key == nil {
			return line
		}
		line, at, field = key.Line, value, rest
	}
}

// child returns the first field of a dotted path in a mapping, if it exists. The names of
// fields can have dots themselves, such as labels.
func child(n *yaml.Node, path string) (key, value *yaml.Node, rest string) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	for key, value := range fields(n) {
		if path == key.Value {
			return key, value, ""
		}
		if rest, ok := strings.CutPrefix(path, key.Value+"."); ok {
			return key, value, rest
		}
	}
	return nil, nil, ""
}

// fields yields the keys and values of a mapping, and nothing for another node.
func fields(n *yaml.Node) func(yield func(key, value *yaml.Node) bool) {
	return func(yield func(key, value *yaml.Node) bool) {
		if n.Kind != yaml.MappingNode {
			return
		}
		for pair := range slices.Chunk(n.Content, 2) {
			if !yield(pair[0], pair[1]) {
				return
			}
		}
	}
}

// The errors of package yaml have lines, and names of Go types.
var (
	yamlError    = regexp.MustCompile(`^line (\d+): (.*)$`)
	unknownField = regexp.MustCompile(`^field (.*) not found in type .+$`)
	wrongType    = regexp.MustCompile("^cannot unmarshal !!(\\w+) (?:`(.*)` )?into (.+)$")
)

// wantedValue describes the value of a field by the name of its Go type.
func wantedValue(goType string) string {
	switch goType {
	case "time.Duration":
		return "a duration with a unit, such as 5s"
	case "int":
		return "a whole number"
	case "bool":
		return "true or false"
	case "string":
		return "a string"
	case "[]string":
		return "a list, such as [python3, program.py]"
	case "[]pipeline.Pipeline":
		return "a list of pipelines"
	case "pipeline.Stage":
		return "fields, such as {kind: codes}"
	}
	if strings.HasPrefix(goType, "struct {") {
		return "a file with the field pipelines"
	}
	return "fields"
}

// wrongValue describes a value by its YAML tag and its text, which a list or mapping does not have.
func wrongValue(tag, text string) string {
	switch tag {
	case "seq":
		return "a list"
	case "map":
		return "fields"
	}
	return strconv.Quote(text)
}

// typeError returns an error of package yaml with its pipeline and, if it is known, its
// field.
func (p positions) typeError(message string) fault {
	parts := yamlError.FindStringSubmatch(message)
	if parts == nil {
		return fault{0, message}
	}
	line, err := strconv.Atoi(parts[1])
	if err != nil {
		return fault{0, message}
	}
	what, isMeant := parts[2], isValue
	if unknown := unknownField.FindStringSubmatch(what); unknown != nil {
		what = fmt.Sprintf("no field is called %s", unknown[1])
		isMeant = func(key, _ *yaml.Node) bool { return key.Value == unknown[1] }
	} else if wrong := wrongType.FindStringSubmatch(what); wrong != nil {
		what = fmt.Sprintf("%s, want %s", wrongValue(wrong[1], wrong[2]), wantedValue(wrong[3]))
	}
	for _, n := range slices.Backward(p.pipelines) {
		if n.Line > line {
			continue
		}
		if paths := fieldsAt(n, line, isMeant); len(paths) == 1 {
			what = paths[0] + ": " + what
		}
		return fault{line, fmt.Sprintf("pipeline %q: %s", pipelineName(n), what)}
	}
	return fault{line, what}
}

func isValue(_, value *yaml.Node) bool { return value.Kind != yaml.MappingNode }

// fieldsAt returns the paths of the fields in a line for which isMeant is true.
func fieldsAt(n *yaml.Node, line int, isMeant func(key, value *yaml.Node) bool) (paths []string) {
	for key, value := range fields(n) {
		if key.Line == line && isMeant(key, value) {
			paths = append(paths, key.Value)
		}
		for _, below := range fieldsAt(value, line, isMeant) {
			paths = append(paths, key.Value+"."+below)
		}
	}
	return paths
}

func pipelineName(pipeline *yaml.Node) string {
	_, value, _ := child(pipeline, "name")
	if value == nil {
		return ""
	}
	return value.Value
}

// fault is an error in a line of a file. The line is 0 when it is not known.
type fault struct {
	line int
	what string
}

func (f fault) Error() string {
	if f.line == 0 {
		return f.what
	}
	return fmt.Sprintf("line %d: %s", f.line, f.what)
}

// joinFaults returns one error with all faults, ordered by line, or nil when there are none.
func joinFaults(faults []fault) error {
	slices.SortStableFunc(faults, func(a, b fault) int { return cmp.Compare(a.line, b.line) })
	errs := make([]error, len(faults))
	for i, f := range faults {
		errs[i] = f
	}
	return errors.Join(errs...)
}
