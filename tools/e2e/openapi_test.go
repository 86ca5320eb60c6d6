package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"

	"github.com/sightmesh/sightmesh/contracts"
)

// documented is the API as it is described.
var documented = sync.OnceValues(func() (routers.Router, error) {
	doc, err := openapi3.NewLoader().LoadFromData(contracts.OpenAPI)
	if err != nil {
		return nil, err
	}
	return gorillamux.NewRouter(doc)
})

// checkDocumented holds an answer against the description of the API.
// Only what is not there need not be described.
func checkDocumented(req *http.Request, a answer) error {
	router, err := documented()
	if err != nil {
		return err
	}
	path, _, _ := strings.Cut(req.URL.RequestURI(), "?")
	plain, err := http.NewRequest(req.Method, path, nil)
	if err != nil {
		return nil //nolint:nilerr // broken on purpose
	}
	route, params, err := router.FindRoute(plain)
	if err != nil {
		if a.status == http.StatusNotFound || a.status == http.StatusMethodNotAllowed {
			return nil // and rightly so
		}
		return fmt.Errorf("%s %s is not described: %w", req.Method, req.URL.Path, err)
	}
	in := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{Request: plain, PathParams: params, Route: route},
		Status:                 a.status, Header: a.header,
		Body:    io.NopCloser(bytes.NewReader(a.body)),
		Options: &openapi3filter.Options{IncludeResponseStatus: true},
	}
	if err := openapi3filter.ValidateResponse(context.Background(), in); err != nil {
		return fmt.Errorf("the answer is not as described: %w", err)
	}
	return nil
}

func init() {
	openapi3filter.RegisterBodyDecoder("application/problem+json", openapi3filter.JSONBodyDecoder)
	for _, text := range []string{"image/png", "image/jpeg", "text/event-stream", "text/html"} {
		openapi3filter.RegisterBodyDecoder(text, openapi3filter.FileBodyDecoder)
	}
}
