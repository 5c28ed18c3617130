// SPDX-License-Identifier: Apache-2.0

package book_test

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"valise/enroll/book"
	"valise/enroll/enrolltest"
	"valise/internal/store/authority"
	"valise/internal/testenv"
	"valise/ledger"
	"valise/record"
	"valise/statement"
)

// token is the ledger's key in a token that can be away.
type token struct {
	crypto.Signer
	away   atomic.Bool
	signed atomic.Int64
}

func (k *token) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if k.away.Load() {
		return nil, errors.New("token is away")
	}
	k.signed.Add(1)
	return k.Signer.Sign(r, digest, opts)
}

// An archive is a founded authority's database, on which tests open books.
type archive struct {
	*enrolltest.Ministry
	path string
	key  *token
	t    testing.TB
}

func newArchive(t testing.TB, path string) *archive {
	t.Helper()
	a := &archive{Ministry: enrolltest.NewMinistry(t, enrolltest.MinistryConfig{}), path: path, t: t}
	a.key = &token{Signer: a.LedgerKey}
	b, _ := a.open()
	must(t, b.Update(t.Context(), func(_ *authority.Tx, _ *record.State, add book.Append) error { return a.Open(add) }))
	return a
}

func newFile(t testing.TB) *archive {
	return newArchive(t, filepath.Join(t.TempDir(), "authority.db"))
}

// open opens the database as a process does.
func (a *archive) open() (*book.Book, *authority.Store) {
	a.t.Helper()
	b, s, err := a.tryOpen()
	must(a.t, err)
	return b, s
}

func (a *archive) tryOpen() (*book.Book, *authority.Store, error) {
	s, err := authority.Open(a.t.Context(), a.path)
	must(a.t, err)
	a.t.Cleanup(func() { _ = s.Close() })
	b, err := book.Open(a.t.Context(), book.Config{Store: s, Root: a.Root, LedgerKey: a.key})
	return b, s, err
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (a *archive) refusal(n int) []byte {
	return a.Olga.Sign(a.t, time.Now(), &statement.Refusal{Request: fmt.Sprintf("request-%d", n), Reason: "why not"})
}

func record1(t testing.TB, b *book.Book, raw []byte) error {
	t.Helper()
	return b.Update(t.Context(), func(_ *authority.Tx, _ *record.State, add book.Append) error {
		_, err := add(ledger.KindStatement, raw)
		return err
	})
}

func size(b *book.Book) (n int64) { b.View(func(s *record.State) { n = s.Size() }); return n }

func head(b *book.Book) (h ledger.Head) {
	b.View(func(s *record.State) { h = s.Head() })
	return h
}

// What was recorded is there after a restart, and what was not is not.
func TestUpdate(t *testing.T) {
	a := newFile(t)
	b, store := a.open()
	changed := b.Watch()
	must(t, record1(t, b, a.refusal(1)))
	select {
	case <-changed:
	default:
		t.Error("nobody was told")
	}
	before := head(b)
	boom := errors.New("boom")
	err := b.Update(t.Context(), func(_ *authority.Tx, _ *record.State, add book.Append) error {
		_, err := add(ledger.KindStatement, a.refusal(2))
		return errors.Join(err, boom)
	})
	if !errors.Is(err, boom) || head(b) != before {
		t.Errorf("after a failure: %v, %d leaves", err, size(b))
	}
	// What breaks the rules is not recorded, and the transaction may go on.
	must(t, b.Update(t.Context(), func(_ *authority.Tx, _ *record.State, add book.Append) error {
		if _, err := add(ledger.KindStatement, a.refusal(1)); record.ReasonOf(err) != record.Replayed {
			t.Errorf("got %v", err)
		}
		_, err := add(ledger.KindStatement, a.refusal(3))
		return err
	}))
	again, _ := a.open()
	if head(again) != head(b) {
		t.Errorf("%v, and after a restart %v", head(b), head(again))
	}
	must(t, store.View(t.Context(), func(tx *authority.Tx) error {
		stored, err := tx.LedgerHead()
		if stored != head(b) {
			t.Errorf("the database has %v, the memory %v", stored, head(b))
		}
		return err
	}))
}

// Two processes append to one ledger: none is lost, none forks it, and each sees the
// other's.
func TestTwoProcesses(t *testing.T) {
	for name, path := range map[string]func(t *testing.T) string{
		"SQLite":     func(t *testing.T) string { return filepath.Join(t.TempDir(), "authority.db") },
		"PostgreSQL": func(t *testing.T) string { return testenv.Postgres(t).DSN },
	} {
		t.Run(name, func(t *testing.T) {
			a := newArchive(t, path(t))
			one, _ := a.open()
			two, _ := a.open()
			const each = 12
			var raws [2 * each][]byte
			for i := range raws {
				raws[i] = a.refusal(i)
			}
			var wg sync.WaitGroup
			for i, b := range []*book.Book{one, two, one, two} {
				wg.Go(func() {
					for n := i; n < len(raws); n += 4 {
						if err := record1(t, b, raws[n]); err != nil {
							t.Error(err)
						}
					}
				})
			}
			wg.Wait()
			must(t, one.Sync(t.Context()))
			must(t, two.Sync(t.Context()))
			if size(one) != 2+2*each || head(one) != head(two) {
				t.Errorf("%v and %v", head(one), head(two))
			}
			// A decision sees what the other process recorded, in its own transaction.
			must(t, record1(t, one, a.refusal(100)))
			must(t, two.Look(t.Context(), func(_ *authority.Tx, s *record.State) error {
				if _, known := s.Refused("request-100"); !known {
					t.Error("a decision of the other process is not seen")
				}
				return nil
			}))
		})
	}
}

// A token that is away delays checkpoints and no decision; one signature covers
// everything that came meanwhile.
func TestCheckpoints(t *testing.T) {
	a := newFile(t)
	b, store := a.open()
	a.key.away.Store(true)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Work(ctx) }()
	for n := range 5 {
		must(t, record1(t, b, a.refusal(n)))
	}
	wait(t, func() bool { _, err := b.Checkpointed(); return err != nil })
	if behind, _ := b.Checkpointed(); behind <= 0 {
		t.Errorf("behind for %v", behind)
	}
	a.key.away.Store(false)
	var newest authority.Checkpoint
	wait(t, func() bool {
		_ = store.View(t.Context(), func(tx *authority.Tx) (err error) { newest, err = tx.LatestCheckpoint(); return err })
		return newest.Size == size(b)
	})
	wait(t, func() bool { behind, err := b.Checkpointed(); return behind == 0 && err == nil })
	if n := a.key.signed.Load(); n != 1 {
		t.Errorf("%d signatures", n)
	}
	v, err := ledger.Verifier(ledger.Origin(enrolltest.Domain), a.LedgerKey.Public().(ed25519.PublicKey))
	must(t, err)
	if h, err := ledger.OpenCheckpoint(newest.Note, v); err != nil || h != head(b) {
		t.Errorf("got %v, %v", h, err)
	}
	cancel()
	must(t, <-done)
}

