package pipeline

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"iter"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// parseYAML returns the value of the only YAML document in text.
func parseYAML(text []byte) (*yaml.Node, error) {
	var document, next yaml.Node
	d := yaml.NewDecoder(bytes.NewReader(text))
	err := d.Decode(&document)
	if errors.Is(err, io.EOF) || err == nil && isNull(document.Content[0]) {
		return nil, errors.New("the file is empty, want pipelines")
	}
	if err == nil {
		err = d.Decode(&next)
	}
	switch {
	case err == nil:
		return nil, errors.New("parse: more than one YAML document")
	case errors.Is(err, io.EOF):
		return document.Content[0], nil
	}
	if tab := tabIndent.FindIndex(text); tab != nil && isTabError(err) {
		return nil, fault{1 + bytes.Count(text[:tab[0]], []byte("\n")), "a tab in the indentation, want spaces"}
	}
	return nil, fmt.Errorf("parse: %w", err)
}

// tabIndent matches a line that is indented with a tab. Package yaml reports it as any wrong
// character, or with the line before it.
var tabIndent = regexp.MustCompile("(?m)^ *\t")

func isTabError(err error) bool {
	return strings.Contains(err.Error(), "tab character") || strings.Contains(err.Error(), "cannot start any token")
}

// decoder decodes a YAML value and checks it more strictly than package yaml, with the names of
// fields in the errors.
type decoder struct {
	// report is called for each error, with the dotted path of its field.
	report func(line int, field, what string)
	// wrong has the fields whose values were not decoded. The field "" is the whole value.
	wrong []string
}

// decode decodes n into the value that out points to. It decodes as much as possible.
func (d *decoder) decode(n *yaml.Node, out any) {
	err := n.Decode(out)
	var wrongTypes *yaml.TypeError
	if err == nil || errors.As(err, &wrongTypes) {
		// After another error, such as an alias of its own parent, check could run forever.
		d.check(n, n.Line, reflect.TypeOf(out).Elem(), "")
	}
	if err != nil && len(d.wrong) == 0 {
		d.reject(n.Line, "", err.Error())
	}
}

// check reports what does not fit in a field of type t. The line is that of the field.
func (d *decoder) check(n *yaml.Node, line int, t reflect.Type, field string) {
	n = target(n)
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if isNull(n) || t == reflect.TypeFor[yaml.Node]() {
		return
	}
	if !fits(n, t) {
		d.reject(line, field, fmt.Sprintf("%s, want %s", describe(n), wantedValue(t)))
		return
	}
	if d.hasDuplicates(n, field) {
		return
	}
	for key, value := range fields(n) {
		path := strings.TrimPrefix(field+"."+key.Value, ".")
		if ft := fieldType(t, key.Value); ft != nil {
			d.check(value, key.Line, ft, path)
		} else {
			d.report(key.Line, path, "no such field; known are "+fieldNames(t))
		}
	}
	if n.Kind == yaml.SequenceNode {
		for _, item := range n.Content {
			d.check(item, item.Line, elementType(t), field)
		}
	}
}

func (d *decoder) reject(line int, field, what string) {
	d.report(line, field, what)
	d.wrong = append(d.wrong, field)
}

// isWrong reports whether the value of a field or of one of its parents was not decoded.
func (d *decoder) isWrong(field string) bool {
	return slices.ContainsFunc(d.wrong, func(w string) bool {
		return w == "" || w == field || strings.HasPrefix(field, w+".")
	})
}

// hasDuplicates reports the fields that a mapping has twice. Package yaml does not decode such a mapping.
func (d *decoder) hasDuplicates(n *yaml.Node, field string) bool {
	lines := map[string]int{} // of the fields
	found := false
	for key := range fields(n) {
		if first, ok := lines[key.Value]; ok {
			path := strings.TrimPrefix(field+"."+key.Value, ".")
			d.report(key.Line, path, fmt.Sprintf("given twice, first in line %d", first))
			found = true
			continue
		}
		lines[key.Value] = key.Line
	}
	if found {
		d.wrong = append(d.wrong, field)
	}
	return found
}

// fits reports whether a node can be decoded as a value of type t, leaving aside what is in a list or mapping.
func fits(n *yaml.Node, t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Interface:
		return true
	case reflect.Struct, reflect.Map:
		return n.Kind == yaml.MappingNode
	case reflect.Slice:
		return n.Kind == yaml.SequenceNode
	case reflect.Int: // package yaml truncates a float
		if n.ShortTag() != "!!int" {
			return false
		}
	}
	return n.Kind == yaml.ScalarNode && n.Decode(reflect.New(t).Interface()) == nil
}

// fieldType returns the type of a field of t, or nil when t does not have it.
func fieldType(t reflect.Type, name string) reflect.Type {
	switch t.Kind() {
	case reflect.Interface:
		return t
	case reflect.Map:
		return t.Elem()
	}
	for f := range t.Fields() {
		if f.Tag.Get("yaml") == name {
			return f.Type
		}
	}
	return nil
}

