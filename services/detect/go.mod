module github.com/sightmesh/sightmesh/services/detect

go 1.26.0
