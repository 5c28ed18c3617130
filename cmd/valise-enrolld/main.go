// SPDX-License-Identifier: Apache-2.0

// Command valise-enrolld is the enrollment authority: it appraises the evidence of
// devices' keys and issues their certificates with a key that stays in a PKCS#11
// token.
//
//	valise-enrolld init         --config FILE            make the authority, once
//	valise-enrolld init         --config FILE --ceremony FILE   the same, with officers
//	valise-enrolld manifest show  --config FILE          print the keys in use
//	valise-enrolld manifest renew --config FILE          replace a lost HSM
//	valise-enrolld rotate       --config FILE KEY…       issuing, bulletin, ledger, tls
//	valise-enrolld manifest retire --config FILE         former keys sign no more
//	valise-enrolld root         --config FILE            print the root and its fingerprint
//	valise-enrolld roster import --config FILE FILE.csv  add or change people
//	valise-enrolld roster list   --config FILE
//	valise-enrolld roster remove --config FILE ADDRESS…
//	valise-enrolld invite       --config FILE ADDRESS    print an invitation: code and QR
//	valise-enrolld serve        --config FILE            answer devices, until a signal
//	valise-enrolld check        --config FILE [--json]   say whether it can do its work here
//	valise-enrolld gateway-cert --config FILE --csr FILE --name NAME[,IP…]
//	valise-enrolld list         --config FILE            print what was issued
//	valise-enrolld backup       --config FILE --out FILE   copy everything but the HSM
//	valise-enrolld restore      --config FILE --from FILE  into an empty place
//	valise-enrolld export       --config FILE --out FILE   the record, for gateways without a path here
//	valise-enrolld import       --config FILE --gateway NAME FILE   what such a gateway knows, after a restore
//
// A first day goes like this:
//
//	softhsm2-util --init-token --free --label valise --so-pin … --pin …   # or your HSM's tool
//	valise-enrolld init --config enrolld.toml
//	valise-enrolld roster import --config enrolld.toml people.csv
//	valise-enrolld serve --config enrolld.toml &
//	valise-enrolld invite --config enrolld.toml alice@interieur.example
//
// # With officers
//
// An authority in which nobody alone can issue is founded in a ceremony. Beforehand
// each officer applies with a card of their own, for the ceremony's name:
//
//	valise officer apply --role officer --for-ceremony "Founding of interieur.example" olga@interieur.example olga.json
//
// The plan of the ceremony, which names the applications, the tokens and the rules,
// is described at the type ceremony.Plan. On its day, with everybody in the room:
//
//	valise-enrolld init --config enrolld.toml --ceremony plan.toml
//
// The officers take their certificates home (officers/ADDRESS.pem in the data
// directory), all sign the printed ceremony-record.txt, and the root's token goes
// into a safe. The daemon does not need it.
//
// A gateway's certificate takes two officers too: gateway-cert shows them the request,
// says that it waits, and ends with status 3. They compare the key's fingerprint with
// what valise-gatewayd csr printed, and approve (valise officer gateways); then
// gateway-cert, run again, issues.
//
// # When the HSM is lost
//
// Bring the root's token and an empty one, name both in the configuration, and
//
//	valise-enrolld manifest renew --config enrolld.toml --replace
//
// makes new keys and signs the next manifest for them. Everybody who pins the root
// goes on: devices renew, and the ledger continues under its new key. What the old
// keys signed counts as long as it says, or not at all with --distrust-old, if the
// HSM may be in other hands: devices and gateways need new certificates then.
//
// # When a key is old
//
//	valise-enrolld rotate --config enrolld.toml issuing bulletin ledger
//
// makes the next keys in the same token ("valise-issuer-2" and so on) and has the root
// sign for them. The daemon, each daemon on one database, changes over within seconds
// and keeps its listener open meanwhile. For a day former keys may still sign; what they
// signed counts on. Gateways and devices find the new manifest when they connect.
//
//	valise-enrolld rotate --config enrolld.toml tls    # no root needed
//	kill -HUP $(pidof valise-enrolld)                  # or systemctl reload
//
// The root key itself cannot rotate: it is what everybody pins. An authority whose root
// is lost or worn out is founded anew, under another root, and people enroll there.
//
// # Running it
//
// Check looks at configuration and file modes, disk (room, a synced write), certificates
// and manifest, tokens and keys (each signs once), database, clock, open files and ports,
// before the daemon is started or beside it. Each line is ok, warn or FAIL, with what to do; the
// exit status is 1 if one says FAIL. Run it as the daemon's user. It opens each
// token once: a wrong PIN costs one attempt.
//
// The other commands may run while the daemon does. The configuration file is
// described field by field at the type Config.
//
// Whoever can run this command as the daemon's user can invite and import; the PIN
// file opens the issuing key. Guard both as you would guard the HSM.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"valise/hsm"
	guard "valise/internal/memory"
	"valise/packaging"
)

