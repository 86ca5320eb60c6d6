package httpapi

import (
	"bytes"
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/ingress/internal/admission"
	"github.com/sightmesh/sightmesh/services/internal/imagefile"
)

// pipelineHandler serves /v1/pipelines and /openapi.json.
type pipelineHandler struct {
	admission *admission.Admission
	limits    imagefile.Limits
	document  apiDocument
}

// list serves GET /v1/pipelines.
func (h *pipelineHandler) list(w http.ResponseWriter, r *http.Request) error {
	if _, err := parseQuery(r); err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, v1.Pipelines{
		Pipelines: h.admission.Pipelines(),
		Limits: v1.Limits{
			MaxBytes: h.limits.MaxBytes, MaxSide: h.limits.MaxSide, MaxPixels: h.limits.MaxPixels,
			Types: imagefile.Types(),
		},
	})
}

// openAPI serves GET /openapi.json. The first server in the document is the mesh as the client has reached it.
func (h *pipelineHandler) openAPI(w http.ResponseWriter, r *http.Request) error {
	url, err := jsontext.AppendQuote(nil, cmp.Or(getForwarded(r).base, "/"))
	if err != nil {
		return fmt.Errorf("encode the URL of the mesh: %w", err)
	}
	body := slices.Concat(h.document.before, url, h.document.after)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, err = w.Write(body)
	return err
}

// apiDocument is an OpenAPI document, before and after the URL of its first server, which depends on the request.
type apiDocument struct{ before, after []byte }

// newAPIDocument splits a document at the URL of its first server.
func newAPIDocument(document []byte) (apiDocument, error) {
	d := jsontext.NewDecoder(bytes.NewReader(document))
	for d.StackPointer() != "/servers/0/url" {
		if _, err := d.ReadToken(); err != nil {
			return apiDocument{}, fmt.Errorf("find the first server of the OpenAPI document: %w", err)
		}
	}
	url, err := d.ReadValue()
	if err != nil {
		return apiDocument{}, fmt.Errorf("read the first server of the OpenAPI document: %w", err)
	}
	end := d.InputOffset()
	return apiDocument{before: document[:end-int64(len(url))], after: document[end:]}, nil
}
