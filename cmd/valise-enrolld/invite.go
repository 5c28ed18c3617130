// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"
	"rsc.io/qr"

	"valise/enroll"
	"valise/identity"
)

type inviteCmd struct {
	common
	Address string `arg:"" help:"Address on the roster."`
	QR      bool   `help:"Print the QR code even if standard output is no terminal."`
}

// Run prints the code alone on a line of standard output, so that a script can take
// it; on a terminal a QR code and an explanation follow.
func (cmd *inviteCmd) Run(ctx context.Context) (err error) {
	o, err := openDesk(ctx, cmd.Config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.close()) }()
	if err := o.lone(ctx, "valise officer invite"); err != nil {
		return err
	}
	address, err := identity.CanonicalAddress(cmd.Address)
	if err != nil {
		return err
	}
	inviter := enroll.Inviter{Store: o.store, URL: o.cfg.URL, Root: o.chain[1], Event: o.audit.Event, Now: time.Now}
	invitation, err := inviter.Invite(ctx, address)
	if err != nil {
		return err
	}
	code, err := invitation.Code()
	if err != nil {
		return err
	}
	fmt.Println(code)
	if !cmd.QR && !term.IsTerminal(int(os.Stdout.Fd())) {
		return nil
	}
	if err := printQR(os.Stdout, code); err != nil {
		return err
	}
	fmt.Printf("\nInvitation of %s to enroll one device, until %s.\nHand it over like a password: whoever has it enrolls in this name.\nOn the device:  valise enroll CODE\n",
		address, invitation.Expires.Local().Format("2006-01-02 15:04"))
	return nil
}

// printQR draws a QR code (ISO/IEC 18004) with two rows of squares to a line, dark on
// light, with the quiet zone of four squares around it.
func printQR(w io.Writer, text string) error {
	code, err := qr.Encode(text, qr.L)
	if err != nil {
		return fmt.Errorf("QR code: %w", err)
	}
	const quiet = 4
	for y := -quiet; y < code.Size+quiet; y += 2 {
		line := "\x1b[30;47m"
		for x := -quiet; x < code.Size+quiet; x++ {
			switch top, bottom := code.Black(x, y), code.Black(x, y+1); {
			case top && bottom:
				line += "█"
			case top:
				line += "▀"
			case bottom:
				line += "▄"
			default:
				line += " "
			}
		}
		if _, err := fmt.Fprintln(w, line+"\x1b[0m"); err != nil {
			return err
		}
	}
	return nil
}
