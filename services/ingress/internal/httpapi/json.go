package httpapi

import (
	"bytes"
	"errors"
	"io"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/internal/regionfilter"
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
		return wrongKind(submissionField(fieldName(semantic.JSONPointer)), semantic.JSONKind)
	case errors.Is(err, jsontext.ErrDuplicateName) && errors.As(err, &syntactic):
		name := submissionField(fieldName(syntactic.JSONPointer))
		return v1.NewProblem(valueCode(name), "%.60s is given twice", name).WithField(name)
	case errors.As(err, &syntactic):
		return invalidField(syntactic.JSONPointer, "the body is not JSON: at byte %d: %v", syntactic.ByteOffset,
			syntactic.Err)
	}
	return err
}

// wrongKind returns the problem of a field whose value is of another kind than the field.
func wrongKind(field string, kind jsontext.Kind) error {
	return v1.NewProblem(valueCode(field), "%.60s is a JSON %s, which does not belong there", field, kind).
		WithField(field)
}

// valueCode returns the code of the problem of a wrong value: for a field that a query can have, that of the query.
func valueCode(field string) v1.Code {
	if isKnown(field, submissionFields) {
		return v1.InvalidParameter
	}
	return v1.InvalidBody
}

// submissionField returns the name that a field of a request has in its query, for a name of [fieldName]. Other names
// are unchanged.
func submissionField(name string) string {
	if meta, ok := strings.CutPrefix(name, "metadata."); ok {
		return metaPrefix + strings.ToLower(meta)
	}
	if strings.HasPrefix(name, regionfilter.Labels+".") {
		return regionfilter.Labels
	}
	return name
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
