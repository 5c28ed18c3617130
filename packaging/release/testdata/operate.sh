#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The first hour, and what operators do to packages after it: an upgrade, a removal, a
# purge. Data outlives all of them.
set -euo pipefail
die() { echo "operate: $1" >&2; exit 1; }
/mnt/first-hour.sh --key /media/release.pub --testcard /media/valise-testcard

is() { # WHAT FILE: mode and owner are these
	local have
	have=$(stat -c '%a %U:%G' "$2")
	[[ $have == "$1" ]] || die "$2 is $have, want $1"
}
for daemon in enrolld gatewayd; do
	user=valise-$daemon
	is "700 $user:$user" "/var/lib/$user"
	is "700 $user:$user" "/var/lib/$user/tokens"
	is "750 $user:$user" "/var/log/$user"
	is "750 root:$user" "/etc/valise/$daemon"
	is "600 $user:$user" "/etc/valise/$daemon/pin"
	is "600 $user:$user" "/var/log/$user/audit.jsonl"
	pid=$(pgrep -x -u "$user" -f "/usr/bin/$user serve .*") || die "$daemon does not run as $user"
	grep -q '^CapEff:[[:space:]]*0*$' "/proc/$pid/status" || die "$daemon has capabilities"
	grep -q '^CapBnd:[[:space:]]*0*$' "/proc/$pid/status" || die "$daemon could get capabilities"
	grep -q '^NoNewPrivs:[[:space:]]*1$' "/proc/$pid/status" || die "$daemon could get rights"
done
[[ -z $(find / -xdev -name 'valise-testcard*' ! -path '/media/*' 2>/dev/null | grep -E '^/(usr|opt|bin)/') ]] ||
	die 'the virtual card was installed'

# An upgrade keeps what the operator wrote, and what the daemon holds.
held=$(sha256sum /var/lib/valise-enrolld/root.pem /etc/valise/enrolld.toml)
dpkg --force-confold -i /mnt/debian/valise-enrolld_*.deb >/dev/null 2>&1 || die 'the upgrade failed'
[[ $held == "$(sha256sum /var/lib/valise-enrolld/root.pem /etc/valise/enrolld.toml)" ]] || die 'an upgrade changed files'

# Removing a package leaves data and configuration, purging it the data.
pkill -x -u valise-enrolld -f '/usr/bin/valise-enrolld serve .*'
dpkg -r valise-enrolld >/dev/null
[[ $held == "$(sha256sum /var/lib/valise-enrolld/root.pem /etc/valise/enrolld.toml)" ]] || die 'removing deleted files'
said=$(dpkg -P valise-enrolld)
for left in /var/lib/valise-enrolld /var/log/valise-enrolld /etc/valise/enrolld; do
	grep -qxF "valise-enrolld: left as it is: $left" <<<"$said" || die "purging says nothing about $left: $said"
	[[ -d $left ]] || die "purging deleted $left"
done
[[ -f /var/lib/valise-enrolld/authority.db ]] || die 'purging deleted the database'
[[ -n $(ls /var/lib/valise-enrolld/tokens) ]] || die 'purging deleted the keys'
[[ ! -e /etc/valise/enrolld.toml ]] || die 'purging left its configuration file'
id valise-enrolld >/dev/null || die 'purging deleted the user, who owns files'
echo 'operate: ok'