// elementType returns the type of the elements of a list of type t.
func elementType(t reflect.Type) reflect.Type {
	if t.Kind() == reflect.Interface {
		return t
	}
	return t.Elem()
}

// fieldNames lists the fields of a struct.
func fieldNames(t reflect.Type) string {
	var names []string
	for f := range t.Fields() {
		names = append(names, f.Tag.Get("yaml"))
	}
	return strings.Join(names, ", ")
}

// wantedValue describes the values of a type.
func wantedValue(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[time.Duration]():
		return "a duration with a unit, such as 5s"
	case reflect.TypeFor[file]():
		return "a file with the field pipelines"
	case reflect.TypeFor[[]yaml.Node]():
		return `a list of pipelines, such as "- name: codes"`
	case reflect.TypeFor[[]string]():
		return "a list, such as [python3, program.py]"
	case reflect.TypeFor[Pipeline]():
		return "a mapping, such as {name: codes, detect: {kind: codes}}"
	case reflect.TypeFor[Stage](), reflect.TypeFor[Classifier]():
		return "a mapping, such as {kind: model}"
	case reflect.TypeFor[map[string]Classifier]():
		return "a mapping, such as {person: {kind: model}}"
	}
	switch t.Kind() {
	case reflect.Int:
		return "a whole number"
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "a string"
	}
	return "a mapping, such as {model: yunet}"
}

// describe returns the text of a scalar, or says that a node is a list or mapping.
func describe(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.ShortTag() == "!!str":
		return strconv.Quote(n.Value)
	}
	return n.Value
}

// lineOf returns the line of a field of a mapping, or that of its parent if it is missing. The
// field is a dotted path.
func lineOf(n *yaml.Node, field string) int {
	line := n.Line
	for {
		key, value, rest := child(n, field)
		if key == nil {
			return line
		}
		line, n, field = key.Line, value, rest
	}
}

// valueOf returns the value of a field of a mapping, or nil if it is missing or null. The field
// is a dotted path.
func valueOf(n *yaml.Node, field string) *yaml.Node {
	for field != "" {
		if _, n, field = child(n, field); n == nil {
			return nil
		}
	}
	if n = target(n); isNull(n) {
		return nil
	}
	return n
}

// child returns the first field of a dotted path in a mapping, if it exists. The names of
// fields can have dots themselves, such as labels.
func child(n *yaml.Node, path string) (key, value *yaml.Node, rest string) {
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

// fields yields the keys and values of a mapping, and then those of the mappings that it merges
// (<<) and does not have itself. It yields nothing for another node.
func fields(n *yaml.Node) iter.Seq2[*yaml.Node, *yaml.Node] {
	return func(yield func(key, value *yaml.Node) bool) {
		names := map[string]bool{}
		nodes := []*yaml.Node{target(n)}
		for i := 0; i < len(nodes); i++ {
			if nodes[i].Kind != yaml.MappingNode {
				continue
			}
			for pair := range slices.Chunk(nodes[i].Content, 2) {
				key, value := target(pair[0]), target(pair[1])
				if key.ShortTag() == "!!merge" {
					nodes = appendMerged(nodes, value)
					continue
				}
				if i > 0 && names[key.Value] {
					continue
				}
				names[key.Value] = true
				if !yield(key, value) {
					return
				}
			}
		}
	}
}

// appendMerged appends the value of a key <<, which is a mapping or a list of mappings. A
// mapping can merge itself, so a mapping is appended once.
func appendMerged(nodes []*yaml.Node, value *yaml.Node) []*yaml.Node {
	merged := []*yaml.Node{value}
	if value.Kind == yaml.SequenceNode {
		merged = value.Content
	}
	for _, n := range merged {
		if n = target(n); !slices.Contains(nodes, n) {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// target returns the node that an alias refers to, or another node itself.
func target(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// isNull reports whether a value is missing, as in "settings:". The field then has its default.
func isNull(n *yaml.Node) bool { return n.ShortTag() == "!!null" }

// isEmpty reports whether a value is "", [] or {}.
func isEmpty(n *yaml.Node) bool { return n.Value == "" && len(n.Content) == 0 }

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

// withField puts a field before what is wrong with it. The field "" is left out.
func withField(field, what string) string { return strings.TrimPrefix(field+": "+what, ": ") }

// joinFaults returns one error with all faults, ordered by line, or nil when there are none.
func joinFaults(faults []fault) error {
	slices.SortStableFunc(faults, func(a, b fault) int { return cmp.Compare(a.line, b.line) })
	errs := make([]error, len(faults))
	for i, f := range faults {
		errs[i] = f
	}
	return errors.Join(errs...)
}
