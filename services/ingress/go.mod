module github.com/sightmesh/sightmesh/services/ingress

go 1.26.0

require (
	github.com/sightmesh/sightmesh/contracts v0.0.0
	github.com/sightmesh/sightmesh/contracts/streams v0.0.0
	github.com/sightmesh/sightmesh/services/internal v0.0.0
)

require (
	github.com/gorilla/mux v1.8.1 // indirect
	github.com/oklog/ulid/v2 v2.1.2 // indirect
)

replace (
	github.com/sightmesh/sightmesh/contracts => ../../contracts
	github.com/sightmesh/sightmesh/contracts/streams => ../../contracts/streams
	github.com/sightmesh/sightmesh/services/internal => ../internal
)
