module github.com/sightmesh/sightmesh/services/internal/vision

go 1.26.0

require (
	github.com/sightmesh/sightmesh/contracts v0.0.0
	gocv.io/x/gocv v0.31.0
)

replace github.com/sightmesh/sightmesh/contracts => ../../../contracts
