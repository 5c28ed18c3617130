// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"text/tabwriter"
	"time"

	"valise/identity"
	"valise/ledger"
	"valise/manifest"
)

type manifestCmd struct {
	Show   manifestShowCmd   `cmd:"" help:"Print the keys that speak for the authority, as its root signed them."`
	Renew  manifestRenewCmd  `cmd:"" help:"Have the root sign the next manifest after an HSM was lost, or for other labels in the configuration."`
	Retire manifestRetireCmd `cmd:"" help:"Have the root sign that keys which were replaced sign nothing more from now on. What they signed before counts as it did."`
}

type manifestShowCmd struct{ common }

// Run needs neither token nor database: the file and the root suffice, here as
// everywhere.
func (cmd *manifestShowCmd) Run(context.Context) error {
	cfg, err := loadConfig(cmd.Config)
	if err != nil {
		return err
	}
	chain, err := readChain(cfg.path(chainFile))
	if err != nil {
		return err
	}
	raw, err := os.ReadFile(cfg.path(manifestFile))
	if errors.Is(err, fs.ErrNotExist) {
		return notFounded(cfg)
	}
	if err != nil {
		return err
	}
	m, err := manifest.ParseManifest(raw, chain[1])
	if err != nil {
		return fmt.Errorf("%s: %w", cfg.path(manifestFile), err)
	}
	return printManifest(os.Stdout, m, identity.Fingerprint(chain[1]))
}

func printManifest(out io.Writer, m *manifest.Manifest, root string) error {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	line := func(what, which string, until time.Time) {
		end := "in use"
		if !until.IsZero() {
			end = "until " + until.UTC().Format(time.RFC3339)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", what, which, end)
	}
	fmt.Fprintf(w, "manifest %d of %s\tsigned %s\tsha256 %x\n", m.Number, m.Domain, m.Time.UTC().Format(time.RFC3339), m.Digest())
	fmt.Fprintf(w, "root\t%s\t\n", root)
	for _, i := range m.Issuers {
		line("issuing certificate", fingerprint(i.Certificate), i.Until)
	}
	for _, k := range m.Bulletin {
		line("bulletin key", k.ID(), k.Until)
	}
	for _, k := range m.Ledger {
		line("ledger key", ledger.VerifierKey(m.Origin, k.Public), k.Until)
	}
	return w.Flush()
}

// notFounded says what to do about an authority that an earlier version made.
func notFounded(cfg *Config) error {
	return fmt.Errorf("%s does not exist: this authority was made by a version that kept no founding record. "+
		"With the root's token at hand, run once: valise-enrolld manifest renew --config FILE. "+
		"It makes the keys %q and %q and records the founding behind what the ledger holds; nothing that was issued is lost",
		cfg.path(manifestFile), cfg.Token.BulletinKey, cfg.Token.LedgerKey)
}
