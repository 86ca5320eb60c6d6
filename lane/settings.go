package lane

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/sightmesh/sightmesh/lane/internal/jsonerror"
)

// DecodeSettings decodes settings into a struct that has the defaults. Settings of no bytes and null change nothing.
// The error names the setting:
//
//	settings.longside: no such setting; known are long_side
//	settings.long_side: "x", want an integer
func DecodeSettings(raw json.RawMessage, into any) error {
	if len(raw) == 0 {
		return nil
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return errors.New(jsonerror.Describe("settings", raw, err))
	}
	path, known := findUnknown("settings", raw, reflect.TypeOf(into))
	switch {
	case path == "":
		return nil
	case len(known) == 0:
		return fmt.Errorf("%s: no such setting; this kind has none", path)
	default:
		return fmt.Errorf("%s: no such setting; known are %s", path, strings.Join(known, ", "))
	}
}
