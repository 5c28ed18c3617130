// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"slices"
	"strconv"

	"valise/enroll/desk/call"
	"valise/identity"
	"valise/statement"
)

// targetFlags name what is suspended, resumed or revoked.
type targetFlags struct {
	Device  string `xor:"target" required:"" placeholder:"ID" help:"One device, by its id."`
	Person  string `xor:"target" required:"" placeholder:"ADDRESS" help:"A person, with every device."`
	Serial  string `xor:"target" required:"" placeholder:"NUMBER" help:"A card, by the number printed on it."`
	Root    string `xor:"target" required:"" placeholder:"SHA256" help:"Every device under a vendor's root certificate."`
	Officer string `xor:"target" required:"" placeholder:"ADDRESS" help:"An officer, in that role only."`

	Format string `default:"yubico-piv" help:"The evidence that states the serial number: yubico-piv, …"`
	Reason string `required:"" help:"Why; it stands in the record."`
}

// target reads the flags.
func (f *targetFlags) target() (statement.Target, error) {
	kind, name := statement.TargetDevice, f.Device
	switch {
	case f.Person != "" || f.Officer != "":
		kind, name = statement.TargetPerson, f.Person
		if f.Officer != "" {
			kind, name = statement.TargetOfficer, f.Officer
		}
		a, err := address(name)
		if err != nil {
			return statement.Target{}, err
		}
		name = a.String()
	case f.Serial != "":
		n, err := strconv.ParseUint(f.Serial, 10, 64)
		if err != nil {
			return statement.Target{}, &hintError{text: "the serial number is not a number", hint: "take it from the card, without spaces"}
		}
		kind, name = statement.TargetSerial, identity.SerialHash(f.Format, n)
	case f.Root != "":
		kind, name = statement.TargetRoot, f.Root
	}
	return call.ParseTarget(kind, name)
}

// fill asks the desk which devices are behind a target.
func (b *bureau) fill(ctx context.Context, t *statement.Target) error {
	if t.Kind == statement.TargetDevice || t.Kind == statement.TargetOfficer {
		return nil
	}
	name := t.Address.String()
	switch t.Kind {
	case statement.TargetSerial:
		name = t.Serial
	case statement.TargetRoot:
		name = identity.DeviceID(t.Root).String()
	}
	var err error
	t.Devices, err = b.desk.Devices(ctx, t.Kind, name)
	slices.SortFunc(t.Devices, identity.DeviceID.Compare)
	return err
}

// stop is the same for all three commands.
func (f *targetFlags) stop(ctx context.Context, e *env, sign *signFlags, body func(t statement.Target, change string) statement.Body) error {
	t, err := f.target()
	if err != nil {
		return err
	}
	b, err := sign.bureau(e)
	if err != nil {
		return err
	}
	change := statement.NewID()
	err = b.signIn(ctx)
	if err == nil {
		err = b.fill(ctx, &t)
	}
	if call.Unreachable(err) && sign.StatementOut != "" {
		return f.carry(ctx, b, sign, body(t, change), err)
	}
	if err != nil {
		return explain(err)
	}
	if _, err := sign.decide(ctx, b, body(t, change)); err != nil {
		return explain(err)
	}
	return nil
}

// carry signs without the desk: the file goes to the gateways, and later to the desk.
func (f *targetFlags) carry(ctx context.Context, b *bureau, sign *signFlags, body statement.Body, why error) error {
	warn("the desk cannot be reached: %v", why)
	warn("the statement is written to a file: carry it to the gateways, and hand it in when the desk is back")
	if _, err := sign.confirmAndSign(ctx, b, body); err != nil {
		return err
	}
	if b.json {
		return b.print(map[string]any{"kind": body.Kind(), "file": sign.StatementOut})
	}
	b.say("signed: %s", sign.StatementOut)
	return nil
}

// OfficerSuspendCmd is `valise officer suspend`.
type OfficerSuspendCmd struct {
	signFlags
	targetFlags
}

// Run stops something until it is resumed.
func (cmd *OfficerSuspendCmd) Run(ctx context.Context, e *env) error {
	return cmd.stop(ctx, e, &cmd.signFlags, func(t statement.Target, change string) statement.Body {
		return &statement.Suspension{Target: t, Reason: cmd.Reason, Change: change}
	})
}

// OfficerRevokeCmd is `valise officer revoke`.
type OfficerRevokeCmd struct {
	signFlags
	targetFlags
}

// Run stops something for ever.
func (cmd *OfficerRevokeCmd) Run(ctx context.Context, e *env) error {
	return cmd.stop(ctx, e, &cmd.signFlags, func(t statement.Target, change string) statement.Body {
		return &statement.Revocation{Target: t, Reason: cmd.Reason, Change: change}
	})
}

// OfficerResumeCmd is `valise officer resume`.
type OfficerResumeCmd struct {
	signFlags
	targetFlags
}

// Run proposes the end of a suspension; another officer approves it.
func (cmd *OfficerResumeCmd) Run(ctx context.Context, e *env) error {
	t, err := cmd.target()
	if err != nil {
		return err
	}
	return cmd.withDesk(ctx, e, func(b *bureau) error {
		if err := b.fill(ctx, &t); err != nil {
			return err
		}
		_, err := cmd.decide(ctx, b, &statement.Resumption{Target: t, Reason: cmd.Reason, Change: statement.NewID()})
		return err
	})
}

// OfficerStandingsCmd is `valise officer standings`.
type OfficerStandingsCmd struct{ officerFlags }

// Run lists suspensions and revocations in force.
func (cmd *OfficerStandingsCmd) Run(ctx context.Context, e *env) error {
	return cmd.withDesk(ctx, e, func(b *bureau) error {
		list, err := b.desk.Standings(ctx)
		if err != nil {
			return err
		}
		for i := range list {
			s := &list[i]
			if e.json {
				if err := e.print(s); err != nil {
					return err
				}
				continue
			}
			e.say("%s %s: %s since %s, by %s: %s", line(s.Kind), line(s.Name), line(s.State), moment(s.Since), s.By, line(s.Reason))
			for _, id := range s.Devices {
				e.facts("device", id.String())
			}
		}
		if len(list) == 0 && !e.json {
			e.say("nothing is suspended or revoked")
		}
		return nil
	})
}
