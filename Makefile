# `make help` lists the targets.
SHELL := /bin/bash
MODULES = $(shell $(GO) list -m -f '{{.Dir}}')
# Folders with Go code. The folder tools includes modules that are outside the workspace.
GO_FOLDERS = $(MODULES) docs/clients/go docs/upstream
# The build tags with which the code is vetted and linted.
TAGS = $(shell sed -n 's/^ *build-tags: \[\(.*\)\]$$/\1/p' .golangci.yaml | tr -d ' ')
GO ?= go
# Models that make up and make models fetch: names or sets from the list of sightmesh models ls, or none.
MODELS ?= default
# The commit that --version of the binaries prints.
COMMIT ?= $(or $(shell git describe --always --dirty --abbrev=40 --exclude '*' 2>/dev/null),unknown)

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 17

.PHONY: deps
deps: ## Install the system packages (Debian or Ubuntu), if any is missing
	@tools/scripts/install-packages

.PHONY: build
build: deps ## Build every binary into bin/
	$(GO) build -ldflags '-X github.com/prometheus/common/version.Revision=$(COMMIT)' -o bin/ ./services/ingress ./services/detect ./services/classify ./services/results ./tools/sightmesh

.PHONY: onnxruntime
onnxruntime: ## Install ONNX Runtime into models/onnxruntime (11 MB, needs npm). It runs more networks than OpenCV, and faster
	@$(GO) run ./tools/sightmesh models pull onnxruntime

.PHONY: models
models: ## Fetch the default models into models/ (downloads 90 MB, installs 59 MB; MODELS=NAMES fetches others)
	@[ '$(MODELS)' = none ] || $(GO) run ./tools/sightmesh models pull $(MODELS)

# A model that cannot be fetched does not stop the mesh. docs/models.md says what the mesh serves without it.
.PHONY: up
up: build ## Fetch the models (3 minutes at most; MODELS=none skips it), and run the mesh until Ctrl-C
	@[ '$(MODELS)' = none ] || bin/sightmesh models pull $(MODELS) --timeout 3m || echo 'the mesh starts without the missing models'
	bin/sightmesh up

.PHONY: test
test: build ## Run every test, with the race detector
	tools/scripts/test

.PHONY: replicas
replicas: build ## Run the whole end-to-end suite on three NATS servers with three replicas (2 minutes)
	SIGHTMESH_E2E_THREE_SERVERS_WHOLE=1 OMP_THREAD_LIMIT=1 $(GO) test -count 1 -timeout 15m -v -run TestThreeServers ./tools/e2e

.PHONY: chaos
chaos: build ## Cause every fault under load, and write the table of docs/reliability.md (25 minutes; SEED=n repeats a run)
	SIGHTMESH_E2E_CHAOS_SEED=$(or $(SEED),random) SIGHTMESH_E2E_CHAOS_TABLE=$(CURDIR)/docs/reliability.md \
		OMP_THREAD_LIMIT=1 $(GO) test -count 1 -timeout 45m -v -run TestChaos_AllFaults ./tools/e2e

.PHONY: upgrade
upgrade: build ## Upgrade a mesh of version 0.1.0 to this version under load (3 minutes; needs the history of the repository)
	@tools/scripts/upgrade

.PHONY: interop
interop: build ## Run the tests of clients in Node.js and Go, and of PostgreSQL (2 minutes)
	@tools/scripts/install-packages interop
	$(GO) test -tags interop -count 1 -timeout 10m -run Interop ./tools/e2e

.PHONY: interop-clients
interop-clients: build ## Run docs/clients, generated clients, linters of the API, nginx and a browser (4 minutes; more the first time)
	@tools/scripts/install-packages interop-clients
	python3 -m pip install --quiet --upgrade --target bin/python-clients --requirement docs/clients/python/requirements.txt
	npm --prefix docs/clients/node ci
	test -x bin/nats || GOWORK=off GOBIN=$(CURDIR)/bin $(GO) install github.com/nats-io/natscli/nats@v0.5.1
	$(GO) test -tags interop_clients -count 1 -timeout 20m -run Clients ./tools/e2e

.PHONY: jaeger
jaeger: ## Build Jaeger without its web pages into bin/, for sightmesh up --jaeger (4 minutes, 85 MB, 4 GB of build cache)
	GOWORK=off $(GO) -C tools/verify build -modfile=jaeger.mod -trimpath -ldflags '-s -w' \
		-o $(CURDIR)/bin/jaeger github.com/jaegertracing/jaeger/cmd/jaeger

.PHONY: interop-jaeger
interop-jaeger: build ## Check the traces of all kinds of jobs in Jaeger, which make jaeger builds (1 minute)
	@test -x bin/jaeger || command -v jaeger >/dev/null || $(MAKE) jaeger
	$(GO) test -tags interop_jaeger -count 1 -timeout 10m -run Jaeger ./tools/e2e

.PHONY: cluster
cluster: ## Build a Kubernetes of one node, with KEDA and Jaeger, into bin/ (15 minutes, 1.2 GB, 8 GB of build cache)
	@tools/scripts/cluster

