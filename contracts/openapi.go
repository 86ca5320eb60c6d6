package contracts

import _ "embed"

// OpenAPI describes the HTTP side of the mesh, OpenAPI 3.1 as JSON.
//
//go:embed openapi.json
var OpenAPI []byte
