// SPDX-License-Identifier: Apache-2.0

package feed_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"path/filepath"
	"testing"
	"time"

	"valise/bulletin"
	"valise/internal/store/authority"
	"valise/internal/testenv"
	"valise/ledger"
	"valise/statement"
)

// databases are empty ones of both kinds.
var databases = map[string]func(t testing.TB) string{
	"SQLite":     func(t testing.TB) string { return filepath.Join(t.TempDir(), "authority.db") },
	"PostgreSQL": func(t testing.TB) string { return testenv.Postgres(t).DSN },
}

// A backup is restored into another database, and the gateway knows more: what was
// recorded since comes back leaf by leaf, no leaf and no bulletin gets a number that
// another one had, and a card that was suspended since stays so. Before the gateway has
// told, nothing is recorded or signed.
func TestRestoredBackupAgainstGateway(t *testing.T) {
	for from, to := range map[string]string{"SQLite": "PostgreSQL", "PostgreSQL": "SQLite"} {
		t.Run(from+" to "+to, func(t *testing.T) { testRestoredBackup(t, databases[from](t), databases[to](t)) })
	}
}

func testRestoredBackup(t *testing.T, from, to string) {
	s := newSite(t)
	p := s.start(options{database: from})
	f := s.follow(p, "")
	eventually(t, "the first bulletin", func() bool { return f.Set().Number() == 1 })
	var backup bytes.Buffer
	if err := p.store.Dump(t.Context(), &backup, authority.Backup{Domain: domain, Root: sha256.Sum256(s.Root.Raw), Time: time.Now()}); err != nil {
		t.Fatal(err)
	}
	old := p.size()

	p.say(s.olga, s.suspension())
	for _, name := range []string{"bob", "carol"} {
		p.say(s.otto, &statement.Suspension{Target: statement.Target{Kind: statement.TargetPerson, Address: s.Address(name)}, Reason: "gone", Change: statement.NewID()})
	}
	eventually(t, "bulletin and checkpoint", func() bool { return s.settled(t, p, f) && !s.standing(f).Good() })
	size, head, number := p.size(), p.head(t), f.Set().Number()
	address := host(t, p)
	p.stop()

	restored, err := authority.Create(t.Context(), to)
	if err != nil {
		t.Fatal(err)
	}
	err = restored.Load(t.Context(), func() (io.Reader, error) { return bytes.NewReader(backup.Bytes()), nil }, time.Now())
	if err := errors.Join(err, restored.Close()); err != nil {
		t.Fatal(err)
	}
	f.stop() // nobody tells it anything yet
	p = s.start(options{database: to, address: address, heartbeat: time.Second})
	if p.size() != old || old >= size {
		t.Fatalf("the backup has %d leaves, the gateway %d", p.size(), size)
	}
	if err := p.tryAdd(ledger.KindStatement, s.otto.Sign(s.suspension())); !errors.Is(err, authority.ErrRestored) {
		t.Errorf("recorded before a gateway was asked: %v", err)
	}
	if p.bulletin() != 1 {
		t.Errorf("bulletin %d was signed before a gateway was asked", p.bulletin())
	}

	f = s.follow(p, f.path)
	eventually(t, "the end of the read-only state", func() bool {
		return p.store.View(context.Background(), (*authority.Tx).Writable) == nil
	})
	if got := p.headAt(t, size); got != head {
		t.Errorf("the first %d leaves are others than before: %v, were %v", size, got, head)
	}
	p.say(s.otto, &statement.Suspension{Target: statement.Target{Kind: statement.TargetPerson, Address: s.Address("dave")}, Reason: "gone", Change: statement.NewID()})
	if p.size() != size+1 {
		t.Errorf("%d leaves, want %d", p.size(), size+1)
	}
	eventually(t, "the next bulletin", func() bool { return f.Set().Number() > number && s.settled(t, p, f) })
	for _, name := range []string{"bob", "carol", "dave"} {
		if f.Set().Device([32]byte{5}, s.Address(name)).Good() {
			t.Errorf("%s came back", name)
		}
	}
	if now := s.standing(f); now.State != bulletin.Suspended || !now.Confirmed {
		t.Errorf("the suspended card: %+v", now)
	}
	if err := errors.Join(f.Check(t.Context()), p.feed.Check(t.Context())); err != nil {
		t.Error(err)
	}
}

// settled reports whether the gateway has everything that the authority recorded, under
// a checkpoint and a bulletin.
func (s *site) settled(t testing.TB, p *process, f *follower) bool {
	t.Helper()
	checkpoint, err := f.Checkpoint(t.Context())
	if err != nil {
		return false
	}
	_, head, err := ledger.ParseCheckpoint(checkpoint)
	return err == nil && head.N == p.size() && f.Set().Pending() == 0 && f.Set().Number() == p.bulletin()
}

func (p *process) head(t testing.TB) ledger.Head { return p.headAt(t, p.size()) }

func (p *process) headAt(t testing.TB, size int64) (head ledger.Head) {
	t.Helper()
	err := p.store.View(t.Context(), func(tx *authority.Tx) (err error) { head, err = tx.LedgerHeadAt(size); return err })
	if err != nil {
		t.Fatal(err)
	}
	return head
}

// Two processes on one database publish one row of bulletins between them, whichever
// of them recorded a statement; a gateway at either sees all.
func TestTwoProcessesPublish(t *testing.T) {
	for name, database := range databases {
		t.Run(name, func(t *testing.T) {
			s, path := newSite(t), database(t)
			one := s.start(options{database: path, heartbeat: time.Second})
			two := s.start(options{database: path, heartbeat: time.Second})
			processes := []*process{one, two}
			followers := []*follower{s.follow(one, ""), s.followAs(two.server.URL, "", "", s.Gateway("second.interieur.example"))}
			names := []string{"p0", "p1", "p2", "p3", "p4", "p5"}
			for i, name := range names {
				p := processes[i%2]
				p.say(s.otto, &statement.Suspension{Target: statement.Target{Kind: statement.TargetPerson, Address: s.Address(name)}, Reason: "gone", Change: statement.NewID()})
			}
			for i, f := range followers {
				eventually(t, "all suspensions at both gateways", func() bool {
					for _, name := range names {
						if f.Set().Device([32]byte{5}, s.Address(name)).Good() {
							return false
						}
					}
					return f.Set().Pending() == 0
				})
				if err := f.Check(t.Context()); err != nil {
					t.Errorf("gateway %d: %v", i, err)
				}
			}
			for _, p := range processes {
				if err := errors.Join(p.feed.Check(t.Context()), p.book.Damage()); err != nil {
					t.Error(err)
				}
			}
			if a, b := one.headAt(t, 8), two.headAt(t, 8); a != b { // founding, manifest, six
				t.Errorf("two records: %v and %v", a, b)
			}
		})
	}
}
