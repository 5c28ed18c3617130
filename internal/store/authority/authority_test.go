// SPDX-License-Identifier: Apache-2.0

package authority

import (
	"bytes"
	"errors"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"valise/identity"
	"valise/internal/testenv"
	"valise/ledger"
)

// eachDatabase runs a test on both databases; path is an empty one of its own.
func eachDatabase(t *testing.T, f func(t *testing.T, path string)) {
	t.Run("SQLite", func(t *testing.T) { f(t, filepath.Join(t.TempDir(), "a.db")) })
	t.Run("PostgreSQL", func(t *testing.T) { f(t, testenv.Postgres(t).DSN) })
}

func testOpen(t testing.TB, path string) *Store {
	t.Helper()
	s, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func alice(t testing.TB) identity.Address {
	t.Helper()
	a, err := identity.ParseAddress("alice@interieur.example")
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestNonces(t *testing.T) { eachDatabase(t, testNonces) }

func testNonces(t *testing.T, path string) {
	s, now := testOpen(t, path), time.Now()
	n := s.NewNonce(now)
	must(t, s.UseNonce(t.Context(), n, now))
	if err := s.UseNonce(t.Context(), n, now); !errors.Is(err, ErrNonce) {
		t.Errorf("used twice: %v", err)
	}
	second := testOpen(t, path) // another process, or this one after a restart
	if err := second.UseNonce(t.Context(), n, now); !errors.Is(err, ErrNonce) {
		t.Errorf("used again elsewhere: %v", err)
	}
	must(t, second.UseNonce(t.Context(), s.NewNonce(now), now))
	stranger := testOpen(t, filepath.Join(t.TempDir(), "b.db"))
	for name, bad := range map[string]string{
		"another authority's": stranger.NewNonce(now), "empty": "", "junk": "AAAA", "longer": s.NewNonce(now) + "A",
		"expired": s.NewNonce(now.Add(-2 * time.Hour)),
	} {
		if err := s.UseNonce(t.Context(), bad, now); !errors.Is(err, ErrNonce) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// After the purge a used nonce is still refused, because it has expired.
	must(t, s.Purge(t.Context(), now.Add(2*time.Hour)))
	if err := s.UseNonce(t.Context(), n, now.Add(2*time.Hour)); !errors.Is(err, ErrNonce) {
		t.Errorf("after the purge: %v", err)
	}
}

func TestNonceOnceUnderConcurrency(t *testing.T) { eachDatabase(t, testNonceOnceUnderConcurrency) }

func testNonceOnceUnderConcurrency(t *testing.T, path string) {
	stores := []*Store{testOpen(t, path), testOpen(t, path)}
	now := time.Now()
	n := stores[0].NewNonce(now)
	var won atomic.Int64
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			switch err := stores[i%2].UseNonce(t.Context(), n, now); {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, ErrNonce):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Errorf("used %d times", won.Load())
	}
}

func FuzzNonce(f *testing.F) {
	s := testOpen(f, filepath.Join(f.TempDir(), "a.db"))
	now := time.Now()
	f.Add(s.NewNonce(now)[1:])
	f.Add("")
	f.Fuzz(func(t *testing.T, n string) {
		if s.CheckNonce(n, now) == nil {
			t.Errorf("%q was accepted and never handed out", n)
		}
	})
}

func TestInvitationOnce(t *testing.T) { eachDatabase(t, testInvitationOnce) }

func testInvitationOnce(t *testing.T, path string) {
	s, now := testOpen(t, path), time.Now()
	err := s.Update(t.Context(), func(tx *Tx) error {
		return tx.AddInvitation(Invitation{KID: "k", Key: []byte("secret"), Address: alice(t), Created: now, Expires: now.Add(time.Hour)})
	})
	must(t, err)
	use := func() error {
		return s.Update(t.Context(), func(tx *Tx) error { return tx.UseInvitation("k", now) })
	}
	must(t, use())
	if err := use(); !errors.Is(err, ErrState) {
		t.Errorf("got %v", err)
	}
	must(t, s.View(t.Context(), func(tx *Tx) error {
		i, err := tx.Invitation("k")
		if len(i.Key) != 0 || i.Used.IsZero() {
			t.Errorf("got %+v", i)
		}
		return err
	}))
	must(t, s.View(t.Context(), func(tx *Tx) error {
		if _, err := tx.Invitation("other"); !errors.Is(err, ErrNotFound) {
			t.Errorf("got %v", err)
		}
		return nil
	}))
}

func TestPeople(t *testing.T) { eachDatabase(t, testPeople) }

func testPeople(t *testing.T, path string) {
	s := testOpen(t, path)
	list, err := identity.NewClassList(4)
	must(t, err)
	p := Person{Address: alice(t), Name: "Alice", Clearance: &identity.Clearance{PolicyID: []int{1, 2, 3}, ClassList: list}}
	put := func(p Person) (changed bool) {
		must(t, s.Update(t.Context(), func(tx *Tx) (err error) { changed, err = tx.PutPerson(p); return err }))
		return changed
	}
	if !put(p) || put(p) {
		t.Error("a new line must count as changed, the same one again must not")
	}
	p.Clearance = nil
	if !put(p) {
		t.Error("a lost clearance must count as changed")
	}
	must(t, s.View(t.Context(), func(tx *Tx) error {
		all, err := tx.People()
		if len(all) != 1 || all[0].Clearance != nil {
			t.Errorf("got %+v", all)
		}
		return err
	}))
	remove := func() error { return s.Update(t.Context(), func(tx *Tx) error { return tx.RemovePerson(p.Address) }) }
	must(t, remove())
	if err := remove(); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v", err)
	}
}

// Every leaf can be proven under the head, and a rolled back transaction leaves none.
func TestLedger(t *testing.T) { eachDatabase(t, testLedger) }

func testLedger(t *testing.T, path string) {
	s := testOpen(t, path)
	boom := errors.New("boom")
	for i := range 9 {
		err := s.Update(t.Context(), func(tx *Tx) error {
			n, err := tx.AppendIssuance([]byte{byte(i)})
			if err == nil && n != int64(i) {
				t.Errorf("leaf %d, want %d", n, i)
			}
			return err
		})
		must(t, err)
		err = s.Update(t.Context(), func(tx *Tx) error {
			_, err := tx.AppendIssuance([]byte("never"))
			return errors.Join(err, boom)
		})
		if !errors.Is(err, boom) {
			t.Fatal(err)
		}
	}
	must(t, s.View(t.Context(), func(tx *Tx) error {
		head, err := tx.LedgerHead()
		must(t, err)
		if head.N != 9 {
			t.Errorf("%d leaves", head.N)
		}
		for i := range head.N {
			entry, err := tx.LedgerEntry(i)
			must(t, err)
			if !entry.Records([]byte{byte(i)}) {
				t.Errorf("leaf %d is another's", i)
			}
			proof, err := tx.ProveInclusion(i)
			must(t, err)
			must(t, ledger.CheckInclusion(head, i, entry.Leaf(), proof))
			if ledger.CheckInclusion(head, (i+1)%head.N, entry.Leaf(), proof) == nil {
				t.Errorf("leaf %d proven at another place", i)
			}
		}
		return nil
	}))
}

// A certificate is stored once; who comes second learns that.
func TestCompleteIssuanceOnce(t *testing.T) { eachDatabase(t, testCompleteIssuanceOnce) }

func testCompleteIssuanceOnce(t *testing.T, path string) {
	s, now := testOpen(t, path), time.Now()
	i := Issuance{Ref: "order:a", Kind: "device", Subject: "x", Request: []byte{1}, Serial: []byte{1}, TBS: []byte{1}, Created: now, NotAfter: now}
	must(t, s.Update(t.Context(), func(tx *Tx) error { return tx.AddIssuance(i) }))
	if err := s.Update(t.Context(), func(tx *Tx) error { return tx.AddIssuance(i) }); !errors.Is(err, ErrExists) {
		t.Errorf("recorded twice: %v", err)
	}
	complete := func(der []byte) error {
		return s.Update(t.Context(), func(tx *Tx) error { return tx.CompleteIssuance("order:a", der) })
	}
	must(t, complete([]byte("first")))
	if err := complete([]byte("second")); !errors.Is(err, ErrState) {
		t.Errorf("got %v", err)
	}
	must(t, s.View(t.Context(), func(tx *Tx) error {
		got, err := tx.Issuance("order:a")
		if !bytes.Equal(got.Certificate, []byte("first")) || !got.Done() {
			t.Errorf("got %q", got.Certificate)
		}
		return err
	}))
}

func TestNoncesSurviveAnotherOpening(t *testing.T) { eachDatabase(t, testNoncesSurviveAnotherOpening) }

func testNoncesSurviveAnotherOpening(t *testing.T, path string) {
	s, now := testOpen(t, path), time.Now()
	n := s.NewNonce(now)
	must(t, s.Close())
	again := testOpen(t, path)
	must(t, again.UseNonce(t.Context(), n, now))
}
