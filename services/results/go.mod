module github.com/sightmesh/sightmesh/services/results

go 1.26.0

require (
	github.com/sightmesh/sightmesh/contracts v0.0.0
	github.com/sightmesh/sightmesh/contracts/streams v0.0.0
	github.com/sightmesh/sightmesh/services/internal v0.0.0
)

require go.uber.org/goleak v1.3.0 // indirect

replace (
	github.com/sightmesh/sightmesh/contracts => ../../contracts
	github.com/sightmesh/sightmesh/contracts/streams => ../../contracts/streams
	github.com/sightmesh/sightmesh/services/internal => ../internal
)
