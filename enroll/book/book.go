// SPDX-License-Identifier: Apache-2.0

// Package book keeps the record of this process: a record.State that follows the
// ledger in the database, also when another process appends to it, and through
// which everything goes that is recorded.
//
// First call: Open, which replays the whole ledger and compares it with the newest
// checkpoint; its Work must run beside what uses it:
//
//	b, err := book.Open(ctx, book.Config{Store: store, Root: root, LedgerKey: key})
//	go b.Work(ctx)
//	b.View(func(s *record.State) { … })
//	err = b.Update(ctx, func(tx *authority.Tx, s *record.State, add book.Append) error {
//		leaf, err := add(ledger.KindStatement, raw)
//		…
//	})
//
// Nothing is appended that the record's rules do not allow: what Update's function
// adds is verified first, and its finding comes back as an error. The state in memory
// is what decides, never the rows: whoever takes leaves out of the database of a
// running authority, or puts other ones in their place, stops it (ErrDamaged) and
// changes no decision.
//
// Never call View, Update, Look or Sync inside one another, or inside a transaction of
// the store: they wait for each other.
package book

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"valise/internal/store/authority"
	"valise/ledger"
	"valise/record"
)

// ErrDamaged is wrapped when the ledger in the database is not a continuation of
// what this process knows, or holds what breaks the rules: nothing is decided until
// it is mended.
var ErrDamaged = errors.New("book: the ledger in the database is damaged: stop, and compare it with a gateway's copy")

// A Config holds what a Book needs. Store and Root are required.
type Config struct {
	Store *authority.Store
	Root  *x509.Certificate
	// LedgerKey signs checkpoints: Ed25519, in the HSM. Without one, another process
	// must have it, or Sign is called.
	LedgerKey crypto.Signer
	// Mark, if set, is a file outside of the database that holds the newest
	// checkpoint that this machine has seen. A database that is behind it was
	// exchanged for an older copy, and is not opened.
	Mark string
	Log  *slog.Logger
	Now  func() time.Time
}

// Append records a payload and returns its leaf. The error may be a
// *record.Finding: then nothing was recorded, and the transaction may go on.
type Append func(kind ledger.Kind, payload []byte) (int64, error)

// A Book is a process's record. Its methods may be called by any goroutine.
type Book struct {
	cfg Config

	mu      sync.RWMutex
	state   *record.State // guarded by mu
	changed chan struct{} // guarded by mu; closed with the next change
	damage  error         // guarded by mu; what is wrong with the database, nil: nothing
	torn    error         // guarded by mu; as damage, but found by Checkpoint

	marked atomic.Int64 // the size in the file Mark

	signing signing
}

// Open replays the ledger. It fails if that is damaged, or not what the newest
// checkpoint says.
func Open(ctx context.Context, cfg Config) (*Book, error) {
	if cfg.Store == nil || cfg.Root == nil {
		return nil, errors.New("book: store and root must be given")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	b := &Book{cfg: cfg, state: record.New(cfg.Root), changed: make(chan struct{})}
	began := time.Now()
	// What was signed is read before the leaves: another process may add to both.
	newest, err := b.newest(ctx)
	if err != nil {
		return nil, err
	}
	marked, err := b.readMark()
	if err != nil {
		return nil, err
	}
	if err := b.Sync(ctx); err != nil {
		return nil, err
	}
	if err := b.compare(ctx, newest); err != nil {
		return nil, err
	}
	if err := b.checkMark(ctx, marked); err != nil {
		return nil, err
	}
	if err := b.checkKey(); err != nil {
		return nil, err
	}
	cfg.Log.Info("record replayed", "leaves", b.state.Size(), "took", time.Since(began).Round(time.Millisecond).String())
	return b, nil
}

// View runs f on the state as this process knows it. f must not keep or change it.
func (b *Book) View(f func(s *record.State)) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	f(b.state)
}

// Watch returns a channel that is closed when the state changes next.
func (b *Book) Watch() <-chan struct{} {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.changed
}

// Damage returns what is wrong with the database, or nil.
func (b *Book) Damage() error {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return errors.Join(b.damage, b.torn)
}

// Sync brings the state up to date with the database.
func (b *Book) Sync(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	before := b.state.Size()
	err := b.cfg.Store.View(ctx, b.catchUp)
	b.notify(before)
	return err
}

