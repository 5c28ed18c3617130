// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"valise/bulletin"
	"valise/policy"
)

// A gateway that keeps bulletins back keeps its devices from learning who was suspended.
// So a device tightens by itself, by the rule that gateways have (bulletin.Tightening):
// while no newer bulletin comes it sends nothing of the highest classification, then
// nothing of the next one, in the end nothing at all. It asks once more before it does,
// and tells its person of each step.

// Reason codes of an old bulletin, as in the gateway's audit stream.
const (
	reasonStaleBulletin = "stale_bulletin" // the newest one that was shown is too old
	reasonNoBulletin    = "no_bulletin"    // none was ever shown
)

// tightening is what an old bulletin takes. Where no record is kept there are no
// bulletins to wait for.
func (e *Engine) tightening() bulletin.Tightening {
	t := e.cfg.Tightening
	if !t.On() || !e.demanded() {
		return bulletin.Tightening{}
	}
	if b := e.standings.set.Bulletin(); b != nil {
		return t.Beating(b.Next.Sub(b.Time))
	}
	return t
}

// up is a clock that nobody sets.
func (e *Engine) up() time.Duration { return time.Since(e.began) }

// arrived notes which bulletin is held since now.
func (e *Engine) arrived() {
	e.standings.arrival = e.standings.arrival.Arrived(e.standings.set, e.now(), e.up())
}

// age is how old the newest bulletin is.
func (e *Engine) age() time.Duration { return e.standings.arrival.Age(e.now(), e.up()) }

// levels are the ranks of the policies in force.
func (e *Engine) levels() int {
	if e.law.bundle == nil {
		return 0
	}
	return e.law.bundle.Set.Levels()
}

// An Outdated says that a message is not sent, or somebody not let in, because the
// authority's newest bulletin is too old for it.
type Outdated struct {
	Marking string // empty: unlabelled
	Reason  string // a reason code
	Age     time.Duration
	Adding  bool // it is not about a message: nobody is let into a conversation that may carry Marking
}

func (o *Outdated) Error() string {
	if o.Reason == reasonNoBulletin {
		return fmt.Sprintf("%s: the gateway has never shown a list of standings (%s)", o.what(), o.Reason)
	}
	return fmt.Sprintf("%s: the newest list of standings that the gateway shows is %s old (%s)", o.what(), o.Age.Round(time.Minute), o.Reason)
}

func (o *Outdated) what() string {
	switch {
	case o.Adding && o.Marking != "":
		return "nobody is let into a conversation in which all are cleared for " + o.Marking
	case o.Adding:
		return "nobody is let into a conversation"
	case o.Marking != "":
		return o.Marking + " is not sent"
	}
	return "an unlabelled message is not sent"
}

// Hint says what to do.
func (o *Outdated) Hint() string { return staleHint }

// ErrorCode is the reason, for programs.
func (o *Outdated) ErrorCode() string { return o.Reason }

const staleHint = "the gateway keeps the authority's word back, or does not get it, or this device's clock is wrong: compare it, and tell a security officer; a lower classification may still go out (valise labels)"

// tooOld says whether the newest bulletin is too old for a message; nil: it is not.
func (e *Engine) tooOld(m mark) *Outdated {
	t, age := e.tightening(), e.age()
	if !t.On() {
		return nil
	}
	out := &Outdated{Reason: reasonOf(age), Age: age}
	if len(m.Label) == 0 || e.law.bundle == nil {
		if t.Refuses(age, 0, 0) {
			return out
		}
		return nil
	}
	b := e.law.bundle
	l, err := policy.ParseLabel(m.Label)
	if err != nil {
		return nil // not sent for another reason
	}
	r, err := b.Set.Resolve(l, policy.New, e.now())
	if err != nil {
		return nil
	}
	out.Marking = r.Marking("")
	rank, ranks := r.Rank()
	if least, ok := b.StaleAfter(l, e.now()); t.Refuses(age, rank, ranks) || ok && age >= least {
		return out
	}
	return nil
}

// askedLately says whether the gateway was asked for standings so short a time ago that
// nothing else is to be expected of it.
func (e *Engine) askedLately() bool { return e.now().Sub(e.standings.asked).Abs() < freshPause }

// keepFresh asks for a newer bulletin when the one that is held takes a step, and tells of
// the step if there is none.
func (e *Engine) keepFresh(ctx context.Context, l *link) (bool, error) {
	ranks := e.levels()
	step := e.tightening().Step(e.age(), ranks)
	switch {
	case step > 0 && !e.askedLately():
		return true, e.refreshStandings(ctx, l)
	case step == e.known.cell.Stale:
		return false, nil
	}
	reason := ""
	switch {
	case step > 0 && e.age() == bulletin.Never:
		reason = reasonNoBulletin
	case step > 0:
		reason = reasonStaleBulletin
	}
	e.cfg.Log.Warn("what is sent follows the age of the authority's bulletin", "ranks_refused", step, "of", ranks+1, "reason", reason)
	next := e.known.cell
	next.Stale = step
	return true, e.keepRecord(next, func(c *change) error {
		return c.log(&eventRecord{Event: Event{Kind: EventStandings, Time: e.now(), Reason: reason, Count: step, Of: ranks + 1}})
	})
}

// waitFresh keeps a message back for which the newest bulletin is too old. It says whether
// there was anything to do about it.
func (e *Engine) waitFresh(ctx context.Context, l *link, in *intent, conv *conversation, old *Outdated) (bool, error) {
	switch {
	case !e.askedLately():
		return true, e.refreshStandings(ctx, l)
	case conv.Held == old.Reason:
		return false, nil
	}
	return true, stopped(e.update(func(c *change) error {
		conv := e.conversations[conv.ID]
		if conv == nil {
			return nil
		}
		return errors.Join(e.held(c, conv, in, old.Reason, nil), c.outcome(in, OutcomeQueued, old))
	}))
}
