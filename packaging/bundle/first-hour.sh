#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# The first hour: from an unpacked bundle, on a Debian without a network, to two
# officials who write to each other. Read it from top to bottom: every command is one
# that an operator types.
#
#	./first-hour.sh --key /media/other/release.pub --testcard /media/trial/valise-testcard
#
# It is for trying out, on a machine that holds nothing else. What differs from earnest:
#
#   - No card is at hand: valise-testcard makes virtual ones, whose keys lie in files.
#     It is not in the bundle's packages. You build it from the bundle's sources:
#     go build ./cmd/valise-testcard
#   - Authority, gateway and both officials are on one machine. In earnest they are
#     four, and files are carried between them where this script reads them in place.
#   - SoftHSM keeps the keys of authority and gateway, and the root's with them.
#   - The authority is founded without officers, so the operator invites and nobody has
#     to approve. A ministry's is founded in a ceremony (docs/install.md).
#   - PINs stand in this script.
set -euo pipefail
export LC_ALL=C.UTF-8

die() { echo "first-hour: $1" >&2; exit 1; }
step() { printf '\n[%3d s] %s\n' "$SECONDS" "$*"; }
key= testcard=
while (($#)); do
	case $1 in
	--key) key=$2; shift 2 ;;
	--testcard) testcard=$2; shift 2 ;;
	*) die "unknown option $1" ;;
	esac
done
[[ -f $key ]] || die 'the key that the bundle is signed with: --key FILE'
[[ -x $testcard ]] || die 'the program that makes virtual cards: --testcard FILE'
((UID == 0)) || die 'installing takes root'
bundle=$(cd "$(dirname "$0")" && pwd -P)
pin=123456

step 'This machine reaches nobody: it has no route, and no name of the world means anything to it.'
[[ $(wc -l </proc/net/route) -le 1 ]] || die 'there is a route: this is to work without one'
! getent ahosts example.org >/dev/null || die 'names are resolved: this is to work without'

step 'The bundle is what its signer made; then its packages, and those of Debian that they need.'
"$bundle/install.sh" --key "$key" valise valise-enrolld valise-gatewayd softhsm2 pcscd openssl >/var/tmp/install.log 2>&1 ||
	{ tail -n 30 /var/tmp/install.log >&2; die 'not installed'; }
