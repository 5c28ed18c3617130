// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"valise/enroll/desk/call"
	"valise/identity"
	"valise/statement"
)

// OfficerRequestsCmd is `valise officer requests`.
type OfficerRequestsCmd struct{ officerFlags }

// Run lists what waits for approvals.
func (cmd *OfficerRequestsCmd) Run(ctx context.Context, e *env) error {
	return cmd.withDesk(ctx, e, func(b *bureau) error {
		list, err := b.desk.Requests(ctx)
		if err != nil {
			return err
		}
		for i := range list {
			r := &list[i]
			if e.json {
				if err := e.print(r); err != nil {
					return err
				}
				continue
			}
			e.say("%s  %s  %d of %s  until %s", line(r.ID), r.Address, len(r.Approvals), plural(r.Needs, "approval"), moment(r.Expires))
		}
		if len(list) == 0 && !e.json {
			e.say("nobody waits for a certificate")
		}
		return nil
	})
}

// OfficerShowCmd is `valise officer show`.
type OfficerShowCmd struct {
	officerFlags
	What string `arg:"" help:"A request's number, a proposal's digest, or a person's address."`
}

// Run shows one thing with all that is known of it.
func (cmd *OfficerShowCmd) Run(ctx context.Context, e *env) error {
	return cmd.withDesk(ctx, e, func(b *bureau) error {
		if strings.Contains(cmd.What, "@") {
			a, err := address(cmd.What)
			if err != nil {
				return err
			}
			p, err := b.desk.Person(ctx, a)
			if err != nil {
				return err
			}
			return b.showPerson(&p)
		}
		r, p, err := b.find(ctx, cmd.What)
		switch {
		case err != nil:
			return err
		case p != nil:
			body, err := p.Parse()
			if err != nil {
				return err
			}
			return b.showProposal(p, body)
		case e.json:
			return e.print(r)
		}
		_, err = b.showRequest(r)
		return err
	})
}

// find looks for a request or, by digest, for a proposal.
func (b *bureau) find(ctx context.Context, what string) (*call.Request, *call.Proposal, error) {
	if _, err := identity.ParseDeviceID(what); err == nil { // 64 hexadecimal digits
		p, err := b.desk.Proposal(ctx, what)
		if err == nil && p.Digest != what {
			err = errors.New("the desk answers with another proposal than the one asked for")
		}
		return nil, &p, err
	}
	r, err := b.desk.Request(ctx, what)
	if err == nil && r.ID != what {
		err = errors.New("the desk answers with another request than the one asked for")
	}
	return &r, nil, err
}

// showRequest prints a request and returns the approval that it asks for, nil if it
// cannot be approved.
func (b *bureau) showRequest(r *call.Request) (*statement.Approval, error) {
	b.say("request %s of %s: %s", line(r.ID), r.Address, line(r.State))
	if p := r.Person; p != nil {
		b.facts("person", p.Name, "unit", p.Unit, "clearance", clearanceText(p.Clearance), "roster", p.State)
	} else {
		b.facts("person", "not on the roster")
	}
	b.facts("device", r.Device.String(), "made", moment(r.Created), "until", moment(r.Expires), "refused", r.Refusal)
	for _, s := range r.Approvals {
		b.facts("approved", s.Address.String()+", "+moment(s.Time))
	}
	b.facts("needs", plural(r.Needs, "approval"))
	if ev := r.Evidence; ev != nil {
		b.say("evidence (%s):", line(ev.Format))
		for _, c := range ev.Claims {
			b.say("    %s: %s", line(c.Name), line(c.Value))
		}
		b.say("rules:")
		for _, rule := range ev.Reasons {
			b.say("    %-6s %s: %s", map[bool]string{true: "passed", false: "FAILED"}[rule.Passed], line(rule.Rule), line(rule.Detail))
		}
	}
	if r.Approval == nil {
		return nil, nil
	}
	body, err := r.Approval.Parse()
	if err != nil {
		return nil, err
	}
	a, ok := body.(*statement.Approval)
	if !ok || a.Request != r.ID || a.Address != r.Address || a.Device != r.Device {
		return nil, errors.New("what the desk wants signed is not an approval of the request that it shows: sign nothing, and tell an auditor")
	}
	return a, nil
}

