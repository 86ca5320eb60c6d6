package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"

	"github.com/sightmesh/sightmesh/contracts"
	v1 "github.com/sightmesh/sightmesh/contracts/v1"
)

// documentedAPI returns a router for the operations of contracts/openapi.json.
var documentedAPI = sync.OnceValues(func() (routers.Router, error) {
	doc, err := openapi3.NewLoader().LoadFromData(contracts.OpenAPI)
	if err != nil {
		return nil, err
	}
	doc.Servers = nil // the mesh of a test has another address
	return gorillamux.NewRouter(doc)
})

// checkDocumented validates a response against the OpenAPI description. An operation
// without a description must respond with 404 or 405.
func checkDocumented(req *http.Request, a response) error {
	router, err := documentedAPI()
	if err != nil {
		return err
	}
	path, _, _ := strings.Cut(req.URL.RequestURI(), "?")
	plain, err := http.NewRequest(req.Method, path, nil)
	if err != nil {
		return nil //nolint:nilerr // the test sends an invalid request
	}
	route, params, err := router.FindRoute(plain)
	if err != nil {
		if a.status == http.StatusNotFound || a.status == http.StatusMethodNotAllowed {
			return nil // the expected response
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
		return fmt.Errorf("the response differs from openapi.json: %w", err)
	}
	return checkCode(route.Operation, a)
}

// checkCode checks that the operation lists the code of a problem.
func checkCode(operation *openapi3.Operation, a response) error {
	if a.header.Get("Content-Type") != "application/problem+json" {
		return nil
	}
	var p v1.Problem
	if err := json.Unmarshal(a.body, &p); err != nil {
		return fmt.Errorf("decode problem: %w", err)
	}
	listed, _ := operation.Extensions["x-problem-codes"].([]any)
	if !slices.Contains(listed, any(string(p.Code))) {
		return fmt.Errorf("operation %s lists the problems %v, but responds %v", operation.OperationID, listed, a)
	}
	return nil
}

func init() {
	openapi3filter.RegisterBodyDecoder("application/problem+json", openapi3filter.JSONBodyDecoder)
	for _, text := range []string{"image/png", "image/jpeg", "text/event-stream", "text/html"} {
		openapi3filter.RegisterBodyDecoder(text, openapi3filter.FileBodyDecoder)
	}
}
