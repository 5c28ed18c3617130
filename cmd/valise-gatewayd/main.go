// SPDX-License-Identifier: Apache-2.0

// Command valise-gatewayd is the gateway: it relays sealed messages and files
// between attested devices, and can read none of them.
//
// Set one up, with its key in an HSM or a software token:
//
//	valise-gatewayd init --config gateway.toml     # writes a configuration to edit
//	valise-gatewayd csr --config gateway.toml > gateway.csr
//	… the authority turns gateway.csr into gateway.pem (valise-enrolld gateway-cert)
//	valise-gatewayd serve --config gateway.toml
//
// # Commands
//
//	init --config FILE
//
// writes a configuration in which every field is explained. It overwrites
// nothing.
//
//	csr --config FILE [--algorithm P-384|P-256] [--next]
//
// prints a certificate request (PKCS #10, PEM) for the gateway's key, and makes
// the key in the token first if it is not there. A key that is there is used,
// never replaced.
//
//	serve --config FILE
//
// runs the gateway until SIGINT or SIGTERM, then tells connected devices to come
// back later and ends. SIGHUP reads the deny list and the certificate again, and opens the
// audit file anew, for logrotate.
//
//	check --config FILE [--json]
//
// says whether the gateway can do its work on this machine, before it is started or
// beside it while it runs: configuration and file modes, disk (room, a synced write),
// certificate, token and key (which signs once), database, authority, clock, sockets,
// open files, ports. Each line is ok, warn or FAIL, with what to do; the exit status is
// 1 if one says FAIL. Run it as the gateway's user. It opens the token once: a wrong
// PIN costs one attempt.
//
//	import --config FILE record|manifest|bulletin|statement FILE...
//
// hands the running gateway documents that came on a disk or by mail: the record, or the
// part of it that is new, with manifest, checkpoint and bulletin (valise-enrolld export);
// a manifest or bulletin of the authority (which publishes both at /manifest and
// /bulletin), or an officer's suspension, revocation or removal, which is obeyed
// at once. Each is verified against the root first. If no gateway runs, they lie
// ready for when it starts, and the command says so and fails.
//
//	export --config FILE --out FILE
//
// writes what this gateway knows of the authority's record into a file, for an authority
// that was restored from a backup and that the gateway cannot reach (valise-enrolld
// import).
//
//	backup --config FILE --out FILE
//
// writes what the gateway's store and its copy of the authority's record hold at
// one moment into a new file of mode 0600, while the gateway runs or not. It has
// every mailbox and its counters, marks, groups, KeyPackages and the list of files; not
// the files (copy blobs/ after it, with any tool), nor keys, PINs, configuration, policy
// bundle and audit stream.
//
//	restore --config FILE --from FILE
//
// makes the store anew in a data directory that has none. Put blobs/ back yourself, and
// let the authority be reachable: who was suspended since the backup is not known here
// until then, and the older the bulletin is, the less is relayed.
//
//	restored --config FILE --since TIME
//
// says that the database was put back by other means, or is a new one after a loss
// without a backup. With PostgreSQL: stop the gateway, pg_restore what pg_dump
// wrote (one pg_dump is of one moment), run this, start the gateway.
//
// A store that goes back in time without one of the last two would use delivery numbers
// again, hand out KeyPackages twice and let groups fork. A gateway notes beside its audit
// stream (FILE.mark) how far its store has come, and does not start with an older one.
// Restored, it tells each device: conversations go on in new groups, and what was
// acknowledged since the backup is sent again by the devices that wrote it. See
// spec/wire.md, Section 14.
//
//	nodes --config FILE
//
// lists the gateways that share one PostgreSQL database ("node" in the configuration), and
// which of them run.
//
//	transport-keys --config FILE [--rotate]
//
// shows since when they share the keys of the QUIC transport, or exchanges them: restart
// the nodes one after the other then. A gateway with a database of its own has them in its
// data directory: stop it, remove token.key and stateless-reset.key, start it.
//
// # Several nodes
//
// Any number of gateways may serve the same people from one PostgreSQL database: give each
// a name under "node", a key and a certificate of its own, and all of them the same roots,
// domain, deny list, policy bundle and limits. Any of them serves any device, and what one has acknowledged, all
// know. Each follows the authority by itself: documents that come by hand (import) and
// the deny list are given to each of them. SIGTERM tells devices to go to another
// node. A gateway without "node" and nodes refuse each other's database.
//
// # Standings
//
// With [authority] url set, the gateway follows the authority's record over a
// connection that both sides authenticate, and is told at once who was
// suspended, revoked or removed: connections are closed, messages to and from
// them refused. It goes on with what it knows while the authority is away;
// /healthz turns red when the last bulletin is too old. The deny list works
// beside it, for what the operator alone decides.
//
// # Files
//
// The data directory holds the database (relay.db) and the journal in front of it
// (relay.journal/), which belong together, the copy of the authority's
// record (record.db), documents to take in (spool/), files on their way
// (blobs/), and two keys of the QUIC transport, which protect no content. The
// copy is what an authority that lost its disk is restored from: back it up, and
// never delete it because it contradicts the authority. The
// audit file holds one JSON object a line: who was refused, and why. With [syslog] server
// set, a copy of each line goes to a collector in the form of RFC 5424; what that misses
// is counted, and the file says so.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/alecthomas/kong"

	"valise/internal/memory"
	"valise/packaging"
)

type commands struct {
	Init  initCommand  `cmd:"" help:"Write a configuration to edit."`
	CSR   csrCommand   `cmd:"" name:"csr" help:"Print a certificate request, making the key if there is none."`
	Serve serveCommand `cmd:"" help:"Run the gateway."`
	Check checkCommand `cmd:"" help:"Say whether the gateway can do its work here: configuration, disk, key, database, clock, ports."`

	Nodes         nodesCommand         `cmd:"" help:"List the gateways that share the database."`
	TransportKeys transportKeysCommand `cmd:"" help:"Show or exchange the transport keys that the nodes of a gateway share."`

	Backup   backupCommand   `cmd:"" help:"Write a backup of the gateway's store, also while it runs."`
	Restore  restoreCommand  `cmd:"" help:"Restore a backup into an empty data directory."`
	Restored restoredCommand `cmd:"" help:"Mark a database that was put back by other means as restored."`

	Import importCommand `cmd:"" help:"Hand documents that came by hand to the running gateway."`
	Export exportCommand `cmd:"" help:"Write what this gateway holds of the authority's record into a file, for an authority that it cannot reach."`

	Version kong.VersionFlag `help:"Print the version and end."`
}

func main() {
	var c commands
	parser, err := kong.New(&c, kong.Name("valise-gatewayd"),
		kong.Description("Relays sealed messages between attested devices."), kong.Vars{"version": packaging.Version()}, kong.UsageOnError())
	if err != nil {
		panic(err) // the declarations above are wrong
	}
	command, err := parser.Parse(os.Args[1:])
	parser.FatalIfErrorf(err)
	command.BindTo(context.Background(), (*context.Context)(nil))
	if err = memory.Guard(); err == nil {
		err = command.Run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "valise-gatewayd:", err)
		var hinted interface{ Hint() string }
		if errors.As(err, &hinted) && hinted.Hint() != "" {
			fmt.Fprintln(os.Stderr, "valise-gatewayd: hint:", hinted.Hint())
		}
		os.Exit(1)
	}
}
