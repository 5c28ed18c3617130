#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# An outsider's hour: the bundle, and a Debian that knows nothing of it.
#
#	packaging/outsider.sh BUNDLE.tar RELEASE.pub
#
# The Debian is a clean debootstrap, the only step that needs a network. It is booted by
# systemd-nspawn with a network in which there is nothing but itself: its own systemd
# starts the daemons under every restriction of their units. What happens inside is
# packaging/bundle/first-hour.sh, which the bundle brings along. Takes root and some
# three minutes; leaves nothing.
set -euo pipefail
die() { echo "outsider: $1" >&2; exit 1; }
step() { printf '[%3d s] %s\n' "$SECONDS" "$*"; }
[[ $# -eq 2 && -f $1 && -f $2 ]] || die 'usage: outsider.sh BUNDLE.tar RELEASE.pub'
tar=$(readlink -f "$1") key=$(readlink -f "$2")
((UID == 0)) || die 'this takes root: the Debian inside has users and units of its own'
for tool in debootstrap systemd-nspawn openssl go; do
	command -v "$tool" >/dev/null || die "$tool is missing: scripts/setup package"
done

work=$(mktemp -d /var/tmp/outsider-XXXXXXXX)
machine=valise-outsider-$$
clean() {
	[[ -z ${inside:-} ]] || kill "$inside" 2>/dev/null || true
	rm -rf --one-file-system "$work"
	# Where no systemd runs, nspawn cannot tidy up behind itself.
	[[ -d /run/systemd/system ]] || find /sys/fs/cgroup -depth -path '*/payload*' -type d -exec rmdir {} \; 2>/dev/null || true
}
trap clean EXIT
trap 'exit 130' INT TERM

step 'Look at the bundle by hand, as its README says.'
mkdir "$work/media" "$work/tools"
tar -xf "$tar" -C "$work/media"
bundle=$(echo "$work"/media/valise-*)
(
	cd "$bundle"
	openssl dgst -sha384 -verify "$key" -signature SHA256SUMS.sig SHA256SUMS
	sha256sum --strict --check --quiet SHA256SUMS
)

step 'A clean Debian: debootstrap.'
root=$work/debian
debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,openssl bookworm "$root" >"$work/debootstrap.log" 2>&1 ||
	{ tail -n 20 "$work/debootstrap.log" >&2; die 'debootstrap failed'; }

step 'The virtual card, for want of a real one: built from the sources in the bundle, with no network.'
mkdir "$work/source"
tar -xzf "$bundle"/source/valise-*.tar.gz -C "$work/source" --strip-components=1
(
	cd "$work/source"
	unshare --net env GOENV=off GOWORK=off GOTOOLCHAIN=local GOPROXY=off GOFLAGS=-mod=vendor CGO_ENABLED=0 \
		go build -trimpath -buildvcs=false -o "$work/tools/valise-testcard" ./cmd/valise-testcard
)
cp "$key" "$work/tools/release.pub"

step 'Boot it. From here on there is no route, and no name server.'
cat >"$root/etc/systemd/system/first-hour.service" <<-END
	[Unit]
	After=multi-user.target
	[Service]
	Type=oneshot
	TimeoutStartSec=infinity
	StandardOutput=append:/var/log/first-hour.log
	StandardError=append:/var/log/first-hour.log
	ExecStart=/bin/bash -c '/mnt/first-hour.sh --key /media/release.pub --testcard /media/valise-testcard; echo \$\$? >/var/log/first-hour.status'
	ExecStart=/bin/bash -c 'for d in enrolld gatewayd; do systemctl is-active valise-\$\$d; systemctl show -p NRestarts valise-\$\$d; journalctl -q -u valise-\$\$d -p warning; done >/var/log/units.log'
	ExecStopPost=/bin/systemctl --no-block poweroff
END
mkdir -p "$root/etc/systemd/system/default.target.wants"
ln -s ../first-hour.service "$root/etc/systemd/system/default.target.wants/first-hour.service"
: >"$root/var/log/first-hour.log"
systemd-nspawn --quiet --directory="$root" --machine="$machine" --private-network --register=no --keep-unit \
	--bind-ro="$bundle:/mnt" --bind-ro="$work/tools:/media" --console=pipe --boot </dev/null >"$work/boot.log" 2>&1 &
inside=$!
tail -n +1 -f --pid="$inside" "$root/var/log/first-hour.log" || true
wait "$inside" || { cat "$work/boot.log" >&2; die 'the machine did not boot'; }
inside=

[[ $(cat "$root/var/log/first-hour.status" 2>/dev/null) == 0 ]] || die 'the first hour went wrong'
[[ $(grep -cx active "$root/var/log/units.log") == 2 ]] || { cat "$root/var/log/units.log"; die 'a unit ended'; }
[[ $(grep -cx NRestarts=0 "$root/var/log/units.log") == 2 ]] || { cat "$root/var/log/units.log"; die 'a unit was restarted'; }
echo
echo "outsider: ok: from a clean Debian and the bundle to two devices that exchange messages, $SECONDS s in all"
