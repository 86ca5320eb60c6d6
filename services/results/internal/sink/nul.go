package sink

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// withoutNUL replaces the character U+0000, which PostgreSQL cannot store, by U+FFFD in
// all strings of a JSON document. Most documents have none.
func withoutNUL(doc []byte) ([]byte, error) {
	if !bytes.Contains(doc, []byte(`\u0000`)) {
		return doc, nil
	}
	d := json.NewDecoder(bytes.NewReader(doc))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	return json.Marshal(replaceNUL(v))
}

func replaceNUL(v any) any {
	switch v := v.(type) {
	case string:
		return strings.ReplaceAll(v, "\x00", "\ufffd")
	case []any:
		for i := range v {
			v[i] = replaceNUL(v[i])
		}
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, e := range v {
			out[strings.ReplaceAll(k, "\x00", "\ufffd")] = replaceNUL(e)
		}
		return out
	}
	return v
}
