module github.com/sightmesh/sightmesh/services/results

go 1.26.0
