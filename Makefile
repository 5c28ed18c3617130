# SPDX-License-Identifier: Apache-2.0
#
# Every command of the project. `make help` lists them; CONTRIBUTING.md says more.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup build demo test lint fmt bench bench-connect bench-enroll bench-mls bench-policy bench-relay bench-cutoff bench-files bench-nodes bench-scale fuzz mutants vectors soak clean upgrade-test soak-ha soak-rolling

# Where Go's own archive unpacks itself, for shells that do not know it yet.
export PATH := $(PATH):/usr/local/go/bin

# Missing parts fail a test instead of skipping it. Add "vectors" to require
# the published test data too: VALISE_REQUIRE=all,vectors make test
export VALISE_REQUIRE ?= all

# Vet runs on its own, first; three packages at a time keep two cores busy, because many
# tests wait for disks, cards and clocks. The race detector brings checks of unsafe
# pointers along, which take a quarter of the tests' time in SQLite as it was translated
# from C, and find nothing of ours there: not in it. To leave the detector itself out of
# some packages is no way: generic code that they share with others then has no order.
TESTFLAGS ?= -race -gcflags=modernc.org/...=-d=checkptr=0 -shuffle=on -count=1 -vet=off -p 3 -timeout 12m
FUZZTIME  ?= 30s
SOAK      ?= 20m
SOAK_SEED ?= 0
SOAK_DISK ?= torn
SOAK_STORE ?= both
SOAK_NODES ?= 3
SOAK_HA   ?= cluster
PACKAGES  ?= ./...
GOAL      ?= demo test
TOOL      := go tool -modfile=tools.mod

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/make \1\t\2/p' Makefile | expand -t 16

setup: ## install the Debian packages that demo and tests need (GOAL=demo for fewer)
	@scripts/setup $(GOAL)

build: ## build every command into bin/
	@scripts/setup build
	go build -o bin/ ./cmd/...

demo: ## two officials, a gateway, an authority, intruders (KEEP=1 leaves it running)
	@scripts/setup demo
	go build -o bin/ ./cmd/... ./demo/...
	@KEEP="$(KEEP)" DEMO_SABOTAGE="$(DEMO_SABOTAGE)" bin/demo

test: ## vet, then every test on the real parts, with the race detector
	@scripts/setup test
	@go run ./internal/testsum -vet "$(PACKAGES)" -skips scripts/skips.txt -- $(TESTFLAGS) $(PACKAGES)

soak: ## twenty minutes of faults with people writing, and the judge's word (SOAK=2m, SOAK_SEED=N, SOAK_STORE=postgres, SOAK_NODES=1, SOAK_DISK=lying)
	@scripts/setup test
	@go build -o bin/ ./cmd/... ./soak/...
	@bin/soak -bin bin -for "$(SOAK)" -seed "$(SOAK_SEED)" -store "$(SOAK_STORE)" -nodes "$(SOAK_NODES)" -disk "$(SOAK_DISK)"

soak-ha: ## three nodes on PostgreSQL that fails over (Patroni, etcd): its primary is killed under load (SOAK=8m; SOAK_HA=async must fail)
	@scripts/setup soak-ha
	@go test -tags ha -count=1 -timeout 15m ./internal/patroni
	@go build -o bin/ ./cmd/... ./soak/...
	@bin/soak -bin bin -for "$(if $(filter file,$(origin SOAK)),8m,$(SOAK))" -seed "$(SOAK_SEED)" -store "$(SOAK_HA)" -nodes "$(SOAK_NODES)" -disk "$(SOAK_DISK)"

soak-rolling: ## three nodes are exchanged for another build of them, one after the other, with people writing
	@scripts/setup test
	@go build -o bin/ ./cmd/... ./soak/...
	@go build -trimpath -o bin/next/ ./cmd/valise-gatewayd
	@bin/soak -bin bin -for "$(if $(filter file,$(origin SOAK)),2m,$(SOAK))" -seed "$(SOAK_SEED)" -store postgres -nodes "$(SOAK_NODES)" -disk "$(SOAK_DISK)" -next bin/next -only "rolling upgrade"

