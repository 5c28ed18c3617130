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
// # Files
//
// The data directory holds the database (relay.db), files on their way
// (blobs/), and two keys of the QUIC transport, which protect no content. The
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
