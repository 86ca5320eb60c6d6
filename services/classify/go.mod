module github.com/sightmesh/sightmesh/services/classify

go 1.26.0

require (
	github.com/sightmesh/sightmesh/contracts v0.0.0
	github.com/sightmesh/sightmesh/contracts/streams v0.0.0
	github.com/sightmesh/sightmesh/services/internal v0.0.0
)

replace (
	github.com/sightmesh/sightmesh/contracts => ../../contracts
	github.com/sightmesh/sightmesh/contracts/streams => ../../contracts/streams
	github.com/sightmesh/sightmesh/services/internal => ../internal
)