func (b *bureau) showPerson(p *call.Person) error {
	if b.json {
		return b.print(p)
	}
	b.say("%s: %s", p.Address, line(p.State))
	b.facts("name", p.Name, "unit", p.Unit, "clearance", clearanceText(p.Clearance))
	for _, d := range p.Devices {
		b.facts("device", fmt.Sprintf("%s, %s, %s, certificate until %s", d.ID, d.State, d.Tier, moment(d.Expires)))
	}
	return nil
}

func (b *bureau) showProposal(p *call.Proposal, body statement.Body) error {
	if b.json {
		return b.print(map[string]any{"proposal": p, "words": body.Words()})
	}
	b.say("proposal %s", line(p.Digest))
	for _, text := range body.Words() {
		b.say("    %s", text)
	}
	for _, s := range p.Signed {
		b.facts("signed", s.Address.String()+", "+moment(s.Time))
	}
	b.facts("needs", plural(p.Needs, "signature"), "until", moment(p.Expires))
	return nil
}

// OfficerApproveCmd is `valise officer approve`.
type OfficerApproveCmd struct {
	signFlags
	What string `arg:"" help:"A request's number, or a proposal's digest."`
}

// Run shows what the desk has, and signs exactly the body that was shown.
func (cmd *OfficerApproveCmd) Run(ctx context.Context, e *env) error {
	return cmd.withDesk(ctx, e, func(b *bureau) error {
		r, p, err := b.find(ctx, cmd.What)
		if err != nil {
			return err
		}
		var body statement.Body
		if p != nil {
			if body, err = b.proposed(p); err != nil {
				return err
			}
		} else {
			a, err := b.showRequest(r)
			if err != nil {
				return err
			}
			if a == nil {
				return &hintError{text: fmt.Sprintf("request %s cannot be approved: it is %s", line(r.ID), line(r.State)), hint: "see: valise officer show " + line(r.ID)}
			}
			b.say("compare the device with what the applicant reads out to you, by voice")
			body = a
		}
		_, err = cmd.decide(ctx, b, body)
		return err
	})
}

// proposed returns a proposal's body, if it is one that officers agree on.
func (b *bureau) proposed(p *call.Proposal) (statement.Body, error) {
	body, err := p.Parse()
	if err != nil {
		return nil, err
	}
	if k := body.Kind(); k == statement.KindApproval || k == statement.KindSession {
		return nil, fmt.Errorf("a proposal cannot be a %s: sign nothing, and tell an auditor", k)
	}
	for _, s := range p.Signed {
		b.say("signed by %s, %s", s.Address, moment(s.Time))
	}
	return body, nil
}

// OfficerRefuseCmd is `valise officer refuse`.
type OfficerRefuseCmd struct {
	signFlags
	Request string `arg:"" help:"The request's number."`
	Reason  string `required:"" help:"Why; it stands in the record."`
}

// Run refuses a request.
func (cmd *OfficerRefuseCmd) Run(ctx context.Context, e *env) error {
	return cmd.withDesk(ctx, e, func(b *bureau) error {
		r, err := b.desk.Request(ctx, cmd.Request)
		if err != nil {
			return err
		}
		b.say("request %s of %s, device %s", line(r.ID), r.Address, r.Device)
		_, err = cmd.decide(ctx, b, &statement.Refusal{Request: cmd.Request, Reason: cmd.Reason})
		return err
	})
}

// OfficerProposalsCmd is `valise officer proposals`.
type OfficerProposalsCmd struct{ officerFlags }

// Run lists what waits for another officer.
func (cmd *OfficerProposalsCmd) Run(ctx context.Context, e *env) error {
	return cmd.withDesk(ctx, e, func(b *bureau) error {
		list, err := b.desk.Proposals(ctx)
		if err != nil {
			return err
		}
		for i := range list {
			p := &list[i]
			if p.Body == "" { // too long for a list
				if *p, err = b.desk.Proposal(ctx, p.Digest); err != nil {
					return err
				}
			}
			body, err := p.Parse()
			if err != nil {
				return err
			}
			if err := b.showProposal(p, body); err != nil {
				return err
			}
		}
		if len(list) == 0 && !e.json {
			e.say("nothing waits for another officer")
		}
		return nil
	})
}

func moment(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

func clearanceText(der []byte) string {
	if len(der) == 0 {
		return "none"
	}
	c, err := identity.ParseClearance(der)
	if err != nil {
		return err.Error()
	}
	return c.Text()
}
