// SPDX-License-Identifier: Apache-2.0

package authority

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"valise/internal/store"
	"valise/ledger"
)

var start = time.Date(2026, 9, 1, 8, 0, 0, 0, time.UTC)

// entry makes one for a payload, and fails the test if it cannot.
func entry(t testing.TB, payload []byte, at time.Time) *ledger.Entry {
	t.Helper()
	e, err := ledger.NewEntry(ledger.KindStatement, payload, at)
	must(t, err)
	return e
}

// Leaves come back with what they stand for, in order, and are found by it.
func TestItems(t *testing.T) { eachDatabase(t, testItems) }

func testItems(t *testing.T, path string) {
	s := testOpen(t, path)
	for i := range 5 {
		must(t, s.Append(t.Context(), func(tx *Tx) error {
			payload := fmt.Appendf(nil, "statement %d", i)
			n, err := tx.AppendLeaf(entry(t, payload, start.Add(time.Duration(i)*time.Second)), payload)
			if n != int64(i) {
				t.Errorf("leaf %d, want %d", n, i)
			}
			return err
		}))
	}
	must(t, s.View(t.Context(), func(tx *Tx) error {
		items, err := tx.Items(1, 3)
		must(t, err)
		if len(items) != 3 {
			t.Fatalf("%d items", len(items))
		}
		for i, item := range items {
			if item.Index != int64(i+1) || string(item.Payload) != fmt.Sprintf("statement %d", i+1) || !item.Entry.Records(item.Payload) {
				t.Errorf("item %d: %+v", i, item)
			}
		}
		if items, err := tx.Items(5, 3); err != nil || len(items) != 0 {
			t.Errorf("beyond the end: %v, %v", items, err)
		}
		index, found, err := tx.FindLeaf(sha256.Sum256([]byte("statement 3")))
		if err != nil || index != 3 || !found.Records([]byte("statement 3")) {
			t.Errorf("found %d, %v", index, err)
		}
		if _, _, err := tx.FindLeaf([32]byte{1}); !errors.Is(err, ErrNotFound) {
			t.Errorf("got %v", err)
		}
		older, err := tx.LedgerHeadAt(2)
		must(t, err)
		head, err := tx.LedgerHead()
		must(t, err)
		proof, err := ledger.ProveGrowth(2, head.N, tx.Hashes())
		must(t, err)
		return ledger.CheckGrowth(older, head, proof)
	}))
}

// An entry that is another payload's, or older than the newest one, is refused; the
// honest one beside it is taken.
func TestAppendLeafRefuses(t *testing.T) { eachDatabase(t, testAppendLeafRefuses) }

func testAppendLeafRefuses(t *testing.T, path string) {
	s := testOpen(t, path)
	add := func(payload string, e *ledger.Entry) error {
		return s.Append(t.Context(), func(tx *Tx) error { _, err := tx.AppendLeaf(e, []byte(payload)); return err })
	}
	must(t, add("a", entry(t, []byte("a"), start)))
	if err := add("b", entry(t, []byte("another"), start)); !errors.Is(err, ErrEntry) {
		t.Errorf("another payload: %v", err)
	}
	if err := add("b", entry(t, []byte("b"), start.Add(-time.Second))); !errors.Is(err, ErrEntry) {
		t.Errorf("an earlier time: %v", err)
	}
	must(t, add("b", entry(t, []byte("b"), start)))
}

// Two processes append at once, some of them with Update: one tree, no gap, every
// leaf provable.
func TestAppendFromTwoProcesses(t *testing.T) { eachDatabase(t, testAppendFromTwoProcesses) }