.PHONY: cluster-test
cluster-test: ## Test the chart on the Kubernetes of make cluster, and write the table of docs/operating.md (7 minutes; needs root and make images)
	SIGHTMESH_CLUSTER_TABLE=$(CURDIR)/docs/operating.md tools/scripts/cluster-test

.PHONY: bench-once
bench-once: deps ## Run every Go benchmark for one iteration, to check that it works
	$(GO) test -run '^$$' -bench . -benchtime 1x work

# Images for the networks in docs/performance.md, as PIPELINE=FILE. A drawn image replaces a missing one.
PHOTOS = ../shared/realdata/photos
BENCH_IMAGES ?= $(if $(wildcard $(PHOTOS)),faces=$(PHOTOS)/team_ten.jpg objects=$(PHOTOS)/dog_bicycle_truck.jpg)
BENCH = $(GO) run ./tools/benchtable --bin bin --out docs/performance.md $(addprefix --image ,$(BENCH_IMAGES)) \
	$$(test -d bin/litserve/litserve && echo --litserve bin/litserve)

.PHONY: litserve
litserve: ## Install LitServe into bin/litserve; make bench compares the mesh with it (330 MB, needs pip)
	test -d bin/litserve/litserve || \
		python3 -m pip install --quiet --target bin/litserve --requirement tools/benchtable/litserve/requirements.txt

.PHONY: bench
bench: build ## Measure the mesh and what it is compared with, and write docs/performance.md (15 minutes)
	@$(MAKE) litserve || echo 'LitServe is missing: the networks are measured without it'
	$(BENCH)

.PHONY: bench-networks
bench-networks: build ## Measure only the networks, and write their section of docs/performance.md (5 minutes)
	@$(MAKE) litserve || echo 'LitServe is missing: the networks are measured without it'
	$(BENCH) --only h

.PHONY: quality
quality: build ## Measure the results of the pipelines on real photos, and write the tables of docs/models.md (2 minutes)
	$(GO) run ./tools/quality --bin bin --models models --out docs/models.md \
		--images ../shared/realdata/photos --images ../shared/realdata/rendered

.PHONY: check
check: deps ## Build, vet, lint and test the packages that changed (1 minute; BASE=COMMIT compares with another commit)
	@TAGS='$(TAGS)' tools/scripts/check

.PHONY: stress
stress: build ## Run the tests many times while busy loops run (hours; UNIT=20 E2E=3 times, LOOPS=4, PACKAGES=...)
	@tools/scripts/stress

.PHONY: lint
lint: deps ## Check the format of the Go code, and run go vet and golangci-lint
	@test -z "$$(gofmt -l $(GO_FOLDERS))" || { gofmt -l $(GO_FOLDERS); echo 'run make fmt'; exit 1; }
	$(GO) vet -tags '$(TAGS)' work
	$(GO) vet -tags clockshift ./services/internal/run
	for f in docs/clients/go/*.go; do $(GO) vet $$f || exit 1; done
	cd docs/upstream/purge-under-consumer && GOWORK=off $(GO) vet .
	linter=$$(GOWORK=off $(GO) -C tools/verify tool -modfile=golangci-lint.mod -n golangci-lint) || exit 1; \
		for m in $(MODULES); do (cd $$m && $$linter run ./...) || exit 1; done; \
		cd tools/verify && GOWORK=off $$linter run ./...

.PHONY: fmt
fmt: ## Format the Go code
	gofmt -w $(GO_FOLDERS)

.PHONY: gen
gen: ## Generate the schemas, openapi.json, asyncapi.json, docs/reference and deploy/k8s
	$(GO) generate work
	tools/scripts/render-k8s

.PHONY: verify
verify: ## Check the generated files, the modules, the Dockerfiles, and the chart with its manifests
	tools/scripts/verify

.PHONY: verify-tools
verify-tools: ## Check that the modules of the tools are tidy (downloads 4 GB into an empty module cache)
	cd tools/verify && GOWORK=off $(GO) mod tidy -diff
	for m in golangci-lint syft; do (cd tools/verify && GOWORK=off $(GO) mod tidy -diff -modfile=$$m.mod) || exit 1; done

.PHONY: vulnerabilities
vulnerabilities: ## Check the modules for known vulnerabilities (needs access to vuln.go.dev)
	for m in $(MODULES); do (cd $$m && GOWORK=off $(GO) run golang.org/x/vuln/cmd/govulncheck@v1.8.0 ./...) || exit 1; done

.PHONY: model
model: ## Check the protocol of jobs in parts with the model checker SPIN (2 minutes; needs spin)
	tools/scripts/model

# registry pulls the base images. local builds them from Debian packages: docs/images.md.
BASE_IMAGES ?= registry

.PHONY: images
images: ## Build the container images into dist/images/, and print their sizes (3 minutes; 18 the first time; needs root)
	@tools/scripts/install-packages images
	BASE_IMAGES=$(BASE_IMAGES) COMMIT=$(COMMIT) tools/scripts/images

.PHONY: images-test
images-test: build ## Run the end-to-end suite on the images of make images (2 minutes; needs root)
	@tools/scripts/images-test

.PHONY: clean
clean: ## Remove bin/ and dist/
	rm -rf bin dist
