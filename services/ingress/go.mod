module github.com/sightmesh/sightmesh/services/ingress

go 1.26.0
