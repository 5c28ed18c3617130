// SPDX-License-Identifier: Apache-2.0

package book

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"

	"valise/internal/store/authority"
	"valise/ledger"
	"valise/manifest"
	"valise/record"
)

const (
	// syncEvery is how often Work looks for what other processes recorded.
	syncEvery = time.Second

	// checkpointEvery is the shortest time between two checkpoints: all leaves of
	// that time share one signature.
	checkpointEvery = 250 * time.Millisecond

	// maxWait bounds the pause after a token that did not sign.
	maxWait = 30 * time.Second
)

// signing is what a Book knows about its checkpoints.
type signing struct {
	mu     sync.Mutex
	behind time.Time // guarded by mu; since when leaves have no checkpoint; zero: none
	failed error     // guarded by mu; the last failure, nil after a success
}

// Checkpointed returns for how long the oldest leaf without a checkpoint has waited
// for one, and the last failure to sign.
func (b *Book) Checkpointed() (behind time.Duration, err error) {
	b.signing.mu.Lock()
	defer b.signing.mu.Unlock()
	if b.signing.behind.IsZero() {
		return 0, nil
	}
	return b.cfg.Now().Sub(b.signing.behind), b.signing.failed
}

// Work follows the database and signs checkpoints until ctx ends. A token that is
// away delays checkpoints, and no decision.
func (b *Book) Work(ctx context.Context) error {
	pause := checkpointEvery
	for {
		changed := b.Watch()
		if err := b.Sync(ctx); err != nil && ctx.Err() == nil {
			b.cfg.Log.Error("the record cannot be followed", "error", err.Error())
		} else if err := b.Checkpoint(ctx); err != nil && ctx.Err() == nil {
			b.cfg.Log.Error("the checkpoint waits", "error", err.Error())
			pause = min(2*pause, maxWait)
			changed = nil
		} else {
			pause = checkpointEvery
		}
		if !b.rest(ctx, pause, changed) {
			return nil
		}
	}
}

// rest waits at least pause, and then for a change or until it is time to look. It
// reports whether to go on.
func (b *Book) rest(ctx context.Context, pause time.Duration, changed <-chan struct{}) bool {
	if !sleep(ctx, pause, nil) {
		return false
	}
	return sleep(ctx, max(0, syncEvery-pause), changed)
}

func sleep(ctx context.Context, d time.Duration, or <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
	case <-or:
	}
	return true
}

// Checkpoint signs the tree as it is, if no checkpoint does so yet. It signs only
// what this process computed from the leaves, and what the database's own hashes
// agree with.
func (b *Book) Checkpoint(ctx context.Context) error {
	if b.cfg.LedgerKey == nil {
		return nil
	}
	head, due, err := b.due(ctx)
	if err == nil || errors.Is(err, ErrDamaged) {
		b.mu.Lock()
		b.torn = err
		b.mu.Unlock()
	}
	if err != nil || !due {
		return b.note(false, err)
	}
	text, err := ledger.SignCheckpoint(ctx, b.origin(), head, b.cfg.LedgerKey)
	if err != nil {
		return b.note(true, err)
	}
	err = b.cfg.Store.Update(ctx, func(tx *authority.Tx) error {
		return tx.AddCheckpoint(authority.Checkpoint{Size: head.N, Note: text})
	})
	if errors.Is(err, authority.ErrExists) { // another process was faster, and due looks at what it signed
		return b.note(false, nil)
	}
	if err == nil {
		err = b.mark(text, head.N)
	}
	return b.note(err != nil, err)
}

func (b *Book) note(behind bool, err error) error {
	b.signing.mu.Lock()
	defer b.signing.mu.Unlock()
	switch {
	case !behind:
		b.signing.behind = time.Time{}
	case b.signing.behind.IsZero():
		b.signing.behind = b.cfg.Now()
	}
	b.signing.failed = err
	return err
}

// due returns the tree to sign, and whether it has no checkpoint. A checkpoint that
// is there is looked at: a row that nobody signed must not pass for one.
func (b *Book) due(ctx context.Context) (head ledger.Head, due bool, err error) {
	b.View(func(s *record.State) { head = s.Head() })
	if head.N == 0 {
		return head, false, nil
	}
	var (
		newest authority.Checkpoint
		stored ledger.Head
		size   int64
	)
	err = b.cfg.Store.View(ctx, func(tx *authority.Tx) error {
		due = false
		if tx.Writable() != nil {
			return nil // restored: nothing is signed before the gateways were asked
		}
		if newest, err = tx.LatestCheckpoint(); err != nil && !errors.Is(err, authority.ErrNotFound) {
			return err
		}
		if size, err = tx.LedgerSize(); err != nil {
			return err
		}
		stored, err = tx.LedgerHeadAt(head.N)
		due = true
		return err
	})
	switch {
	case err != nil || !due:
		return head, false, err
	case stored != head:
		return head, false, fmt.Errorf("%w: its hashes make up another tree of %d leaves", ErrDamaged, head.N)
	case newest.Size >= head.N:
		return head, false, b.others(newest, head, size)
	}
	return head, true, nil
}

