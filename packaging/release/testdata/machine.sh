#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# A machine without a network: this one's files, under a layer that is thrown away, in
# namespaces of its own. It runs COMMAND there:
#
#	machine.sh BUNDLE TOOLS COMMAND...
#
# BUNDLE appears as /mnt, TOOLS as /media, both read-only.
set -euo pipefail
if [[ ${INSIDE:-} != yes ]]; then
	exec env INSIDE=yes unshare --mount --net --pid --uts --ipc --fork --kill-child "$0" "$@"
fi
bundle=$1 tools=$2
shift 2
mount --make-rprivate /
work=$(mktemp -d)
mount -t tmpfs tmpfs "$work"
mkdir "$work"/{upper,work,root}
mount -t overlay overlay -o "lowerdir=/,upperdir=$work/upper,workdir=$work/work" "$work/root"
root=$work/root
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
for folder in "$bundle:$root/mnt" "$tools:$root/media"; do
	mount --bind "${folder%%:*}" "${folder#*:}"
	mount -o remount,bind,ro "${folder#*:}"
done
ip link set lo up
# Nothing of this machine's own Valise, if it has one.
rm -rf "$root"/etc/valise* "$root"/var/lib/valise* "$root"/srv/*
exec chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin TERM=dumb "$@"
