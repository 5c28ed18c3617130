// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"valise/attest"
	"valise/enroll/desk/call"
	"valise/identity"
	"valise/statement"
)

// maxRulesFile bounds a file of roots or a policy.
const maxRulesFile = 512 << 10

// OfficerRootsCmd is `valise officer roots`.
type OfficerRootsCmd struct {
	Show   OfficerRootsShowCmd   `cmd:"" help:"Print the endorsed certificates and the appraisal policy."`
	Set    OfficerRootsSetCmd    `cmd:"" help:"Propose the certificates under which evidence is believed: all of them."`
	Policy OfficerRootsPolicyCmd `cmd:"" help:"Propose the policy by which evidence is judged."`
}

// OfficerRootsShowCmd is `valise officer roots show`.
type OfficerRootsShowCmd struct{ officerFlags }

// Run prints both, as set and policy take them.
func (cmd *OfficerRootsShowCmd) Run(ctx context.Context, e *env) error {
	return cmd.withDesk(ctx, e, func(b *bureau) error {
		r, err := b.desk.Rules(ctx)
		if err != nil {
			return err
		}
		if e.json {
			return e.print(r)
		}
		e.say("%s", strings.TrimSpace(r.Endorsements))
		e.say("%s", strings.TrimSpace(r.Appraisal))
		return nil
	})
}

// OfficerRootsSetCmd is `valise officer roots set`.
type OfficerRootsSetCmd struct {
	signFlags
	Files []string `arg:"" type:"existingfile" help:"Certificates in PEM: roots and intermediates."`
}

// Run proposes endorsements.
func (cmd *OfficerRootsSetCmd) Run(ctx context.Context, e *env) error {
	var all []byte
	for _, name := range cmd.Files {
		data, err := readUpTo(name, maxRulesFile)
		if err != nil {
			return err
		}
		canonical, err := statement.CanonicalPEM(data)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		all = append(all, canonical...)
	}
	return cmd.withDesk(ctx, e, func(b *bureau) error {
		r, err := b.desk.Rules(ctx)
		if err != nil {
			return err
		}
		body := &statement.Endorsements{Change: statement.NewID(), PEM: all}
		if body.Previous, err = digest(r.EndorsementsPrevious); err != nil {
			return err
		}
		_, err = cmd.decide(ctx, b, body)
		return err
	})
}

// OfficerRootsPolicyCmd is `valise officer roots policy`.
type OfficerRootsPolicyCmd struct {
	signFlags
	File string `arg:"" type:"existingfile" help:"The appraisal policy in JSON."`
}

// Run proposes an appraisal policy, in its canonical form.
func (cmd *OfficerRootsPolicyCmd) Run(ctx context.Context, e *env) error {
	data, err := readUpTo(cmd.File, maxRulesFile)
	if err != nil {
		return err
	}
	policy, err := attest.ParsePolicy(data)
	if err != nil {
		return fmt.Errorf("%s: %w", cmd.File, err)
	}
	canonical, err := policy.Canonical()
	if err != nil {
		return fmt.Errorf("%s: %w", cmd.File, err)
	}
	return cmd.withDesk(ctx, e, func(b *bureau) error {
		r, err := b.desk.Rules(ctx)
		if err != nil {
			return err
		}
		body := &statement.Appraisal{Change: statement.NewID(), Policy: canonical}
		if body.Previous, err = digest(r.AppraisalPrevious); err != nil {
			return err
		}
		_, err = cmd.decide(ctx, b, body)
		return err
	})
}

// OfficerProfilesCmd is `valise officer profiles`.
type OfficerProfilesCmd struct {
	List OfficerProfilesListCmd `cmd:"" help:"List the profiles in force."`
	Set  OfficerProfilesSetCmd  `cmd:"" help:"Propose the next version of a profile."`
}

// OfficerProfilesListCmd is `valise officer profiles list`.
type OfficerProfilesListCmd struct{ officerFlags }

// Run lists profiles.
func (cmd *OfficerProfilesListCmd) Run(ctx context.Context, e *env) error {
	return cmd.withDesk(ctx, e, func(b *bureau) error {
		list, err := b.desk.Profiles(ctx)
		for i := range list {
			p := &list[i]
			if e.json {
				err = errors.Join(err, e.print(p))
				continue
			}
			e.say("%s version %d: %s, valid %s, grace %s, tiers %v", line(p.Name), p.Version, plural(p.Approvals, "approval"),
				seconds(p.Validity), seconds(p.Grace), p.Tiers)
		}
		return err
	})
}

func seconds(n int64) time.Duration { return time.Duration(n) * time.Second }

// OfficerProfilesSetCmd is `valise officer profiles set`.
type OfficerProfilesSetCmd struct {
	signFlags
	Name      string         `arg:"" help:"The profile's name."`
	Approvals *int           `help:"How many officers approve a first certificate. What is not given stays."`
	Validity  *time.Duration `help:"How long a certificate is valid, like 168h."`
	Grace     *time.Duration `help:"How long after expiry a renewal needs no new approvals, like 720h."`
	Tiers     []string       `enum:"hardware,witnessed" help:"hardware, or hardware,witnessed."`
}

// Run proposes the next version.
func (cmd *OfficerProfilesSetCmd) Run(ctx context.Context, e *env) error {
	return cmd.withDesk(ctx, e, func(b *bureau) error {
		list, err := b.desk.Profiles(ctx)
		if err != nil {
			return err
		}
		body := &statement.Profile{Change: statement.NewID(), Name: cmd.Name, Version: 1, Approvals: 2}
		if i := slices.IndexFunc(list, func(p call.Profile) bool { return p.Name == cmd.Name }); i >= 0 {
			p := &list[i]
			body.Version, body.Approvals, body.Tiers = p.Version+1, p.Approvals, p.Tiers
			body.Validity, body.Grace = seconds(p.Validity), seconds(p.Grace)
			if body.Previous, err = digest(p.Previous); err != nil {
				return err
			}
		}
		cmd.change(body)
		_, err = cmd.decide(ctx, b, body)
		return err
	})
}

func (cmd *OfficerProfilesSetCmd) change(body *statement.Profile) {
	if cmd.Approvals != nil {
		body.Approvals = *cmd.Approvals
	}
	if cmd.Validity != nil {
		body.Validity = *cmd.Validity
	}
	if cmd.Grace != nil {
		body.Grace = *cmd.Grace
	}
	if len(cmd.Tiers) > 0 {
		body.Tiers = nil
		slices.Sort(cmd.Tiers)
		for _, t := range slices.Compact(cmd.Tiers) {
			body.Tiers = append(body.Tiers, identity.Tier(t))
		}
	}
}
