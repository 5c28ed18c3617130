// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"
)

type rotateCmd struct {
	common
	Keys        []string      `arg:"" enum:"issuing,bulletin,ledger,tls" help:"Which keys: issuing, bulletin, ledger, tls (the HTTPS key). All but tls need the root's token."`
	OldUntil    time.Duration `default:"24h" placeholder:"DURATION" help:"How long former keys may still sign, for daemons that do not know of the change yet. What the former issuing key certified by then counts until it ends by itself."`
	DistrustOld bool          `help:"The former keys may be in other hands: nothing that they sign counts from now on, and what the former issuing key certified does not count at all: devices and gateways need new certificates."`
}

// Help is what --help prints below the usage.
func (*rotateCmd) Help() string {
	return `Makes the next key in the token (LABEL-2, LABEL-3 and so on) and has the root sign the
manifest that names it. The configuration stays as it is. A daemon that runs changes over by
itself: its listener stays open, and requests that run are finished. Gateways and devices
learn of the new manifest with their next connection, however long they were away.

For tls no manifest is needed and no root: send the daemon SIGHUP afterwards.

A rotation that was cut short is finished by running the command again. When all is well,
remove the former key from the token with the HSM's own tool; "manifest retire" ends its use
before --old-until is over.`
}

// Run rotates keys that are all in place. A lost HSM is replaced by manifest renew.
func (cmd *rotateCmd) Run(ctx context.Context) error {
	slices.Sort(cmd.Keys)
	cmd.Keys = slices.Compact(cmd.Keys)
	if len(cmd.Keys) == 1 && cmd.Keys[0] == useTLS {
		return cmd.rotateTLS(ctx)
	}
	return renew(ctx, cmd.Config, purpose{rotate: cmd.Keys, oldUntil: cmd.OldUntil, issuersToo: true, distrustOld: cmd.DistrustOld})
}

func (cmd *rotateCmd) rotateTLS(ctx context.Context) (err error) {
	o, err := openDesk(ctx, cmd.Config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.close()) }()
	h, err := openHardware(ctx, o.cfg, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	if err := h.succeed(ctx, useTLS); err != nil {
		return err
	}
	der, sum, err := spki(h.keys[useTLS])
	if err != nil {
		return err
	}
	fmt.Printf("new HTTPS key, sha256 %x (%d bytes of SubjectPublicKeyInfo)\nSend valise-enrolld serve a SIGHUP (systemctl reload valise-enrolld): it gives itself a certificate for it.\n", sum, len(der))
	return o.audit.Event(ctx, "https key made", slog.String("key", fmt.Sprintf("%x", sum)))
}

type manifestRetireCmd struct{ common }

// Run ends the use of all keys that were replaced.
func (cmd *manifestRetireCmd) Run(ctx context.Context) error {
	return renew(ctx, cmd.Config, purpose{retire: true, issuersToo: true})
}