// Look runs f in a transaction with the state as of that transaction, without
// appending anything. While nobody else appends, any number of them run at once.
func (b *Book) Look(ctx context.Context, f func(tx *authority.Tx, s *record.State) error) error {
	err := b.look(ctx, f)
	if !errors.Is(err, errBehind) {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	before := b.state.Size()
	defer b.notify(before)
	return b.cfg.Store.Update(ctx, func(tx *authority.Tx) error {
		if err := b.catchUp(tx); err != nil {
			return err
		}
		return f(tx, b.state)
	})
}

// errBehind: the database has leaves that this process has not read.
var errBehind = errors.New("book: behind the database")

func (b *Book) look(ctx context.Context, f func(tx *authority.Tx, s *record.State) error) error {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.torn != nil {
		return b.torn
	}
	return b.cfg.Store.Update(ctx, func(tx *authority.Tx) error {
		size, err := tx.LedgerSize()
		if err != nil {
			return err
		}
		if size != b.state.Size() || b.damage != nil {
			return errBehind
		}
		return f(tx, b.state)
	})
}

// Standing runs f while this process's record stays as it is. leaves is how many the
// ledger in the database must have, if nobody else has appended: f must see to it.
func (b *Book) Standing(f func(leaves int64) error) error {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if err := errors.Join(b.torn, b.damage); err != nil {
		return err
	}
	return f(b.state.Size())
}

// Update runs f in a transaction in which it may append. All of it happens, or
// nothing; f may run several times.
func (b *Book) Update(ctx context.Context, f func(tx *authority.Tx, s *record.State, add Append) error) error {
	return b.write(ctx, b.cfg.Store.Append, func(tx *authority.Tx) error {
		var failed error
		err := f(tx, b.state, func(kind ledger.Kind, payload []byte) (int64, error) {
			leaf, err := b.add(tx, kind, payload)
			if err != nil && record.ReasonOf(err) == "" {
				failed = err
			}
			return leaf, err
		})
		return errors.Join(err, failed)
	})
}

// Recover takes in leaves that were recorded before, as a gateway remembers them,
// after a restore; f clears the store's flag when it has them all.
func (b *Book) Recover(ctx context.Context, f func(tx *authority.Tx, s *record.State, take func(ledger.Item) error) error) error {
	return b.write(ctx, b.cfg.Store.Recover, func(tx *authority.Tx) error {
		return f(tx, b.state, func(i ledger.Item) error { return b.take(tx, i) })
	})
}

// write runs f behind the ledger's lock and keeps state and database in step.
func (b *Book) write(ctx context.Context, run func(context.Context, func(*authority.Tx) error) error, f func(*authority.Tx) error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	before := b.state.Size()
	defer b.notify(before)
	begun := false
	err := run(ctx, func(tx *authority.Tx) error {
		if begun {
			b.state.Rollback() // what an attempt applied that did not come to pass
		}
		begun = false
		if err := errors.Join(b.torn, b.catchUp(tx)); err != nil {
			return err
		}
		b.state.Begin()
		begun = true
		return f(tx)
	})
	switch {
	case !begun:
	case err != nil:
		b.state.Rollback()
	default:
		b.state.Commit()
	}
	return err
}

func (b *Book) add(tx *authority.Tx, kind ledger.Kind, payload []byte) (int64, error) {
	at := b.cfg.Now()
	if at.Before(b.state.Time()) {
		at = b.state.Time() // another process's clock is ahead of ours
	}
	entry, err := ledger.NewEntry(kind, payload, at)
	if err != nil {
		return -1, err
	}
	index := b.state.Size()
	return index, b.take(tx, ledger.Item{Index: index, Entry: entry, Payload: payload})
}

func (b *Book) take(tx *authority.Tx, i ledger.Item) error {
	if err := b.state.Apply(i); err != nil {
		return err
	}
	index, err := tx.AppendLeaf(i.Entry, i.Payload)
	if err == nil && index != i.Index {
		err = fmt.Errorf("%w: it took leaf %d as number %d", ErrDamaged, i.Index, index)
	}
	return err
}

// page is how many leaves are read at once; a page of ordinary ones takes 1 MiB.
const page = 512

// catchUp applies what other processes recorded. The state is never ahead of the
// database: if it is, leaves were taken out.
func (b *Book) catchUp(tx *authority.Tx) error {
	size, err := tx.LedgerSize()
	if err != nil {
		return err
	}
	if size < b.state.Size() {
		return b.damaged(&record.Finding{Index: size, Reason: record.Truncated, Detail: fmt.Sprintf("it has %d leaves, and had %d", size, b.state.Size())})
	}
	for b.state.Size() < size {
		items, err := tx.Items(b.state.Size(), page)
		if err != nil {
			return b.damaged(err)
		}
		if len(items) == 0 {
			return b.damaged(fmt.Errorf("leaf %d is missing", b.state.Size()))
		}
		for _, item := range items {
			if err := b.state.Apply(item); err != nil {
				return b.damaged(err)
			}
		}
	}
	b.damage = nil
	return nil
}

func (b *Book) damaged(err error) error {
	b.damage = fmt.Errorf("%w: %w", ErrDamaged, err)
	return b.damage
}

func (b *Book) notify(before int64) {
	if b.state.Size() != before {
		close(b.changed)
		b.changed = make(chan struct{})
	}
}