// others looks at the newest checkpoint, by whichever process, of a ledger of so many
// leaves.
func (b *Book) others(newest authority.Checkpoint, head ledger.Head, size int64) error {
	if newest.Size == b.marked.Load() {
		return nil
	}
	signed, err := b.open(newest.Note)
	switch {
	case err != nil:
		return fmt.Errorf("%w: its newest checkpoint: %w", ErrDamaged, err)
	case signed.N != newest.Size || signed.N > size || signed.N == head.N && signed != head:
		return fmt.Errorf("%w: its newest checkpoint is of another tree of %d leaves", ErrDamaged, signed.N)
	}
	return b.mark(newest.Note, newest.Size)
}

func (b *Book) origin() (origin string) {
	b.View(func(s *record.State) {
		if m, _ := s.Manifest(); m != nil {
			origin = m.Origin
		} else if f := s.Founding(); f != nil {
			origin = ledger.Origin(f.Domain)
		}
	})
	return origin
}

// Sign has the book sign checkpoints with this key from now on, if the manifest names it.
// Call it before Work.
func (b *Book) Sign(key crypto.Signer) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	was := b.cfg.LedgerKey
	b.cfg.LedgerKey = key
	err := b.checkKey()
	if err != nil {
		b.cfg.LedgerKey = was
	}
	return err
}

// checkKey holds the key that signs checkpoints against the manifest: what nobody
// would accept is not signed.
func (b *Book) checkKey() error {
	if b.cfg.LedgerKey == nil {
		return nil
	}
	key, ok := b.cfg.LedgerKey.Public().(ed25519.PublicKey)
	if !ok {
		return fmt.Errorf("book: checkpoints are signed with Ed25519, the ledger's key is %T", b.cfg.LedgerKey.Public())
	}
	m, _ := b.state.Manifest()
	if m == nil {
		return nil
	}
	if !slices.ContainsFunc(m.LedgerKeys(b.cfg.Now()), func(k ed25519.PublicKey) bool { return k.Equal(key) }) {
		return fmt.Errorf("book: manifest %d does not name the ledger's key: check its label, or sign a new manifest", m.Number)
	}
	return nil
}

// newest returns the newest checkpoint in the database, nil if there is none.
func (b *Book) newest(ctx context.Context) (text []byte, err error) {
	err = b.cfg.Store.View(ctx, func(tx *authority.Tx) error {
		c, err := tx.LatestCheckpoint()
		if errors.Is(err, authority.ErrNotFound) {
			return nil
		}
		text = append([]byte{}, c.Note...) // an empty one is none of ours, and not none
		return err
	})
	return text, err
}

// compare holds the newest checkpoint against the leaves: a ledger that was cut or
// rewritten while nobody looked is not gone on with.
func (b *Book) compare(ctx context.Context, newest []byte) error {
	if newest == nil {
		return nil
	}
	return b.holds(ctx, newest, "its newest checkpoint")
}

// holds looks whether the leaves are those that a checkpoint was signed over.
func (b *Book) holds(ctx context.Context, text []byte, what string) error {
	head, err := b.open(text)
	if err != nil {
		return b.damaged(fmt.Errorf("%s: %w", what, err))
	}
	if head.N > b.state.Size() {
		return b.damaged(fmt.Errorf("%s was signed over %d leaves, and there are %d", what, head.N, b.state.Size()))
	}
	past, err := b.headAt(ctx, head.N)
	if err != nil {
		return err
	}
	if past != head {
		return b.damaged(fmt.Errorf("the first %d leaves are not those that %s was signed over", head.N, what))
	}
	return nil
}

// open verifies a checkpoint by any key that was ever named for the ledger.
func (b *Book) open(text []byte) (ledger.Head, error) {
	var m *manifest.Manifest
	b.View(func(s *record.State) { m, _ = s.Manifest() })
	if m == nil {
		_, head, err := ledger.ParseCheckpoint(text)
		return head, err
	}
	var verifiers []note.Verifier
	for _, k := range m.Ledger {
		v, err := ledger.Verifier(m.Origin, k.Public)
		if err != nil {
			return ledger.Head{}, err
		}
		verifiers = append(verifiers, v)
	}
	return ledger.OpenCheckpoint(text, verifiers...)
}

// headAt computes the tree of the first leaves from the leaves themselves.
func (b *Book) headAt(ctx context.Context, size int64) (ledger.Head, error) {
	if size == b.state.Size() {
		return b.state.Head(), nil
	}
	var tree ledger.Builder
	err := b.cfg.Store.View(ctx, func(tx *authority.Tx) error {
		tree = ledger.Builder{}
		for tree.Size() < size {
			items, err := tx.Items(tree.Size(), int(min(page, size-tree.Size())))
			if err != nil {
				return err
			}
			if len(items) == 0 {
				return fmt.Errorf("%w: leaf %d is missing", ErrDamaged, tree.Size())
			}
			for _, i := range items {
				if err := tree.Add(i.Entry.Leaf()); err != nil {
					return err
				}
			}
		}
		return nil
	})
	return tree.Head(), err
}
