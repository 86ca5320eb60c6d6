module github.com/sightmesh/sightmesh/services/internal

go 1.26.0
