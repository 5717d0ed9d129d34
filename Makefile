SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

# Everything is built as the release is (xcaddy.json), so that a package is
# compiled once for all targets, and once more with -race. Lint vets the tests.
export CGO_ENABLED := 0
export GOFLAGS := $(shell go env GOFLAGS) -trimpath -tags=nobadger,nomysql,nopgx -vet=off

# Histories of the simulation; make soak plays many more.
SEEDS = 40

.PHONY: help run build check simulation lint setup test e2e monitoring release-build fuzz vuln soak truth replay traces bench scale clean

help: ## list the targets
	@sed -nE 's/^([a-z0-9-]+):.*## (.*)/\1\t\2/p' Makefile | expand -t 15

# What to do next comes after what Caddy says when it starts.
run: ## serve Caddyfile.example; needs only Go
	@echo 'Building Caddy with the module. The first time this takes a minute or two.'
	go build -o bin/caddy ./cmd/caddy
	@{ until (exec 3<>/dev/tcp/localhost/8090) 2>/dev/null; do kill -0 $$$$ 2>/dev/null || exit; sleep 0.2; done; sleep 1; \
		printf '\n%s\n\n' 'Open http://localhost:8090/ and press play on all four devices. Ctrl-C stops Caddy.'; } & \
	exec bin/caddy run --config Caddyfile.example

build: ## build Caddy with the module into bin/caddy
	go build -o bin/caddy ./cmd/caddy

check: lint simulation ## lint, and the quick tests; they need Go and redis-server
	scripts/shards ./caddymodule 4 & module=$$!; \
	go test . ./guard/... ./memstore/... ./playback/... ./problem/... ./connection/... ./audience/... ./replay/... ./gate/... ./api/... ./operate/... ./caddymodule/command ./caddymodule/storage && \
	go test -C cmd/build ./... && wait $$module

simulation:
	go test ./lease -run Simulation -args -sim.seeds=$(SEEDS)

lint: ## gofmt, go vet and staticcheck
	@unformatted=$$(find . \( -name '.?*' -o -name node_modules \) -prune -o -name '*.go' -exec gofmt -l {} +); \
	if [[ $$unformatted ]]; then echo "gofmt these files:"; echo "$$unformatted"; exit 1; fi
	go vet ./...
	go vet -C cmd/build ./...
	go vet -C bench ./...
	go vet -C docs/monitoring ./...
	go tool -modfile=tools/go.mod staticcheck ./...
	go tool -C cmd/build -modfile=../../tools/go.mod staticcheck ./...
	go tool -C docs/monitoring -modfile=../../tools/go.mod staticcheck ./...

setup: ## install or name the tools that the tests use
	scripts/setup

# The tests come last, so that the output ends with their summary.
test: setup lint release-build ## everything: lint, release build, all tests with -race and none skipped
	scripts/gotest

e2e: setup ## real players, in a browser and on the command line, against the built binary
	scripts/gotest ./e2e -args -both

monitoring: ## rules and dashboard, in a real Prometheus that watches the built binary
	go test -C docs/monitoring -count=1 -timeout 5m ./...

release-build: ## build the release, bin/caddy-release, from xcaddy.json
	go run -C cmd/build . -config '$(CURDIR)/xcaddy.json' -output '$(CURDIR)/bin/caddy-release'
	@modules=$$(bin/caddy-release list-modules); \
	for module in http.handlers.stream_guard http.handlers.stream_guard_token admin.api.stream_guard stream_guard.stores.memory stream_guard.stores.redis; do \
		grep -qx "$$module" <<<"$$modules" || { echo "bin/caddy-release lacks the module $$module"; exit 1; }; \
	done

fuzz: ## run each fuzz target for FUZZTIME (30s)
	scripts/fuzz

vuln: ## known vulnerabilities in what the binary calls; asks vuln.go.dev
	go tool -modfile=tools/go.mod govulncheck ./...

soak: ## ten million operations (simulation, rules, histories), and faults for 30 s each; make test has the short form
	mkdir -p bin
	go test -v -count=1 -timeout 1h ./lease -run Simulation -args -sim.seeds=12000 | tee bin/soak.txt
	go test -v -count=1 -timeout 1h ./redisstore -run Rules -rapid.checks=5000 | tee -a bin/soak.txt
	go test -v -count=1 -timeout 1h ./redisstore -run Histories -args -operations 3000000 | tee -a bin/soak.txt
	go test -v -count=1 -timeout 1h ./e2e -run HistoryOf -args -operations 200000 | tee -a bin/soak.txt
	@awk '/ operations/ { for (i = 2; i <= NF; i++) if ($$i ~ /^operations/) n += $$(i-1) } END { print n " operations in all"; exit n < 1e7 }' bin/soak.txt
	go test -count=1 -timeout 1h ./e2e -run FaultsOf -args -fault.hold=30s

truth: ## play a population whose truth is known for five minutes, and print how exact the count was; make test has the short form
	mkdir -p bin
	go test -v -count=1 -timeout 1h ./truth -args -truth.long | tee bin/truth.txt

replay: ## replay a day of 100,000 viewers whose truth is known; make test has the short form
	go test -v -count=1 -timeout 1h ./caddymodule/command -run ReplayEquals -args -viewers 100000

traces: setup ## record what real players ask for, into testdata/traces; the diff is the review
	go test -count=1 -timeout 30m -parallel 4 ./e2e -run TestRecord -args -record ../testdata/traces

bench: ## measure against partners, into docs/performance.md; one row in short: ROWS=throughput/file_server/4k PAIRS=3 SECONDS=5
	go run -C bench . $(if $(ROWS),-rows '$(ROWS)') $(if $(PAIRS),-pairs $(PAIRS)) $(if $(SECONDS),-seconds $(SECONDS)) $(if $(PROFILE),-profile '$(abspath $(PROFILE))')

scale: ## play a large audience in virtual time and print what Redis is asked; docs/scaling.md has the figures
	go test -C bench -count=1 -timeout 1h ./scale -args -viewers 50000

clean: ## remove bin
	rm -rf bin