upgrade-test: ## programs of an earlier commit beside those of the next version on one database, under load (some minutes; needs the history)
	@scripts/setup test
	@go test -tags upgrade -count=1 -timeout 30m -run '^TestUpgrade' ./gateway ./cmd/valise-enrolld -v | grep -E '^(upgrade:|---|FAIL|ok|panic)|_test.go:'

lint: ## gofumpt, vet, staticcheck, deadcode
	@scripts/setup lint
	@scripts/lint

fmt: ## format every Go file
	$(TOOL) gofumpt -w .

bench: ## every benchmark; figures against bench/targets.txt, kept under bench/results/ (BENCH=./hsm/... for some)
	@scripts/setup bench
	@go run ./internal/benches $(BENCH)

bench-enroll: ## attested enrollments on SQLite and PostgreSQL, beside step-ca in the same run (some ten minutes)
	@scripts/setup bench
	@go run ./internal/benches ./bench/enroll

bench-mls: ## groups of 2 to 1000 members on three suites, each operation beside its primitives (a few minutes)
	@scripts/setup bench
	@go run ./internal/benches ./mls

bench-connect: ## 20,000 idle devices, all lost and back at once (some five minutes)
	@scripts/setup bench
	@go run ./internal/benches ./bench/connect

bench-cutoff: ## from an officer's statement to the closed connection, and to 20 groups without the device (some 3 minutes)
	@scripts/setup bench
	@go run ./internal/benches ./bench/cutoff

bench-files: ## a file of 1 GiB beside copying and bare QUIC, and messages beside files (FILES=10 for 10 GiB and 21 GiB of disk)
	@scripts/setup bench
	@VALISE_FILES_GIB="$(FILES)" go run ./internal/benches ./bench/files

bench-policy: ## the policy benchmarks alone
	@go run ./internal/benches ./policy/...

bench-relay: ## the gateway beside NATS JetStream, Mosquitto and bare QUIC relays in the same run (some 25 minutes)
	@scripts/setup bench
	@go run ./internal/benches ./bench/relay

bench-nodes: ## one, two and three gateways on one PostgreSQL, what ends the growth, and waking up across them (some 8 minutes)
	@scripts/setup bench
	@go run ./internal/benches ./bench/nodes

bench-scale: ## what a message costs the stores with 1,000 to 100,000 devices and 10 million stored messages (some half an hour)
	@scripts/setup bench
	@go run ./internal/benches ./bench/scale

fuzz: ## every fuzz target of the module for FUZZTIME each (30s)
	@scripts/setup fuzz
	@FUZZTIME="$(FUZZTIME)" scripts/fuzz $(PACKAGES)

mutants: ## remove one check at a time; each named test must turn red
	@scripts/setup mutants
	@go run ./internal/mutants -min 25

vectors: ## the MLS working group's vectors, counted (MLS_VECTORS=DIR for those of another folder)
	@scripts/setup build
	@go run ./internal/mlsvectors

.PHONY: package bundle rebuild reproducible outsider
package: ## Debian packages of the newest commit into dist/, looked at by lintian (some minutes)
	@scripts/setup package
	@go run ./packaging/release package --out dist

bundle: ## packages, sources, documents and what Debian has to add, signed (KEY=pkcs11:… PIN_FILE=…; without KEY by one for trying out)
	@scripts/setup package
	@if [ -n "$(KEY)" ]; then go run ./packaging/release bundle --out dist --key "$(KEY)" $(if $(PIN_FILE),--pin-file "$(PIN_FILE)"); else packaging/trial-key.sh dist; fi

rebuild: ## build the programs from the bundle in dist/, without a network, and compare
	@scripts/setup package
	@rm -rf dist/unpacked && mkdir -p dist/unpacked && tar -xf dist/valise-*-bundle.tar -C dist/unpacked
	@go run ./packaging/release rebuild dist/unpacked/valise-*

reproducible: ## build everything twice, in different places, and compare bit by bit (some ten minutes)
	@scripts/setup package
	@go run ./packaging/release reproducible

outsider: ## an outsider's hour: from a bundle to two devices that exchange messages, in a clean Debian without a network
	@scripts/setup package
	@rm -rf dist && packaging/trial-key.sh dist
	@packaging/outsider.sh dist/valise-*-bundle.tar dist/release.pub

clean: ## remove what the commands above left in the tree
	rm -rf bin dist
