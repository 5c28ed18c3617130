#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Checks a bundle and installs from it, without a network.
#
#	./install.sh --key /media/other/release.pub --check
#	./install.sh --key /media/other/release.pub valise-gatewayd [PACKAGE...]
#
# The key must have come another way than the bundle. Whoever could alter the bundle
# could alter this script too: check the first time by hand (README of the bundle),
# which takes two commands, and this script does the same each time after that.
set -eu
export LC_ALL=C
umask 022

complain() {
	echo "install.sh: $1" >&2
	exit 1
}

key= only_check=
while [ $# -gt 0 ]; do
	case $1 in
	--key) [ $# -ge 2 ] || complain '--key needs a file'; key=$2; shift 2 ;;
	--check) only_check=yes; shift ;;
	-*) complain "unknown option $1" ;;
	*) break ;;
	esac
done
[ -n "$key" ] || complain 'who signed the bundle is not for the bundle to say: --key FILE'
[ -f "$key" ] || complain "there is no key $key"
command -v openssl >/dev/null || complain 'openssl is missing'
key=$(readlink -f "$key")
bundle=$(cd "$(dirname "$0")" && pwd -P)
case $key in "$bundle"/*) complain 'the key lies in the bundle: take the one that came another way' ;; esac
cd "$bundle"

# 1. The list is the signer's.
openssl dgst -sha384 -verify "$key" -signature SHA256SUMS.sig SHA256SUMS >/dev/null 2>&1 ||
	complain 'SHA256SUMS is not signed by this key: do not use the bundle'

# 2. Every file is as in the list.
sha256sum --strict --check --quiet SHA256SUMS >&2 ||
	complain 'files are not those that were signed: do not use the bundle'

# 3. Nothing is there that is not in the list, links neither.
list=$(mktemp)
trap 'rm -f "$list"' EXIT
{ sed 's/^[0-9a-f]*  //' SHA256SUMS; printf '%s\n' ./SHA256SUMS ./SHA256SUMS.sig; } | sort >"$list"
find . ! -type d | sort | cmp -s - "$list" ||
	complain 'there are files that nobody signed, or some are missing: do not use the bundle'
echo "install.sh: $(wc -l <SHA256SUMS) files, all as they were signed"
[ -z "$only_check" ] || exit 0

[ $# -gt 0 ] || complain 'what to install? Name packages: valise, valise-enrolld, valise-gatewayd, or any of debian/'
[ "$(id -u)" -eq 0 ] || complain 'installing takes root'
# apt takes what is needed out of the bundle and from nowhere else. Its own check of
# signatures has nothing left to do: every byte was looked at above.
work=$(mktemp -d)
trap 'rm -rf "$list" "$work"' EXIT
echo "deb [trusted=yes] copy:$bundle/debian ./" >"$work/sources.list"
mkdir -p "$work/lists/partial" "$work/archives/partial"
offline() {
	DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends \
		-o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=- \
		-o Dir::State::lists="$work/lists" -o Dir::Cache::archives="$work/archives" \
		-o APT::Sandbox::User=root -o Acquire::Languages=none -o Dpkg::Use-Pty=0 "$@"
}
offline update >"$work/log" 2>&1 || { cat "$work/log" >&2; complain 'apt cannot read the bundle'; }
offline install "$@"
