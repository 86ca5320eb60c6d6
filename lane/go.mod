module github.com/sightmesh/sightmesh/lane

go 1.26.0

require (
	github.com/sightmesh/sightmesh/contracts v0.2.0
	go.uber.org/goleak v1.3.0
	go.yaml.in/yaml/v3 v3.0.6
	golang.org/x/sync v0.24.0
	golang.org/x/sys v0.49.0
)

require github.com/stretchr/testify v1.12.1 // indirect

replace github.com/sightmesh/sightmesh/contracts => ../contracts
