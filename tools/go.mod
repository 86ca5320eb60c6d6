module github.com/sightmesh/sightmesh/tools

go 1.26.0
