// SPDX-License-Identifier: Apache-2.0

// Command release builds what is handed to operators: Debian packages, bills of
// materials, and one signed bundle with which Valise is installed, and built again,
// where there is no network.
//
//	go run ./packaging/release package --out dist
//	go run ./packaging/release bundle --out dist --key pkcs11:token=release;object=bundle?module-path=… --pin-file FILE
//	go run ./packaging/release rebuild FOLDER
//	go run ./packaging/release reproducible
//
// (make package, make bundle, make rebuild, make reproducible.)
//
// # What is built
//
// The newest commit, as git has it: what is not committed is left out, and said. Its
// sources are laid into a folder with all modules vendored, and packaging/build.sh
// builds the programs from there without a network, so that whoever has the sources of
// a bundle gets the same bytes. Times in archives are the commit's. The version stands
// in packaging/debian/changelog and nowhere else.
//
// # What needs a network
//
// Only bundle does, to fetch Debian's packages (apt-get, with this machine's sources),
// and the first run of nfpm, pinned in packaging/nfpm.mod, with its modules.
//
// # The signature
//
// SHA256SUMS names every other file of the bundle, and SHA256SUMS.sig is an ECDSA
// signature over it, with SHA-384, by a key in a PKCS#11 token that the caller names.
// The operator checks it with what Debian has:
//
//	openssl dgst -sha384 -verify release.pub -signature SHA256SUMS.sig SHA256SUMS
//	sha256sum --strict --check SHA256SUMS
//
// release.pub is written beside the bundle, never into it: it must come another way.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
)

type commands struct {
	Package      packageCommand      `cmd:"" help:"Build the Debian packages of the newest commit and have lintian look at them."`
	Bundle       bundleCommand       `cmd:"" help:"Build packages and sources, fetch what Debian has to add, and sign it all."`
	Rebuild      rebuildCommand      `cmd:"" help:"Build the programs from a bundle's sources, without a network, and compare."`
	Reproducible reproducibleCommand `cmd:"" help:"Build everything twice, in different places, and compare bit by bit."`
}

func main() {
	var c commands
	parsed := kong.Parse(&c, kong.Name("release"), kong.Description("Builds packages and bundle."), kong.Vars{"debian": debianPackages}, kong.UsageOnError())
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	parsed.BindTo(ctx, (*context.Context)(nil))
	err := parsed.Run()
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}
