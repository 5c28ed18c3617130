// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"time"

	"valise/bulletin"
	"valise/client/vault"
	"valise/identity"
	"valise/mls"
	"valise/policy"
)

// Who lets somebody into a conversation has to know who is in good standing. While no
// newer bulletin comes nobody is let in, step by step as nothing is sent: first not into
// conversations whose people are all cleared for the highest classification, who may say
// there what nobody else may read, in the end into none. Founding waits for the next
// bulletin, as messages do; people whom somebody adds are refused at once, and it is said
// why. Successors are founded all the same: they bring nobody in who was not there.

// tooOldToAdd says whether the newest bulletin is too old for letting somebody into a
// conversation of these devices; nil: it is not. Every classification counts that all of
// them are cleared for.
func (e *Engine) tooOldToAdd(devices []*identity.Device) *Outdated {
	t, age := e.tightening(), e.age()
	if !t.On() {
		return nil
	}
	out := &Outdated{Reason: reasonOf(age), Age: age, Adding: true}
	if t.Refuses(age, 0, 0) {
		return out
	}
	b := e.law.bundle
	if b == nil {
		return nil
	}
	var all []*policy.Clearance
	for _, d := range devices {
		c, err := b.Set.Clearance(e.end(d).Clearance)
		if err != nil {
			return nil // no label is open to all of them
		}
		all = append(all, c)
	}
	common := policy.Meet(all...)
	if common == nil {
		return nil
	}
	classes, _ := common.Names()
	for _, class := range classes {
		rank, ranks := b.Set.Rank(common.Policy(), class, e.now())
		least, bounded := b.StaleAfter(&policy.Label{Policy: common.Policy(), Classification: class}, e.now())
		if t.Refuses(age, rank, ranks) || bounded && age >= least {
			out.Marking = class
			return out
		}
	}
	return nil
}

// circle lists the devices of a conversation and of KeyPackages, this one first.
func (e *Engine) circle(g *mls.Group, packages [][]byte) ([]*identity.Device, error) {
	credentials := []mls.Credential{mls.X509Credential(e.leaf)}
	if g != nil {
		for _, m := range g.Members() {
			credentials = append(credentials, m.Credential)
		}
	}
	for _, raw := range packages {
		kp, err := mls.ParseKeyPackage(raw)
		if err != nil {
			return nil, err
		}
		credentials = append(credentials, kp.Leaf.Credential)
	}
	var out []*identity.Device
	for _, c := range credentials {
		d, err := deviceOf(e.cfg.Trust, c)
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}

// letIn says whether those whose KeyPackages an intent has may be let into a conversation
// now. If not, it has dealt with the intent as far as there was anything to do, which did
// says.
func (e *Engine) letIn(ctx context.Context, l *link, in *intent, conv *conversation, g *mls.Group) (may, did bool, err error) {
	if conv.State == stateBroken {
		return true, false, nil
	}
	devices, err := e.circle(g, in.Packages)
	if err != nil {
		return false, true, e.abandon(in, conv, err)
	}
	old := e.tooOldToAdd(devices)
	switch {
	case old == nil:
		return true, false, nil
	case !e.askedLately():
		return false, true, errors.Join(e.keepPackages(in), e.refreshStandings(ctx, l))
	case in.Kind == intentAdd && !e.begins(conv):
		return false, true, e.abandon(in, conv, old)
	case conv.Held == old.Reason:
		return false, false, nil
	}
	return false, true, stopped(e.update(func(c *change) error {
		conv := e.conversations[conv.ID]
		if conv == nil {
			return nil
		}
		return errors.Join(c.keepIntent(in), e.held(c, conv, in, old.Reason, nil), e.tellNext(c, conv, old))
	}))
}

// keepPackages keeps the KeyPackages that were gathered, so that no others are taken.
func (e *Engine) keepPackages(in *intent) error {
	return stopped(e.update(func(c *change) error { return c.keepIntent(in) }))
}

// tellNext tells the first message of a conversation that waits to begin why it waits.
func (e *Engine) tellNext(c *change, conv *conversation, why error) error {
	for _, number := range e.backlog.waiting(conv.ID) {
		next, err := getJSON[intent](c.Tx, tableIntent, nil, vault.Numbered(number))
		switch {
		case err != nil:
			return err
		case next != nil && next.Kind == intentContent:
			return c.outcome(next, OutcomeQueued, why)
		}
	}
	return nil
}

// tooOldToReturn says whether the newest bulletin is too old to take back those without
// whom nobody would read a message. Who that would be is not asked: it may be anybody who
// is cleared as this device is.
func (e *Engine) tooOldToReturn(conv *conversation, g *mls.Group) *Outdated {
	if len(conv.Cleared) == 0 {
		return nil // no need to look at them
	}
	roster, err := e.members(g)
	if err != nil || !e.deserted(conv, roster) {
		return nil
	}
	devices, err := e.circle(g, nil)
	if err != nil {
		return nil
	}
	return e.tooOldToAdd(devices)
}

func reasonOf(age time.Duration) string {
	if age == bulletin.Never {
		return reasonNoBulletin
	}
	return reasonStaleBulletin
}
