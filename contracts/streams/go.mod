module github.com/sightmesh/sightmesh/contracts/streams

go 1.26.0