// cli is the command line. Each command's Run method is in a file of its own.
type cli struct {
	Init        initCmd     `cmd:"" help:"Make the authority: root and issuing keys in the token, certificates in the data directory. Once."`
	Manifest    manifestCmd `cmd:"" help:"Show or renew what the root signed about the keys in use."`
	Rotate      rotateCmd   `cmd:"" help:"Replace keys that are in use by new ones in the same token, while everything goes on."`
	Serve       serveCmd    `cmd:"" help:"Answer devices (ACME over HTTPS) until SIGTERM."`
	Check       checkCmd    `cmd:"" help:"Say whether the authority can do its work here: configuration, disk, keys, database, clock, ports."`
	Invite      inviteCmd   `cmd:"" help:"Print an invitation for one person: one device, one use, 24 hours."`
	Roster      rosterCmd   `cmd:"" help:"Import, list or remove the people who may enroll devices."`
	GatewayCert gatewayCmd  `cmd:"" help:"Issue a gateway's certificate from its CSR and print the chain. Where officers decide, it ends with status 3 until two have approved."`
	Root        rootCmd     `cmd:"" help:"Print the root certificate (standard output) and its fingerprint (standard error)."`
	List        listCmd     `cmd:"" help:"List the certificates that were issued."`
	Backup      backupCmd   `cmd:"" help:"Write everything but the HSM into one file, while the daemon runs."`
	Restore     restoreCmd  `cmd:"" help:"Restore a backup into an empty data directory and database, SQLite or PostgreSQL. The daemon stays read-only until gateways were asked."`
	Export      exportCmd   `cmd:"" help:"Write the record with manifest, checkpoint and bulletin into a file, for gateways that cannot reach this authority."`
	Import      importCmd   `cmd:"" help:"After a restore: take in what a gateway that cannot reach this authority knows of its record (valise-gatewayd export)."`

	Version kong.VersionFlag `help:"Print the version and end."`
}

// common is what every command takes.
type common struct {
	Config string `required:"" type:"existingfile" placeholder:"FILE" help:"Configuration in TOML."`
}

func main() {
	var c cli
	parsed := kong.Parse(&c, kong.Name("valise-enrolld"),
		kong.Description("The enrollment authority of Valise."), kong.Vars{"version": packaging.Version()}, kong.UsageOnError())
	// serve replaces this by the daemon's own handling of signals.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	parsed.BindTo(ctx, (*context.Context)(nil))
	err := guard.Guard()
	if err == nil {
		err = parsed.Run()
	}
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "valise-enrolld: %v\n", err)
		if hint := hsm.Hint(err); hint != "" {
			fmt.Fprintf(os.Stderr, "valise-enrolld: hint: %s\n", hint)
		}
		if _, waits := errors.AsType[*waitingError](err); waits {
			os.Exit(exitWaiting)
		}
		os.Exit(1)
	}
}
