// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"context"
	"errors"

	"valise/attest"
	"valise/enroll/book"
	"valise/record"
	"valise/statement"
)

// Book returns the record that the CA decides from.
func (c *CA) Book() *book.Book { return c.cfg.Book }

// HasOfficers reports whether officers decide here, or whoever runs the authority.
func (c *CA) HasOfficers() bool { return c.led }

// A Proposal is what the CA would issue for an order: what officers are shown, and
// what an approval has to say.
type Proposal struct {
	Approval   statement.Approval
	Claims     *attest.Claims
	Result     *attest.Result
	Signatures []record.Signature // that count towards it
	Needs      int
	Missing    *record.MissingError // nil: it can be issued
}

// Propose judges an order that is "processing" as IssueDevice does, by the stored
// evidence, and issues nothing. What keeps the order from ever being issued is its
// error.
func (c *CA) Propose(ctx context.Context, order string) (*Proposal, error) {
	f, err := c.load(ctx, order)
	if err != nil {
		return nil, err
	}
	if err := c.open(f); err != nil {
		return nil, err
	}
	j, err := c.judge(f)
	if err != nil {
		return nil, err
	}
	p := &Proposal{Approval: j.approval, Claims: j.claims, Result: j.result, Needs: j.rules.approvals}
	c.cfg.Book.View(func(s *record.State) {
		_, err = c.carriers(s, j)
		p.Signatures = s.Approvals(order, &j.approval.Template)
	})
	if errors.As(err, &p.Missing) {
		return p, nil
	}
	return p, err
}
