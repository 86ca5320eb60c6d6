// Package jsonerror describes the errors of encoding/json for a person who wrote the JSON text: with the path of the
// value, and without names of Go types.
package jsonerror

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
)

// Describe describes an error that decoding text has returned: the path of the value, the value, and the expected
// type, such as
//
//	regions.0.score: "0.9", want a number
//
// name is the name of the whole text, and the first element of the path. It can be empty.
func Describe(name string, text []byte, err error) string {
	path, detail := name, err.Error()
	if t, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		field, value := Locate(text, int(t.Offset))
		path = join(name, field)
		detail = fmt.Sprintf("%s, want %s", strings.ToValidUTF8(value[:min(len(value), 60)], ""), typeName(t.Type))
	}
	if path == "" {
		return detail
	}
	return path + ": " + detail
}

// join joins two parts of a path, either of which can be empty.
func join(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "." + b
}

// typeName returns the name of the JSON type that is decoded into a Go type.
func typeName(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "an integer"
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice, reflect.Array:
		return "a list"
	default:
		return "an object"
	}
}

// Locate returns the value in a JSON text that contains the byte before an offset: its path,
// such as regions.0.box, and its text. The text of a list or an object is only its type.
func Locate(text []byte, offset int) (path, value string) {
	var within []*container
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber() // also for numbers that do not fit into a float64
	for start := 0; ; start = int(d.InputOffset()) {
		token, err := d.Token()
		if err != nil {
			return "", "invalid JSON" // does not happen: the text was decoded before
		}
		if token == json.Delim(']') || token == json.Delim('}') {
			within = within[:len(within)-1]
			continue
		}
		if len(within) > 0 {
			within[len(within)-1].enter(token)
		}
		end := int(d.InputOffset())
		delim, isDelim := token.(json.Delim)
		if end < offset {
			if isDelim {
				within = append(within, &container{isList: delim == '['})
			}
			continue
		}
		fields := make([]string, len(within))
		for i, c := range within {
			fields[i] = c.field
		}
		value = string(bytes.TrimLeft(text[start:end], " \t\r\n,:"))
		switch delim {
		case '[':
			value = "a list"
		case '{':
			value = "an object"
		}
		return strings.Join(fields, "."), value
	}
}

// container is a list or an object that contains the present token.
type container struct {
	isList bool
	next   int    // index of the next value of a list
	isKey  bool   // the last token of an object was a key
	field  string // index or key of the last token
}

// enter updates c for a token that is a key or the beginning of a value.
func (c *container) enter(token json.Token) {
	switch {
	case c.isList:
		c.field = strconv.Itoa(c.next)
		c.next++
	case c.isKey:
		c.isKey = false
	default:
		c.isKey = true
		c.field, _ = token.(string) // keys are strings
	}
}
