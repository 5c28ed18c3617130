// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"valise/bulletin"
	"valise/client/vault"
	"valise/identity"
	"valise/ledger"
	"valise/mls"
	"valise/statement"
	"valise/wire"
)

// How a device knows who is in good standing (spec/wire.md, Section 11): from the
// newest bulletin that it was ever shown, which is kept in the vault and only goes
// forward, and from officers' statements that this bulletin does not know yet. Both are
// verified under the pinned root; what the gateway says of somebody's standing is not
// believed.

// Reason codes of bulletins, in events of the kind EventRecord.
const (
	reasonBulletin         = "bulletin_invalid"  // not under a bulletin key of the manifest
	reasonBulletinRollback = "bulletin_rollback" // older than one that was shown before
	reasonBulletinFork     = "bulletin_fork"     // at odds with one that was shown before
)

// standings are what this device knows. Guarded by the engine's mu.
type standings struct {
	set    *bulletin.Set
	floor  uint64            // no bulletin with a lower number is taken
	obeyed map[[32]byte]bool // orders that were taken in, by the hash of their bytes and leaf
	asked  time.Time

	arrival bulletin.Arrival // of the bulletin in set

	explained uint64 // the last delivery for which was asked why
}

// loadStandings reads the bulletin in the vault. One whose key the newest manifest does
// not name any more still bounds what is taken.
func (e *Engine) loadStandings(tx *vault.Tx) error {
	e.standings = standings{set: bulletin.NewSet(), obeyed: map[[32]byte]bool{}}
	raw, err := tx.Get(tableRecord, nil, []byte("bulletin"))
	if err != nil || raw == nil || e.known.manifest == nil {
		return err
	}
	if e.standings.floor, err = bulletin.NumberOf(raw); err != nil {
		return fmt.Errorf("the bulletin in the vault: %w", err)
	}
	b, err := bulletin.Verify(raw, e.known.manifest)
	if err != nil {
		e.cfg.Log.Warn("the bulletin in the vault is under a key that does not count any more", "number", e.standings.floor)
		return nil
	}
	e.standings.set, err = e.standings.set.WithBulletin(b)
	e.arrived()
	return err
}

// lookUpStandings asks who is in good standing now; e.mu is held, but not while the
// gateway is waited for.
func (e *Engine) lookUpStandings(ctx context.Context, l *link) (string, error) {
	e.standings.asked = e.now()
	if e.cfg.RecordRoot == nil {
		return "", nil // nothing to verify it with
	}
	answer, err := e.call(ctx, l, &wire.GetStandings{Bulletin: e.standings.set.Number()})
	if err != nil {
		return "", err
	}
	list, ok := answer.(*wire.Standings)
	if !ok {
		if code := codeOf(answer); errors.Is(code, wire.ErrMalformed) {
			return "", l.fail(wire.ErrMalformed)
		}
		return reasonRecordUnavailable, nil
	}
	reason := ""
	if len(list.Bulletin) > 0 && e.known.manifest != nil {
		if reason, err = e.takeBulletin(ctx, l, list.Bulletin); err != nil {
			return "", err
		}
	}
	for _, o := range list.Orders {
		if err := e.takeOrder(ctx, l, o); err != nil {
			return "", err
		}
	}
	e.bell.ring()
	return reason, nil
}

// refreshStandings is lookUpStandings between two looks at the whole record: what is
// wrong is told at once, and that it is in order again with the next look.
func (e *Engine) refreshStandings(ctx context.Context, l *link) error {
	reason, err := e.lookUpStandings(ctx, l)
	if err != nil || reason == "" {
		return err
	}
	return e.trouble(reason)
}

// takeBulletin takes a bulletin that goes on from the one held.
func (e *Engine) takeBulletin(ctx context.Context, l *link, raw []byte) (string, error) {
	b, err := bulletin.Verify(raw, e.known.manifest)
	if err != nil {
		// Its key may be newer than the manifest.
		if reason, err := e.lookUpManifest(ctx, l); err != nil || reason != "" {
			return reason, err
		}
		if b, err = bulletin.Verify(raw, e.known.manifest); err != nil {
			e.cfg.Log.Warn("bulletin", "error", err)
			return reasonBulletin, nil
		}
	}
	if b.Number < e.standings.floor {
		return reasonBulletinRollback, nil
	}
	next, err := e.standings.set.WithBulletin(b)
	switch {
	case errors.Is(err, bulletin.ErrOld) && b.Number < e.standings.set.Number():
		return reasonBulletinRollback, nil
	case errors.Is(err, bulletin.ErrOld):
		return "", nil
	case err != nil:
		return reasonBulletinFork, nil
	}
	err = e.update(func(c *change) error { return c.Put(tableRecord, nil, []byte("bulletin"), raw) })
	if err != nil {
		return "", stopped(err)
	}
	e.standings.set, e.standings.floor = next, b.Number
	e.arrived()
	e.outdated()
	e.wake()
	return "", nil
}

// takeOrder obeys an officer's statement. One that does not hold changes nothing, and is
// looked at again the next time: what it lacks may be there by then. An error is of the
// connection.
func (e *Engine) takeOrder(ctx context.Context, l *link, o wire.Order) error {
	name := sha256.Sum256(fmt.Appendf(nil, "%d %s", o.Leaf, o.Statement))
	if e.standings.obeyed[name] {
		return nil
	}
	next, err := e.obey(ctx, l, o)
	var broken *linkError
	switch {
	case errors.As(err, &broken):
		return broken.err
	case err != nil:
		e.cfg.Log.Warn("a statement is not obeyed", "error", err)
		return nil
	}
	if len(e.standings.obeyed) >= wire.MaxOrders {
		clear(e.standings.obeyed)
	}
	e.standings.obeyed[name] = true
	if next != e.standings.set {
		e.standings.set = next
		e.wake()
	}
	return nil
}