func wait(t testing.TB, f func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for !f() {
		select {
		case <-ctx.Done():
			t.Fatal("it did not come")
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// A key that the manifest does not name signs nothing.
func TestStrangersLedgerKey(t *testing.T) {
	a := newFile(t)
	a.open()
	a.key.Signer = enrolltest.NewMinistry(t, enrolltest.MinistryConfig{}).LedgerKey
	if _, _, err := a.tryOpen(); err == nil {
		t.Error("opened with another authority's ledger key")
	}
}

// Hashes that do not belong to the leaves are not signed.
func TestDamagedHashesAreNotSigned(t *testing.T) {
	a := newFile(t)
	b, _ := a.open()
	must(t, b.Checkpoint(t.Context()))
	must(t, record1(t, b, a.refusal(1)))
	exec(t, a.path, "UPDATE hashes SET hash = zeroblob(32) WHERE id = (SELECT max(id) FROM hashes)")
	if err := b.Checkpoint(t.Context()); !errors.Is(err, book.ErrDamaged) {
		t.Errorf("got %v", err)
	}
	if n := a.key.signed.Load(); n != 1 {
		t.Errorf("%d signatures", n)
	}
}

// Leaves that were recorded before are taken in as they were after a restore.
func TestRecover(t *testing.T) {
	a := newFile(t)
	b, store := a.open()
	var items []ledger.Item
	must(t, record1(t, b, a.refusal(1)))
	must(t, store.View(t.Context(), func(tx *authority.Tx) (err error) { items, err = tx.Items(0, 10); return err }))
	restored := &archive{Ministry: a.Ministry, path: filepath.Join(t.TempDir(), "restored.db"), key: a.key, t: t}
	c, empty := restored.open()
	must(t, empty.Update(t.Context(), func(tx *authority.Tx) error { return tx.SetFlag(authority.FlagRestored, nil) }))
	if err := c.Update(t.Context(), func(_ *authority.Tx, _ *record.State, add book.Append) error { return a.Open(add) }); !errors.Is(err, authority.ErrRestored) {
		t.Errorf("appended to a restored ledger: %v", err)
	}
	must(t, c.Recover(t.Context(), func(tx *authority.Tx, _ *record.State, take func(ledger.Item) error) error {
		for _, i := range items {
			if err := take(i); err != nil {
				return err
			}
		}
		return tx.ClearFlag(authority.FlagRestored)
	}))
	if head(c) != head(b) {
		t.Errorf("%v instead of %v", head(c), head(b))
	}
}

// exec writes to the file as somebody does who has it and nothing else.
func exec(t testing.TB, path, query string) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(5000)")
	must(t, err)
	defer db.Close()
	_, err = db.ExecContext(t.Context(), query)
	must(t, err)
}