func testAppendFromTwoProcesses(t *testing.T, path string) {
	ctx := t.Context()
	stores := []*Store{testOpen(t, path), testOpen(t, path)}
	const workers, rounds = 4, 12
	var wg sync.WaitGroup
	for w := range workers {
		s := stores[w%2]
		update := s.Append
		if w >= 2 {
			update = s.Update
		}
		wg.Go(func() {
			for i := range rounds {
				payload := fmt.Appendf(nil, "%d of worker %d", i, w)
				err := update(ctx, func(tx *Tx) error {
					e, err := ledger.NewEntry(ledger.KindStatement, payload, start)
					if err != nil {
						return err
					}
					_, err = tx.AppendLeaf(e, payload)
					return err
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	must(t, stores[0].View(ctx, func(tx *Tx) error {
		head, err := tx.LedgerHead()
		must(t, err)
		if head.N != workers*rounds {
			t.Errorf("%d leaves, want %d", head.N, workers*rounds)
		}
		items, err := tx.Items(0, 1000)
		must(t, err)
		seen := make(map[string]bool)
		for _, item := range items {
			if seen[string(item.Payload)] {
				t.Errorf("%q stands there twice", item.Payload)
			}
			seen[string(item.Payload)] = true
			proof, err := tx.ProveInclusion(item.Index)
			must(t, err)
			must(t, ledger.CheckInclusion(head, item.Index, item.Entry.Leaf(), proof))
		}
		return nil
	}))
}

// A number, once used or passed, is never used again.
func TestBulletinNumbers(t *testing.T) { eachDatabase(t, testBulletinNumbers) }

func testBulletinNumbers(t *testing.T, path string) {
	s := testOpen(t, path)
	add := func(n uint64) error {
		return s.Update(t.Context(), func(tx *Tx) error { return tx.AddBulletin(SignedBulletin{n, fmt.Appendf(nil, "%d", n)}) })
	}
	for _, n := range []uint64{1, 2, 7} {
		must(t, add(n))
	}
	for _, n := range []uint64{2, 5, 7} {
		if err := add(n); !errors.Is(err, ErrState) && !errors.Is(err, ErrExists) {
			t.Errorf("bulletin %d after 7: %v", n, err)
		}
	}
	if add(0) == nil || add(1<<63) == nil {
		t.Error("a number out of range was stored")
	}
	must(t, s.Update(t.Context(), func(tx *Tx) error { return tx.DropBulletins(100) }))
	must(t, s.View(t.Context(), func(tx *Tx) error {
		latest, err := tx.LatestBulletin()
		if latest.Number != 7 || string(latest.JWS) != "7" {
			t.Errorf("latest %+v", latest)
		}
		if _, err := tx.Bulletin(2); !errors.Is(err, ErrNotFound) {
			t.Errorf("a dropped one: %v", err)
		}
		return err
	}))
	if err := add(3); err == nil {
		t.Error("a dropped number was used again")
	}
}

func TestCheckpoints(t *testing.T) { eachDatabase(t, testCheckpoints) }

func testCheckpoints(t *testing.T, path string) {
	s := testOpen(t, path)
	add := func(size int64, note string) error {
		return s.Update(t.Context(), func(tx *Tx) error { return tx.AddCheckpoint(Checkpoint{size, []byte(note)}) })
	}
	must(t, add(3, "three"))
	must(t, add(9, "nine"))
	if err := add(9, "another nine"); !errors.Is(err, ErrExists) {
		t.Errorf("two for one size: %v", err)
	}
	must(t, s.View(t.Context(), func(tx *Tx) error {
		latest, err := tx.LatestCheckpoint()
		must(t, err)
		if string(latest.Note) != "nine" {
			t.Errorf("latest %s", latest.Note)
		}
		for leaf, want := range map[int64]string{0: "three", 2: "three", 3: "nine", 8: "nine"} {
			if c, err := tx.CheckpointCovering(leaf); err != nil || string(c.Note) != want {
				t.Errorf("leaf %d: %s, %v", leaf, c.Note, err)
			}
		}
		if _, err := tx.CheckpointCovering(9); !errors.Is(err, ErrNotFound) {
			t.Errorf("got %v", err)
		}
		return nil
	}))
}

// While the flag of a restore is set, nothing that is numbered or signed is stored,
// outside Recover; without the flag, the control, it is.
func TestRestoredIsReadOnly(t *testing.T) { eachDatabase(t, testRestoredIsReadOnly) }

func testRestoredIsReadOnly(t *testing.T, path string) {
	s, ctx := testOpen(t, path), t.Context()
	must(t, s.Update(ctx, func(tx *Tx) error { return tx.AddIssuance(issuance("unsigned", 1)) }))
	must(t, s.Update(ctx, func(tx *Tx) error { return tx.SetFlag(FlagRestored, []byte("now")) }))
	n := 0
	steps := map[string]func(tx *Tx) error{
		"leaf": func(tx *Tx) error {
			_, err := tx.AppendLeaf(entry(t, []byte("p"), start), []byte("p"))
			return err
		},
		"old leaf":    func(tx *Tx) error { _, err := tx.AppendIssuance([]byte("tbs")); return err },
		"bulletin":    func(tx *Tx) error { n++; return tx.AddBulletin(SignedBulletin{uint64(n), []byte("b")}) },
		"checkpoint":  func(tx *Tx) error { return tx.AddCheckpoint(Checkpoint{int64(n), []byte("c")}) },
		"issuance":    func(tx *Tx) error { return tx.AddIssuance(issuance("another", 2)) },
		"certificate": func(tx *Tx) error { return tx.CompleteIssuance("unsigned", []byte("der")) },
	}
	for name, f := range steps {
		if err := s.Update(ctx, f); !errors.Is(err, ErrRestored) {
			t.Errorf("%s: %v", name, err)
		}
	}
	boom := errors.New("boom")
	for name, f := range steps { // taken in, and rolled back
		if err := s.Recover(ctx, func(tx *Tx) error { return errors.Join(f(tx), boom) }); err == nil || err.Error() != "boom" {
			t.Errorf("%s: %v", name, err)
		}
	}
	must(t, s.Update(ctx, func(tx *Tx) error { return tx.ClearFlag(FlagRestored) }))
	for name, f := range steps {
		if err := s.Update(ctx, f); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func issuance(ref string, leaf int64) Issuance {
	return Issuance{
		Ref: ref, Kind: "device", Subject: "x", Request: []byte{1}, Serial: []byte(ref), Leaf: leaf,
		TBS: []byte{1}, Created: start, NotAfter: start,
	}
}

// A database of the version before has its payloads after the migration.
func TestMigrationKeepsPayloads(t *testing.T) { eachDatabase(t, testMigrationKeepsPayloads) }

func testMigrationKeepsPayloads(t *testing.T, path string) {
	ctx := t.Context()
	first, err := fs.ReadFile(migrations, "migrations/00001_start.sql")
	must(t, err)
	old, err := store.Open(ctx, store.Config{
		Path: path, ApplicationID: applicationID, Migrations: fstest.MapFS{"00001_start.sql": {Data: first}},
	})
	must(t, err)
	tbs := []byte("a certificate")
	e, err := ledger.NewIssuance(tbs)
	must(t, err)
	must(t, old.Update(ctx, func(tx *store.Tx) error {
		_, err := tx.ExecContext(ctx, "INSERT INTO leaves (id, entry) VALUES ($1, $2)", 0, e.Marshal())
		if err == nil {
			_, err = tx.ExecContext(ctx, `INSERT INTO issuances (id, ref, kind, subject, request, serial, leaf, tbs, created, not_after)
				VALUES (1, 'order:x', 'device', 'x', $1, $2, 0, $3, 0, 0)`, []byte{1}, []byte{1}, tbs)
		}
		return err
	}))
	must(t, old.Close())
	s := testOpen(t, path)
	must(t, s.View(ctx, func(tx *Tx) error {
		items, err := tx.Items(0, 10)
		must(t, err)
		if len(items) != 1 || !bytes.Equal(items[0].Payload, tbs) {
			t.Errorf("got %+v", items)
		}
		index, _, err := tx.FindLeaf(e.Subject)
		if err != nil || index != 0 {
			t.Errorf("leaf %d, %v", index, err)
		}
		return nil
	}))
}

// forge changes rows behind the store's back.
func forge(t *testing.T, path, query string, args ...any) {
	t.Helper()
	driver := "sqlite"
	if store.IsPostgreSQL(path) {
		driver = "pgx"
	}
	db, err := sql.Open(driver, path)
	must(t, err)
	defer db.Close()
	_, err = db.ExecContext(context.WithoutCancel(t.Context()), query, args...)
	must(t, err)
}

// A leaf that somebody took out, or put under another's subject, is noticed.
func TestDamagedLeaves(t *testing.T) {
	for name, c := range map[string]struct {
		query string
		check func(tx *Tx) error
	}{
		"taken out": {"DELETE FROM leaves WHERE id = 1", func(tx *Tx) error { _, err := tx.Items(0, 10); return err }},
		"another's subject": {"UPDATE leaves SET subject = (SELECT subject FROM leaves WHERE id = 0) WHERE id = 1", func(tx *Tx) error {
			_, _, err := tx.FindLeaf(sha256.Sum256([]byte("0")))
			return err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "a.db")
			s := testOpen(t, path)
			for i := range 3 {
				payload := fmt.Appendf(nil, "%d", i)
				must(t, s.Append(t.Context(), func(tx *Tx) error {
					_, err := tx.AppendLeaf(entry(t, payload, start), payload)
					return err
				}))
			}
			must(t, s.View(t.Context(), c.check)) // control
			forge(t, path, c.query)
			if err := s.View(t.Context(), c.check); err == nil {
				t.Error("not noticed")
			}
		})
	}
}