// obey returns the standings with a statement in force.
//
// A statement younger than the bulletin held counts at once: the bulletin cannot know it.
// One that is older may be one that the authority has long done with, a suspension that
// was ended, which a gateway shows again as if it were new. It counts only with the proof
// that the record holds it behind all that the bulletin was made from.
func (e *Engine) obey(ctx context.Context, l *link, o wire.Order) (*bulletin.Set, error) {
	st, err := statement.Parse(o.Statement)
	if err != nil {
		return nil, err
	}
	at, leaf := e.now(), bulletin.Unrecorded
	if o.Leaf != wire.Unrecorded {
		leaf = int64(o.Leaf)
	}
	held := e.standings.set.Bulletin()
	switch {
	case held != nil && st.Head.Time.Before(held.Time):
		i, err := e.proveOrder(ctx, l, o)
		if err != nil {
			return nil, fmt.Errorf("it is older than bulletin %d: %w", held.Number, err)
		}
		at, leaf = i.Entry.Time, i.Index // it had to be handed in in time, and was
	case !at.Before(st.Head.Expires):
		// It had to be handed in by then, and no bulletin could know it since: the
		// authority may be down all the while.
		at = st.Head.Time
	}
	if st, err = statement.Verify(o.Statement, e.cfg.Trust, sha256.Sum256(e.cfg.RecordRoot.Raw), at); err != nil {
		return nil, err
	}
	return e.standings.set.WithStatement(st, leaf)
}

// proveOrder asks for the proof that the record holds a statement. Where it holds it, at
// whatever the gateway calls its leaf, the bulletin decides whether it knows it.
func (e *Engine) proveOrder(ctx context.Context, l *link, o wire.Order) (*ledger.Inclusion, error) {
	if o.Leaf == wire.Unrecorded {
		return nil, errors.New("and it is not said to be in the record")
	}
	subject := sha256.Sum256(o.Statement)
	for look := 0; ; look++ {
		head := e.known.head
		if e.known.manifest == nil || e.known.trouble != "" {
			return nil, errors.New("and the record is not in order")
		}
		data, code, err := e.ask(ctx, l, &wire.GetRecord{Part: wire.PartInclusion, Subject: subject, Size: uint64(head.N)})
		switch {
		case err != nil:
			return nil, &linkError{err}
		case head.N == 0 || code == wire.NotCovered && look == 0:
			// Its leaf is younger than the tree that this device knows.
			if reason, err := e.grow(ctx, l); err != nil {
				return nil, &linkError{err}
			} else if reason != "" {
				return nil, fmt.Errorf("and the record is not in order: %s", reason)
			}
			if e.known.head.N == 0 {
				return nil, errors.New("and there is no record yet")
			}
			continue
		case code != wire.OK:
			return nil, fmt.Errorf("and it cannot be proved to be in the record: %w", code)
		}
		i, err := ledger.ParseInclusion(data)
		if err != nil || i.CheckIn(head, subject) != nil || i.Entry.Kind != ledger.KindStatement {
			return nil, errors.New("and the proof that it is in the record does not hold")
		}
		return i, nil
	}
}

// against returns the reason code that speaks against a device, "" if it is in good
// standing as far as this device knows.
func (e *Engine) against(m member) string {
	standing := e.standings.set.Device(m.Device, m.Address)
	switch {
	case standing.Good():
		return ""
	case standing.Person:
		return "person_" + string(standing.State)
	}
	return "device_" + string(standing.State)
}

// StandingText says in words what a reason code of somebody's standing means, "" for
// codes of another kind.
func StandingText(reason string) string {
	return map[string]string{
		"device_suspended": "the device was suspended",
		"device_revoked":   "the device was revoked",
		"person_suspended": "the person was suspended",
		"person_revoked":   "the person's devices were revoked",
		"person_removed":   "the person was taken off the roster",
	}[reason]
}

// Barred says that a device is not let in, because of its standing.
type Barred struct {
	Address string
	Device  identity.DeviceID
	Reason  string // a reason code
}

func (b *Barred) Error() string {
	return fmt.Sprintf("the device %s of %s is not let in: %s (%s)", b.Device.String()[:8], b.Address, StandingText(b.Reason), b.Reason)
}

// Hint says what to do.
func (b *Barred) Hint() string { return "ask a security officer" }

// checkStanding refuses a device that is not in good standing. Who is not known to be
// barred may be so for a minute; who is gets another look, for it may be over.
func (e *Engine) checkStanding(ctx context.Context, l *link, c mls.Credential) (*Barred, error) {
	m, err := e.member(mls.Member{Credential: c})
	if err != nil {
		return nil, err
	}
	if e.against(m) != "" || e.now().Sub(e.standings.asked).Abs() > standingsAge {
		if err := e.refreshStandings(ctx, l); err != nil {
			return nil, err
		}
	}
	if reason := e.against(m); reason != "" {
		return &Barred{m.Address.String(), m.Device, reason}, nil
	}
	return nil, nil
}

// explain asks, once for a delivery, why somebody was removed. It returns whether it did.
func (e *Engine) explain(ctx context.Context, l *link, d *wire.Deliver, ch *mls.Change) (bool, error) {
	if len(ch.Removed) == 0 || e.standings.explained == d.Number {
		return false, nil
	}
	e.standings.explained = d.Number
	for _, m := range ch.Removed {
		who, err := e.member(m)
		if err != nil {
			return true, stopped(err)
		}
		if e.against(who) == "" {
			return true, e.refreshStandings(ctx, l)
		}
	}
	return false, nil
}
