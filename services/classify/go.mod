module github.com/sightmesh/sightmesh/services/classify

go 1.26.0
