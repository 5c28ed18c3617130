// SPDX-License-Identifier: Apache-2.0

// Command valise-gatewayd is the gateway: it relays sealed messages and files
// between attested devices, and can read none of them.
//
// Set one up, with its key in an HSM or a software token:
//
//	valise-gatewayd init --config gateway.toml     # writes a configuration to edit
//	valise-gatewayd csr --config gateway.toml > gateway.csr
//	… the authority turns gateway.csr into gateway.pem (valise-enrolld issue-gateway)
//	valise-gatewayd serve --config gateway.toml
//
// # Commands
//
//	init --config FILE
//
// writes a configuration in which every field is explained. It overwrites
// nothing.
//
//	csr --config FILE [--algorithm P-384|P-256]
//
// prints a certificate request (PKCS #10, PEM) for the gateway's key, and makes
// the key in the token first if it is not there. A key that is there is used,
// never replaced.
//
//	serve --config FILE
//
// runs the gateway until SIGINT or SIGTERM, then tells connected devices to come
// back later and ends. SIGHUP reads the deny list and the certificate again.
//
//	import --config FILE manifest|bulletin|statement FILE...
//
// hands the running gateway documents that came on a disk or by mail: a manifest
// or bulletin of the authority (which publishes both at /manifest and
// /bulletin), or an officer's suspension, revocation or removal, which is obeyed
// at once. Each is verified against the root first. If no gateway runs, they lie
// ready for when it starts, and the command says so and fails.
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
// audit file holds one JSON object a line: who was refused, and why.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/alecthomas/kong"

	"valise/internal/memory"
)

type commands struct {
	Init  initCommand  `cmd:"" help:"Write a configuration to edit."`
	CSR   csrCommand   `cmd:"" name:"csr" help:"Print a certificate request, making the key if there is none."`
	Serve serveCommand `cmd:"" help:"Run the gateway."`

	Import importCommand `cmd:"" help:"Hand documents that came by hand to the running gateway."`
}

func main() {
	var c commands
	parser, err := kong.New(&c, kong.Name("valise-gatewayd"),
		kong.Description("Relays sealed messages between attested devices."), kong.UsageOnError())
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
