package v1

// SchemaID returns the $id of the JSON Schema of a message. name is its file name in
// contracts/schema/v1, without .json.
func SchemaID(name string) string { return schemaBase + name + ".json" }

const schemaBase = "https://github.com/sightmesh/sightmesh/blob/main/contracts/schema/v1/"
