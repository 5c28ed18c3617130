#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Builds the programs that the packages ship, from the sources in SRC with their vendor
# folder and without a network, into OUT:
#
#	packaging/build.sh SRC OUT
#
# The packages are built by this script. Whoever has the sources of a bundle and the
# same versions of Go and gcc (BUILD in the bundle) gets the same bytes from it.
set -eu
[ $# -eq 2 ] || { echo 'usage: build.sh SRC OUT' >&2; exit 2; }
src=$(cd "$1" && pwd)
mkdir -p "$2"
out=$(cd "$2" && pwd)
cd "$src"

# Nothing of this user's settings, no path of this machine, no network.
export GOENV=off GOWORK=off GOTOOLCHAIN=local GOPROXY=off GOFLAGS=-mod=vendor
export GOOS=linux GOAMD64=v1 GOEXPERIMENT= GOFIPS140=off CGO_ENABLED=1 CC=gcc
export CGO_CFLAGS="-O2 -fstack-protector-strong -D_FORTIFY_SOURCE=2 -ffile-prefix-map=$src=/valise"
export CGO_CPPFLAGS= CGO_CXXFLAGS= CGO_FFLAGS= CGO_LDFLAGS=-Wl,-z,relro,-z,now

# Position-independent and stripped; -trimpath and an empty build id leave out where and
# when. -buildvcs: the version stands in packaging/debian/changelog.
exec go build -trimpath -buildvcs=false -buildmode=pie -ldflags='-s -w -buildid=' \
	-o "$out/" ./cmd/valise ./cmd/valise-enrolld ./cmd/valise-gatewayd
