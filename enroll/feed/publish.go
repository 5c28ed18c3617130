// SPDX-License-Identifier: Apache-2.0

package feed

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"valise/bulletin"
	"valise/internal/store/authority"
	"valise/ledger"
	"valise/record"
	"valise/statement"
)

// publish signs and stores the next bulletin if one is due. Another process may
// do so at the same time: then one of the two is stored, and the other was never
// seen by anybody.
func (f *Feed) publish(ctx context.Context) error {
	err := f.publishOnce(ctx)
	if errors.Is(err, authority.ErrState) { // another process took the number
		_, err = f.look(ctx)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failed = err; errors.Is(err, authority.ErrRestored) { // the store's matter, and no failure of the token
		f.failed = nil
	}
	return err
}

func (f *Feed) publishOnce(ctx context.Context) error {
	if f.cfg.Signer == nil {
		return nil
	}
	if _, err := f.look(ctx); err != nil { // one that another process published just now
		return err
	}
	next, err := f.compose(ctx)
	if err != nil || next == nil {
		return err
	}
	due, err := f.due(ctx, next)
	if err != nil || !due {
		return err
	}
	if err := f.cfg.Store.View(ctx, (*authority.Tx).Writable); err != nil {
		return err
	}
	raw, err := bulletin.Sign(ctx, f.cfg.Signer, next)
	if err != nil {
		return err
	}
	signed := authority.SignedBulletin{Number: next.Number, JWS: raw}
	if err := f.cfg.Store.Update(ctx, func(tx *authority.Tx) error { return tx.AddBulletin(signed) }); err != nil {
		return err
	}
	if err := f.know(signed); err != nil {
		return err
	}
	f.wake()
	return f.tidy(ctx, next.Number)
}

// due decides whether the next bulletin is to be published now: at the
// heartbeat, when it says something else than the one before, or when a
// statement was recorded that gateways obey until a bulletin knows it.
func (f *Feed) due(ctx context.Context, next *bulletin.Bulletin) (bool, error) {
	last := f.latest()
	if last == nil {
		return true, nil
	}
	old := last.bulletin
	if !next.Time.Before(old.Time.Add(f.cfg.Heartbeat)) {
		return true, nil
	}
	if next.Manifest != old.Manifest || next.Bundle != old.Bundle || !reflect.DeepEqual(next.Devices, old.Devices) ||
		!reflect.DeepEqual(next.People, old.People) || !reflect.DeepEqual(next.Officers, old.Officers) {
		return true, nil
	}
	// Leaves are looked at once: with thousands of issuances between two bulletins,
	// each look from the last bulletin on would be longer than the one before.
	from := max(old.LedgerSize, f.examined)
	found, err := f.orders(ctx, from, next.LedgerSize)
	if err == nil && !found {
		f.examined = max(f.examined, next.LedgerSize)
	}
	return found, err
}

// orders tells whether leaves hold statements that gateways obey on sight.
func (f *Feed) orders(ctx context.Context, from, to int64) (found bool, err error) {
	for from < to && !found && err == nil {
		var items []ledger.Item
		err = f.cfg.Store.View(ctx, func(tx *authority.Tx) error {
			items, err = tx.Items(from, int(min(to-from, pageItems)))
			return err
		})
		if err == nil && len(items) == 0 {
			return false, fmt.Errorf("feed: leaf %d is missing", from)
		}
		for _, i := range items {
			found = found || isOrder(i)
		}
		from += int64(len(items))
	}
	return found, err
}

func isOrder(i ledger.Item) bool {
	if i.Entry.Kind != ledger.KindStatement {
		return false
	}
	st, err := statement.Parse(i.Payload)
	if err != nil {
		return false
	}
	switch st.Body.Kind() {
	case statement.KindSuspension, statement.KindRevocation, statement.KindRemoval, statement.KindRoster,
		statement.KindDismissal, statement.KindResumption:
		return true
	}
	return false
}

// keepBulletins is how many superseded bulletins stay in the database.
const keepBulletins = 1000

func (f *Feed) tidy(ctx context.Context, number uint64) error {
	if number%keepBulletins != 0 || number <= keepBulletins {
		return nil
	}
	return f.cfg.Store.Update(ctx, func(tx *authority.Tx) error { return tx.DropBulletins(number - keepBulletins) })
}

// head fills in what a bulletin says of itself.
func (f *Feed) head(s *record.State) (*bulletin.Bulletin, bool) {
	m, _ := s.Manifest()
	if m == nil {
		return nil, false
	}
	now := f.cfg.Now().UTC().Truncate(time.Second)
	tree := s.Head()
	b := &bulletin.Bulletin{Number: 1, Manifest: m.Number, Bundle: s.Bundle().Hash, LedgerSize: tree.N, LedgerRoot: tree.Hash}
	if last := f.latest(); last != nil {
		b.Number = last.bulletin.Number + 1
		if now.Before(last.bulletin.Time) {
			now = last.bulletin.Time // another process's clock is ahead of ours
		}
	}
	b.Time, b.Next = now, now.Add(f.cfg.Heartbeat)
	return b, true
}
