package pipeline

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
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
	if line := tabLine(text, err); line > 0 {
		return nil, fault{line, "a tab in the indentation, want spaces"}
	}
	return nil, fmt.Errorf("parse: %w", err)
}

// tabIndent matches a line that is indented with a tab.
var tabIndent = regexp.MustCompile("^ *\t")

// errorLine matches the line in an error of package yaml.
var errorLine = regexp.MustCompile(`^yaml: line (\d+): `)

// tabLine returns the number of the line with a tab in its indentation that caused an error of package yaml, or 0.
// Package yaml reports the tab as a wrong character, or with the line before it.
func tabLine(text []byte, err error) int {
	at := errorLine.FindStringSubmatch(err.Error())
	if at == nil {
		return 0
	}
	line, _ := strconv.Atoi(at[1]) // digits
	lines := bytes.Split(text, []byte("\n"))
	for n := max(line, 1); n <= min(line+1, len(lines)); n++ {
		if indent := tabIndent.Find(lines[n-1]); indent != nil && isTabError(err) {
			return n
		}
	}
	return 0
}

func isTabError(err error) bool {
	return strings.Contains(err.Error(), "tab character") || strings.Contains(err.Error(), "cannot start any token")
}

// path has the names of a field and of the mappings that it is in. A name can have dots itself, such as a label.
type path []string

// prefix puts the path before what is wrong with its field.
func (p path) prefix(what string) string {
	if len(p) == 0 {
		return what
	}
	return strings.Join(p, ".") + ": " + what
}

// visit is the check of what is in a node, as a value of a type.
type visit struct {
	node *yaml.Node
	as   reflect.Type
}

// decoder decodes a YAML value and checks it more strictly than package yaml, with the names of
// fields in the errors.
type decoder struct {
	// report is called for each error.
	report func(line int, field path, what string)
	// wrong has the fields whose values were not decoded. An empty path is the whole value.
	wrong []path
	// visited has the checks of what is in a node. Aliases can make a small file large, or contain themselves, so a node
	// is visited once as each type.
	visited map[visit]bool
}

// decode decodes n into the value that out points to. It decodes as much as possible.
func (d *decoder) decode(n *yaml.Node, out any) {
	err := n.Decode(out)
	d.visited = map[visit]bool{}
	d.check(n, n.Line, reflect.TypeOf(out).Elem(), nil)
	if err != nil && len(d.wrong) == 0 {
		d.reject(n.Line, nil, err.Error())
	}
}

// check reports what does not fit in a field of type t. The line is that of the field.
func (d *decoder) check(n *yaml.Node, line int, t reflect.Type, field path) {
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
	v := visit{n, t}
	if d.visited[v] {
		return
	}
	d.visited[v] = true
	if !d.checkKeys(n, field) {
		return
	}
	for key, value := range fields(n) {
		inner := slices.Concat(field, path{key.Value})
		if ft := fieldType(t, key.Value); ft != nil {
			d.check(value, key.Line, ft, inner)
		} else {
			d.report(key.Line, inner, "no such field; known are "+fieldNames(t))
		}
	}
	if n.Kind == yaml.SequenceNode {
		for _, item := range n.Content {
			d.check(item, item.Line, elementType(t), field)
		}
	}
}

func (d *decoder) reject(line int, field path, what string) {
	d.report(line, field, what)
	d.wrong = append(d.wrong, field)
}

// isWrong reports whether the value of a field or of one of its parents was not decoded.
func (d *decoder) isWrong(field path) bool {
	return slices.ContainsFunc(d.wrong, func(w path) bool {
		return len(w) <= len(field) && slices.Equal(w, field[:len(w)])
	})
}

// checkKeys reports keys of a mapping that are no names, and those that it has twice. Package yaml does not decode such
// a mapping.
func (d *decoder) checkKeys(n *yaml.Node, field path) (ok bool) {
	if n.Kind != yaml.MappingNode {
		return true
	}
	lines := map[string]int{} // of the keys
	ok = true
	for pair := range slices.Chunk(n.Content, 2) {
		key := target(pair[0])
		first, isTwice := lines[key.Value]
		switch {
		case key.Kind != yaml.ScalarNode:
			d.report(key.Line, field, describe(key)+" as the name of a field, want a string")
			ok = false
		case isTwice:
			d.report(key.Line, slices.Concat(field, path{key.Value}), fmt.Sprintf("given twice, first in line %d", first))
			ok = false
		default:
			lines[key.Value] = key.Line
		}
	}
	if !ok {
		d.wrong = append(d.wrong, field)
	}
	return ok
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
		var f float64
		if n.Decode(&f) != nil || f != math.Trunc(f) {
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
		return "a mapping with the field pipelines"
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

// lineOf returns the line of a field of a mapping, or that of its parent if it is missing.
func lineOf(n *yaml.Node, field path) int {
	line := n.Line
	for _, name := range field {
		key, value := child(n, name)
		if key == nil {
			break
		}
		line, n = key.Line, value
	}
	return line
}

// valueOf returns the value of a field of a mapping, or nil if it is missing or null.
func valueOf(n *yaml.Node, field path) *yaml.Node {
	for _, name := range field {
		if _, n = child(n, name); n == nil {
			return nil
		}
	}
	if n = target(n); isNull(n) {
		return nil
	}
	return n
}

// child returns the key and the value of a field of a mapping, or nil if it is missing.
func child(n *yaml.Node, name string) (key, value *yaml.Node) {
	for key, value := range fields(n) {
		if key.Value == name {
			return key, value
		}
	}
	return nil, nil
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

// joinFaults returns one error with all faults, ordered by line, or nil when there are none.
func joinFaults(faults []fault) error {
	slices.SortStableFunc(faults, func(a, b fault) int { return cmp.Compare(a.line, b.line) })
	errs := make([]error, len(faults))
	for i, f := range faults {
		errs[i] = f
	}
	return errors.Join(errs...)
}
