// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"valise/enroll/ceremony"
	"valise/enroll/desk/call"
	"valise/statement"
)

// OfficerOfficersCmd is `valise officer officers`.
type OfficerOfficersCmd struct {
	List        OfficerOfficersListCmd        `cmd:"" help:"List who is and was an officer."`
	Nonce       OfficerOfficersNonceCmd       `cmd:"" help:"Draw a nonce for somebody who is to apply."`
	Appoint     OfficerOfficersAppointCmd     `cmd:"" help:"Propose an appointment from an application file."`
	Dismiss     OfficerOfficersDismissCmd     `cmd:"" help:"End a person's role at once and for ever."`
	Certificate OfficerOfficersCertificateCmd `cmd:"" help:"Write an officer's certificates to a file, for their setup."`
}

// OfficerOfficersListCmd is `valise officer officers list`.
type OfficerOfficersListCmd struct{ officerFlags }

// Run lists officers.
func (cmd *OfficerOfficersListCmd) Run(ctx context.Context, e *env) error {
	return cmd.withDesk(ctx, e, func(b *bureau) error {
		list, err := b.desk.Officers(ctx)
		for i := range list {
			o := &list[i]
			if e.json {
				err = errors.Join(err, e.print(o))
				continue
			}
			e.say("%s  %s  %s  until %s", o.Address, line(string(o.Role)), line(o.State), moment(o.Expires))
			e.facts("key", o.Key.String())
		}
		return err
	})
}

// OfficerOfficersNonceCmd is `valise officer officers nonce`.
type OfficerOfficersNonceCmd struct{ officerFlags }

// Run draws a nonce.
func (cmd *OfficerOfficersNonceCmd) Run(ctx context.Context, e *env) error {
	return cmd.withDesk(ctx, e, func(b *bureau) error {
		n, err := b.desk.ApplicationNonce(ctx)
		if err != nil {
			return err
		}
		if e.json {
			return e.print(map[string]any{"nonce": n.Nonce, "hours": int(call.ApplicationLife / time.Hour)})
		}
		return e.say("%s", line(n.Nonce))
	})
}

// OfficerOfficersAppointCmd is `valise officer officers appoint`.
type OfficerOfficersAppointCmd struct {
	signFlags
	File string `arg:"" type:"existingfile" help:"The application, from valise officer apply."`
}

// Run has the desk appraise an application, and signs the appointment.
func (cmd *OfficerOfficersAppointCmd) Run(ctx context.Context, e *env) error {
	data, err := readUpTo(cmd.File, ceremony.MaxApplicationSize)
	if err != nil {
		return err
	}
	mine, err := ceremony.ParseApplication(data)
	if err != nil {
		return fmt.Errorf("%s: %w", cmd.File, err)
	}
	return cmd.withDesk(ctx, e, func(b *bureau) error {
		a, err := b.desk.Application(ctx, data)
		if err != nil {
			return err
		}
		body, err := a.Appointment.Parse()
		if err != nil {
			return err
		}
		s, ok := body.(*statement.Appointment)
		if !ok || s.Address != mine.Address || s.Role != mine.Role || !bytes.Equal(s.Key, mine.Key) {
			return errors.New("what the desk wants signed is not an appointment of this applicant: sign nothing, and tell an auditor")
		}
		b.say("compare the key with what the applicant reads out to you")
		_, err = cmd.decide(ctx, b, body)
		return err
	})
}

// OfficerOfficersDismissCmd is `valise officer officers dismiss`.
type OfficerOfficersDismissCmd struct {
	signFlags
	Address string `arg:"" help:"Whose role ends: name@domain."`
	Reason  string `required:"" help:"Why; it stands in the record."`
}

// Run ends a role.
func (cmd *OfficerOfficersDismissCmd) Run(ctx context.Context, e *env) error {
	a, err := address(cmd.Address)
	if err != nil {
		return err
	}
	return cmd.withDesk(ctx, e, func(b *bureau) error {
		_, err := cmd.decide(ctx, b, &statement.Dismissal{Change: statement.NewID(), Address: a, Reason: cmd.Reason})
		return err
	})
}

// OfficerOfficersCertificateCmd is `valise officer officers certificate`.
type OfficerOfficersCertificateCmd struct {
	officerFlags
	Address string `arg:"" help:"Whose: name@domain."`
	File    string `arg:"" type:"path" help:"Where to write it."`
}

// Run writes certificates, which are not secret.
func (cmd *OfficerOfficersCertificateCmd) Run(ctx context.Context, e *env) error {
	a, err := address(cmd.Address)
	if err != nil {
		return err
	}
	return cmd.withDesk(ctx, e, func(b *bureau) error {
		list, err := b.desk.Officers(ctx)
		if err != nil {
			return err
		}
		for i := range list {
			if o := &list[i]; o.Address == a && o.State == "active" && len(o.Chain) > 0 {
				var text bytes.Buffer
				for _, der := range o.Chain {
					_ = pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: der}) // into memory
				}
				return errors.Join(replaceFile(cmd.File, text.Bytes(), 0o644), e.say("certificate of %s: %s", a, cmd.File))
			}
		}
		return &hintError{text: fmt.Sprintf("%s has no certificate as an officer", a), hint: "it is issued when two administrators have signed the appointment"}
	})
}

// OfficerInviteCmd is `valise officer invite`.
type OfficerInviteCmd struct {
	signFlags
	Address string `arg:"" help:"Whom: name@domain."`
	Out     string `type:"path" placeholder:"FILE" help:"Write the code to a file that only you can read, instead of showing it."`
}

// Run signs an invitation and shows its code, which is as secret as a password until
// it is used.
func (cmd *OfficerInviteCmd) Run(ctx context.Context, e *env) error {
	a, err := address(cmd.Address)
	if err != nil {
		return err
	}
	return cmd.withDesk(ctx, e, func(b *bureau) error {
		body := &statement.Invitation{Address: a, Key: statement.NewID()}
		raw, err := cmd.confirmAndSign(ctx, b, body)
		if err != nil {
			return err
		}
		out, err := b.desk.Submit(ctx, raw)
		if err != nil {
			return err
		}
		code := out.Invitation
		if cmd.Out != "" {
			if err := replaceFile(cmd.Out, []byte(code+"\n"), 0o600); err != nil {
				return err
			}
			out.Invitation = ""
		}
		if e.json {
			return e.print(map[string]any{"kind": body.Kind(), "address": a, "outcome": out})
		}
		if err := b.tell(body, &out); err != nil || cmd.Out != "" {
			return err
		}
		e.say("hand this to %s as you would a password; it works once, for a day:", a)
		return e.say("%s", line(code))
	})
}
