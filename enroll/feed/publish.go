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
	why, err := f.news(ctx)
	if err != nil || why == quiet {
		return err
	}
	next, err := f.compose(ctx)
	if err != nil || next == nil {
		return err
	}
	if why == perhaps && f.says(next) {
		f.examined = max(f.examined, next.LedgerSize)
		return nil
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

// news is what speaks for another bulletin.
type news int

const (
	quiet   news = iota // nothing that was recorded since concerns standings
	perhaps             // it may, if it makes the bulletin say something else
	surely              // the heartbeat, or a statement that gateways obey until a bulletin knows it
)

// news looks at what was recorded since the last bulletin, at each leaf once: a
// busy authority records thousands of certificates between two of them.
func (f *Feed) news(ctx context.Context) (news, error) {
	last := f.latest()
	if last == nil || f.beat() {
		return surely, nil
	}
	var size int64
	f.cfg.Book.View(func(s *record.State) { size = s.Size() })
	found := quiet
	for from := max(last.bulletin.LedgerSize, f.examined); from < size && found != surely; {
		var items []ledger.Item
		err := f.cfg.Store.View(ctx, func(tx *authority.Tx) (err error) {
			items, err = tx.Items(from, int(min(size-from, pageItems)))
			return err
		})
		if err == nil && len(items) == 0 {
			err = fmt.Errorf("feed: leaf %d is missing", from)
		}
		if err != nil {
			return quiet, err
		}
		for _, i := range items {
			found = max(found, newsOf(i))
		}
		from += int64(len(items))
	}
	if found == quiet {
		f.examined = max(f.examined, size)
	}
	return found, nil
}

// newsOf tells what one leaf means for standings.
func newsOf(i ledger.Item) news {
	if i.Entry.Kind == ledger.KindIssuance {
		return quiet // no certificate says more than the roster
	}
	if i.Entry.Kind != ledger.KindStatement {
		return perhaps
	}
	st, err := statement.Parse(i.Payload)
	if err != nil {
		return perhaps
	}
	switch st.Body.Kind() {
	case statement.KindApproval, statement.KindRefusal, statement.KindInvitation:
		return quiet
	}
	if bulletin.Concerns(st.Body) {
		return surely
	}
	return perhaps
}

// says tells whether the last bulletin says all that the next one would.
func (f *Feed) says(next *bulletin.Bulletin) bool {
	old := f.latest().bulletin
	return next.Manifest == old.Manifest && next.Bundle == old.Bundle && reflect.DeepEqual(next.Devices, old.Devices) &&
		reflect.DeepEqual(next.People, old.People) && reflect.DeepEqual(next.Officers, old.Officers)
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
