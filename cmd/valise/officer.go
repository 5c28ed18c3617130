// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"

	"valise/enroll/desk/call"
	"valise/identity"
	"valise/internal/keys"
)

// OfficerCmd is `valise officer`: what a security officer, an administrator and an
// auditor do. Whatever changes anything is a statement that their card signs in
// slot 9c: its words are shown first, and the card asks for its PIN each time.
//
//	valise officer apply --role officer --for-ceremony NAME ADDRESS FILE
//	valise officer setup --url https://enroll.interieur.example --root SHA256 --certificate FILE
//	valise officer requests
//	valise officer show REQUEST
//	valise officer approve REQUEST
//	valise officer suspend --device ID --reason "lost on a train"
//
// What takes two officers waits, after the first, under "valise officer proposals"; the
// second one sees the same words and the same digest, and approves by that digest.
type OfficerCmd struct {
	Apply OfficerApplyCmd `cmd:"" help:"Make the key in slot 9c, and the file with which to be appointed."`
	Setup OfficerSetupCmd `cmd:"" help:"Say which authority, which card and which certificate to use."`

	Requests OfficerRequestsCmd `cmd:"" help:"List who waits for a certificate."`
	Show     OfficerShowCmd     `cmd:"" help:"Show everything about a request, a proposal or a person."`
	Approve  OfficerApproveCmd  `cmd:"" help:"Approve a request, or agree to what another officer proposed."`
	Refuse   OfficerRefuseCmd   `cmd:"" help:"Refuse a request."`

	Suspend   OfficerSuspendCmd   `cmd:"" help:"Stop a device, a person, a card, a vendor's root or an officer at once."`
	Resume    OfficerResumeCmd    `cmd:"" help:"End a suspension. It takes two officers."`
	Revoke    OfficerRevokeCmd    `cmd:"" help:"Stop for ever."`
	Standings OfficerStandingsCmd `cmd:"" help:"List suspensions and revocations in force."`
	Submit    OfficerSubmitCmd    `cmd:"" help:"Hand in a statement of yours that was written to a file while the desk was away."`

	Invite    OfficerInviteCmd    `cmd:"" help:"Invite a person to enroll one device."`
	Roster    OfficerRosterCmd    `cmd:"" help:"Look at the roster and change it."`
	Proposals OfficerProposalsCmd `cmd:"" help:"List what waits for another officer."`

	Roots    OfficerRootsCmd    `cmd:"" help:"Look at vendors' roots and the appraisal policy, and change them."`
	Profiles OfficerProfilesCmd `cmd:"" help:"Look at the profiles of certificates and change them."`
	Officers OfficerOfficersCmd `cmd:"" help:"Look at who is an officer, appoint and dismiss."`
	Audit    OfficerAuditCmd    `cmd:"" help:"Read the authority's record in words, or copy it for valise audit verify."`
}

// officerFlags is part of every command that talks to the desk.
type officerFlags struct {
	output
	PINFile string `name:"pin-file" type:"path" placeholder:"FILE" help:"Read the PIN from a file that only you can read."`
}

// A bureau is an officer at work: settings, certificates, and the desk.
type bureau struct {
	*env
	officerSettings
	chain [][]byte
	pin   string // file, or ""
	desk  *call.Client
}

// bureau reads the settings; nothing is opened yet.
func (f *officerFlags) bureau(e *env) (*bureau, error) {
	s, err := loadOfficer(e.home)
	if err != nil {
		return nil, err
	}
	chain, err := readChain(s.Certificate)
	if err != nil {
		return nil, err
	}
	b := &bureau{env: e, officerSettings: *s, chain: chain, pin: f.PINFile}
	b.desk = &call.Client{URL: s.URL, Root: s.root}
	b.desk.Session = b.cachedSession()
	return b, nil
}

// open is bureau with a session: the cached one, or a new one, for which the card
// signs.
func (f *officerFlags) open(ctx context.Context, e *env) (*bureau, error) {
	b, err := f.bureau(e)
	if err != nil {
		return nil, err
	}
	return b, b.signIn(ctx)
}

// me is whose certificate the settings name. Nothing rests on it: it is shown, and the
// desk verifies.
func (b *bureau) me() (identity.DeviceID, error) { return leafKey(b.chain[0]) }

// explain adds a remedy to the desk's refusals.
func explain(err error) error {
	p, ok := errors.AsType[*call.Problem](err)
	if !ok {
		if errors.Is(err, call.ErrRoot) {
			return &hintError{text: err.Error(), hint: "the root is in the settings: see valise officer setup"}
		}
		return err
	}
	hints := map[string]string{
		call.ReasonSession:     "run the command again",
		call.ReasonConflict:    "something else was decided meanwhile: look again, then decide",
		call.ReasonNotOfficer:  "the record has nobody in good standing with this card: is it the right one?",
		call.ReasonUnavailable: "what you signed was not recorded: try again; for a suspension use --statement-out and carry the file to the gateways",
		"statement_early":      "this computer's clock is ahead",
		"statement_expired":    "this computer's clock is behind, or the statement is old",
	}
	if hint := hints[p.Reason]; hint != "" {
		return &hintError{text: p.Error(), hint: hint, code: p.Reason}
	}
	return &hintError{text: p.Error(), code: p.Reason}
}

// cardPIN asks for each signature anew.
func (b *bureau) cardPIN() keysPIN {
	if b.pin != "" {
		return keys.PINFromFile(b.pin)
	}
	return keys.PINPrompt(nil)
}

// withDesk runs f with an open desk. A session that ran out between two commands is
// opened anew, once.
func (f *officerFlags) withDesk(ctx context.Context, e *env, do func(b *bureau) error) error {
	b, err := f.open(ctx, e)
	if err != nil {
		return explain(err)
	}
	err = do(b)
	if p, ok := errors.AsType[*call.Problem](err); ok && p.Reason == call.ReasonSession {
		b.forgetSession()
		if err = b.signIn(ctx); err == nil {
			err = do(b)
		}
	}
	if err != nil {
		return explain(err)
	}
	return nil
}

// address reads an address as people type it.
func address(s string) (identity.Address, error) {
	a, err := identity.CanonicalAddress(s)
	if err != nil {
		return a, &hintError{text: err.Error(), hint: "write it whole: name@domain"}
	}
	return a, nil
}

// facts prints lines of a name and a value.
func (e *env) facts(pairs ...string) {
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			e.say("  %-11s %s", pairs[i], line(pairs[i+1]))
		}
	}
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
