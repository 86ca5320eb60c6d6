package lane

import (
	"cmp"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// UnknownField returns the path of the first field in the facts of a reply that the protocol does not have, such as
// regions.0.lable. It returns "" when there is none. A worker ignores such a field, because a later version of the
// protocol may have it.
func UnknownField(facts []byte, reply Type) string {
	into, ok := map[Type]reflect.Type{
		TypeReady:      reflect.TypeFor[Ready](),
		TypeDetected:   reflect.TypeFor[Detected](),
		TypeClassified: reflect.TypeFor[Classified](),
		TypeDrawn:      reflect.TypeFor[Drawn](),
		TypeFailed:     reflect.TypeFor[Failed](),
	}[reply]
	if !ok {
		return ""
	}
	path, _ := findUnknown("", facts, into)
	return path
}

var unmarshaler = reflect.TypeFor[json.Unmarshaler]()

// findUnknown returns the path of the first name in raw, at any depth, that is not the name of a field, and the names
// of the fields in its place. It returns "" when there is none. raw has been decoded into a value of the type t.
func findUnknown(path string, raw json.RawMessage, t reflect.Type) (unknown string, known []string) {
	if reflect.PointerTo(t).Implements(unmarshaler) { // checks its names itself
		return "", nil
	}
	within := map[string]json.RawMessage{}
	switch t.Kind() {
	case reflect.Pointer:
		return findUnknown(path, raw, t.Elem())
	case reflect.Slice, reflect.Array:
		var values []json.RawMessage
		_ = json.Unmarshal(raw, &values) // fails for a string that was decoded into bytes
		for i, v := range values {
			within[strconv.Itoa(i)] = v
		}
	case reflect.Map, reflect.Struct:
		_ = json.Unmarshal(raw, &within) // fails for a string that was decoded by UnmarshalText
	}
	if path != "" {
		path += "."
	}
	for _, name := range slices.Sorted(maps.Keys(within)) {
		var of reflect.Type
		if t.Kind() != reflect.Struct {
			of = t.Elem()
		} else if of, known = findField(t, name); of == nil {
			return path + name, known
		}
		if unknown, known := findUnknown(path+name, within[name], of); unknown != "" {
			return unknown, known
		}
	}
	return "", nil
}

// findField returns the type of a field of a struct by its name in JSON. It returns nil, and the names of all fields,
// when there is none.
func findField(t reflect.Type, name string) (of reflect.Type, names []string) {
	fields := fieldTypes(t)
	names = slices.Sorted(maps.Keys(fields))
	i := slices.IndexFunc(names, func(n string) bool { return strings.EqualFold(n, name) }) // as package json does
	if i < 0 {
		return nil, names
	}
	return fields[names[i]], nil
}

// fieldTypes returns the types of the fields of a struct by their names in JSON.
func fieldTypes(t reflect.Type) map[string]reflect.Type {
	types := map[string]reflect.Type{}
	var embedded []reflect.Type
	for f := range t.Fields() {
		tag := f.Tag.Get("json")
		name, _, _ := strings.Cut(tag, ",")
		of := f.Type
		if of.Kind() == reflect.Pointer {
			of = of.Elem()
		}
		switch {
		case f.Anonymous && name == "" && of.Kind() == reflect.Struct:
			embedded = append(embedded, of)
		case f.IsExported() && tag != "-":
			types[cmp.Or(name, f.Name)] = f.Type
		}
	}
	for _, e := range embedded {
		for name, of := range fieldTypes(e) {
			if _, hidden := types[name]; !hidden {
				types[name] = of
			}
		}
	}
	return types
}
