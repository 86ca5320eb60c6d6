package contracts

import _ "embed"

// OpenAPI is the description of the HTTP API: OpenAPI 3.1, as JSON.
//
//go:embed openapi.json
var OpenAPI []byte
