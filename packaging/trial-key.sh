#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Signs a bundle with a key made for it, in a SoftHSM token that is thrown away: for
# trying out how a bundle is made and used. Nobody should believe such a signature.
#
#	packaging/trial-key.sh OUT
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/tokens"
export SOFTHSM2_CONF=$work/softhsm2.conf
printf 'directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n' "$work/tokens" >"$SOFTHSM2_CONF"
install -m 0600 /dev/null "$work/pin"
echo 482916 >"$work/pin"
softhsm2-util --init-token --free --label release --pin 482916 --so-pin 482916 >/dev/null
module=$(compgen -G '/usr/lib*/softhsm/libsofthsm2.so' | head -n 1)
go run ./packaging/release bundle --out "$1" --key "pkcs11:token=release;object=bundle?module-path=$module" --pin-file "$work/pin"
