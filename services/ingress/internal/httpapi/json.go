package httpapi

import (
	"bytes"
	"errors"
	"io"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// decodeJSON decodes a body strictly: an unknown or repeated name is a problem that names the field. It
// returns errors of the reader unchanged.
func decodeJSON(r io.Reader, into any) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	data = bytes.TrimPrefix(data, byteOrderMark)
	if err := json.Unmarshal(data, into, json.RejectUnknownMembers(true)); err != nil {
		return jsonError(err)
	}
	return nil
}

// jsonError returns the problem of a body that is not the expected JSON.
func jsonError(err error) error {
	var semantic *json.SemanticError
	var syntactic *jsontext.SyntacticError
	switch {
	case errors.As(err, &semantic) && errors.Is(err, json.ErrUnknownName):
		name := fieldName(semantic.JSONPointer)
		return v1.NewProblem(v1.UnknownField, "%.60q is not a field of this body", name).WithField(name)
	case errors.As(err, &semantic):
		return wrongKind(fieldName(semantic.JSONPointer), semantic.JSONKind)
	case errors.Is(err, jsontext.ErrDuplicateName) && errors.As(err, &syntactic):
		name := fieldName(syntactic.JSONPointer)
		if meta, ok := strings.CutPrefix(name, "metadata."); ok {
			name = metaPrefix + strings.ToLower(meta)
		}
		if isKnown(name, submissionFields) { // as in the query
			return v1.NewProblem(v1.InvalidParameter, "%.60s is given twice", name).WithField(name)
		}
		return v1.NewProblem(v1.InvalidBody, "%.60s is given twice", name).WithField(name)
	case errors.As(err, &syntactic):
		return invalidField(syntactic.JSONPointer, "the body is not JSON: at byte %d: %v", syntactic.ByteOffset,
			syntactic.Err)
	}
	return err
}

// wrongKind returns the problem of a field whose value is of another kind than the field.
func wrongKind(field string, kind jsontext.Kind) error {
	return v1.NewProblem(v1.InvalidBody, "%.60s is a JSON %s, which does not belong there", field, kind).WithField(field)
}

func invalidField(at jsontext.Pointer, format string, args ...any) error {
	return v1.NewProblem(v1.InvalidBody, format, args...).WithField(fieldName(at))
}

// fieldName returns a JSON pointer with dots, such as images.3.url.
func fieldName(p jsontext.Pointer) string {
	var parts []string
	for token := range p.Tokens() {
		parts = append(parts, token)
	}
	if len(parts) == 0 {
		return "the body"
	}
	return strings.Join(parts, ".")
}
