package httpapi

import (
	"net/http"

	"github.com/sightmesh/sightmesh/contracts"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
	"github.com/sightmesh/sightmesh/services/ingress/internal/admission"
	"github.com/sightmesh/sightmesh/services/internal/imagefile"
)

// pipelineHandler serves /v1/pipelines and /openapi.json.
type pipelineHandler struct {
	admission *admission.Admission
	limits    imagefile.Limits
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

// openAPI serves GET /openapi.json.
func (h *pipelineHandler) openAPI(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", "application/json")
	_, err := w.Write(contracts.OpenAPI)
	return err
}