dpkg-query -W -f='  ${Package} ${Version}\n' 'valise*'
if compgen -G "$bundle/trial/*.deb" >/dev/null; then
	dpkg -i "$bundle"/trial/*.deb >/var/tmp/trial.log 2>&1 || die 'no virtual reader: see /var/tmp/trial.log'
fi

# Machines have names without a name server, too.
echo '127.0.0.1 enroll.interieur.example gateway.interieur.example' >>/etc/hosts

# A command as a daemon's user, with the environment of its unit.
as() {
	local user=valise-$1
	shift
	# shellcheck disable=SC2046
	runuser -u "$user" -- env $(grep -v '^#' "/etc/default/$user") "$@"
}

# Units where systemd runs; where it does not, the same command, user and environment,
# without a capability and without a way to get one.
start() {
	local user=valise-$1
	if [[ -d /run/systemd/system ]]; then
		systemctl start "$user.service"
		return
	fi
	# shellcheck disable=SC2046
	setpriv --reuid="$user" --regid="$user" --init-groups --no-new-privs --inh-caps=-all --bounding-set=-all \
		env -i PATH=/usr/bin:/bin $(grep -v '^#' "/etc/default/$user") \
		"/usr/bin/$user" serve --config "/etc/valise/$1.toml" >>"/var/tmp/$1.log" 2>&1 &
}
answers() { # PORT DAEMON
	local n
	for ((n = 0; n < 600; n++)); do
		! (: <"/dev/tcp/127.0.0.1/$1") 2>/dev/null || return 0
		sleep 0.2
	done
	tail -n 20 "/var/tmp/$2.log" >&2 || journalctl -u "valise-$2" -n 20 >&2 || true
	die "valise-$2 does not answer"
}
secret() { # FILE DAEMON: a PIN that only this daemon reads
	install -m 0600 -o "valise-$2" -g "valise-$2" /dev/null "$1"
	echo "$pin" >"$1"
}

step 'Virtual cards, in the place of real ones.'
cards=/srv/cards
mkdir -p "$cards"
"$testcard" new --state "$cards/alice.card" --root "$cards/root" --serial 10000001
"$testcard" new --state "$cards/bob.card" --root "$cards/root" --serial 10000002
"$testcard" reader --dir "$cards/reader" --outlive-parent "$cards/alice.card" "$cards/bob.card" >"$cards/log" 2>&1 &
for ((n = 0; n < 600; n++)); do
	! grep -q '^PCSCLITE_CSOCK_NAME=' "$cards/log" || break
	sleep 0.2
done
reader=$(grep '^PCSCLITE_CSOCK_NAME=' "$cards/log") || { cat "$cards/log" >&2; die 'there is no reader'; }

step 'The authority: a token, the keys in it, the people, the daemon.'
secret /etc/valise/enrolld/pin enrolld
"$testcard" root --root "$cards/root" --pem >/etc/valise/enrolld/trial-root.pem
sed -i 's|^roots = \[\]|roots = ["/etc/valise/enrolld/trial-root.pem"]|' /etc/valise/enrolld.toml
# Virtual cards say that they have this firmware; real ones need none of these lines.
printf '\n[appraisal]\nmin_firmware = "5.4.3"\n' >>/etc/valise/enrolld.toml
as enrolld softhsm2-util --init-token --free --label enrolld --pin "$pin" --so-pin "$pin" >/dev/null
as enrolld valise-enrolld init --config /etc/valise/enrolld.toml
cat >/etc/valise/enrolld/people.csv <<-'END'
	address,name,unit,clearance
	alice@interieur.example,Alice Martin,Cabinet,
	bob@interieur.example,Bob Durand,Cabinet,
END
as enrolld valise-enrolld roster import --config /etc/valise/enrolld.toml /etc/valise/enrolld/people.csv
start enrolld
answers 8443 enrolld

step 'The gateway: a token, the key in it, its certificate, the daemon.'
secret /etc/valise/gatewayd/pin gatewayd
as gatewayd softhsm2-util --init-token --free --label gatewayd --pin "$pin" --so-pin "$pin" >/dev/null
as gatewayd valise-gatewayd csr --config /etc/valise/gatewayd.toml >/var/tmp/gateway.csr
as enrolld valise-enrolld gateway-cert --config /etc/valise/enrolld.toml --csr /var/tmp/gateway.csr \
	--name gateway.interieur.example >/etc/valise/gatewayd/gateway.pem
as enrolld valise-enrolld root --config /etc/valise/enrolld.toml >/etc/valise/gatewayd/root.pem
start gatewayd
answers 9464 gatewayd

step 'Two officials enroll, each with an invitation and a card.'
echo "$pin" >"$cards/pin"
chmod 0600 "$cards/pin"
official() { # NAME COMMAND...
	local name=$1
	shift
	env "$reader" valise --home "/srv/$name" "$@"
}
enroll() { # NAME SERIAL
	as enrolld valise-enrolld invite --config /etc/valise/enrolld.toml "$1@interieur.example" >"/srv/$1.invitation" 2>/dev/null
	official "$1" enroll "@/srv/$1.invitation" --gateway gateway.interieur.example:4433 \
		--card "piv:?serial=$2" --pin-file "$cards/pin" --default-management-key
	official "$1" unlock --pin-file "$cards/pin"
}
enroll alice 10000001
enroll bob 10000002

step 'They write to each other.'
receive() { # NAME FILE: what came so far; the rest comes with the next call
	official "$1" receive --append "$2" --dir "/srv/$1.files" >/dev/null
}
arrives() { # NAME TEXT
	local n
	mkdir -p "/srv/$1.files"
	for ((n = 0; n < 300; n++)); do
		receive "$1" "/srv/$1.messages"
		! grep -qF "$2" "/srv/$1.messages" || return 0
		sleep 0.2
	done
	die "$1 did not get: $2"
}
official alice send bob@interieur.example 'The bag left at nine.'
arrives bob 'The bag left at nine.'
official bob send alice@interieur.example 'It is here.'
arrives alice 'It is here.'
official alice send bob@interieur.example --file "$bundle/BUILD"
arrives bob BUILD
cmp "$bundle/BUILD" /srv/bob.files/* || die 'the file is not the one that was sent'

official alice agent --stop
official bob agent --stop
echo
echo "first-hour: ok: two enrolled devices exchanged 2 messages and a file, $SECONDS s after the bundle was opened"
