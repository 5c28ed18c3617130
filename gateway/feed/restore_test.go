// SPDX-License-Identifier: Apache-2.0

package feed_test

import (
	"context"
	"errors"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"valise/bulletin"
	"valise/gateway/feed"
	"valise/internal/store/authority"
	"valise/internal/testenv/paper"
	"valise/ledger"
	"valise/statement"
)

// host is where a process listens, so that the next one can listen there too.
func host(t testing.TB, p *process) string {
	t.Helper()
	u, err := url.Parse(p.server.URL)
	if err != nil {
		t.Fatal(err)
	}
	return u.Host
}

// flag marks a database as restored, as the restore command does.
func flag(t testing.TB, path string) {
	t.Helper()
	store, err := authority.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if err := store.Update(t.Context(), func(tx *authority.Tx) error { return tx.SetFlag(authority.FlagRestored, []byte("x")) }); err != nil {
		t.Fatal(err)
	}
}

// An old copy of the database is brought back, with or without being told that
// it is one. It revives nobody, uses no number twice, and does nothing before
// the gateway has told what it knows.
func TestRestore(t *testing.T) {
	for name, marked := range map[string]bool{"marked as restored": true, "copied back by hand": false} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			dir := t.TempDir()
			path, backup := filepath.Join(dir, "authority.db"), filepath.Join(dir, "backup.db")
			p := s.start(options{database: path})
			eventually(t, "the first bulletin", func() bool { return p.bulletin() == 1 })
			address := host(t, p)
			p.stop()
			copyFile(t, path, backup)

			p = s.start(options{database: path, address: address})
			f := s.follow(p, "")
			p.say(s.olga, s.suspension())
			p.say(s.otto, &statement.Suspension{Target: statement.Target{Kind: statement.TargetPerson, Address: s.Address("bob")}, Reason: "gone", Change: statement.NewID()})
			eventually(t, "bulletin and checkpoint", func() bool {
				checkpoint, err := f.Checkpoint(t.Context())
				if err != nil {
					return false
				}
				_, head, err := ledger.ParseCheckpoint(checkpoint)
				return err == nil && head.N == p.size() && f.Set().Pending() == 0 && s.standing(f).Confirmed && !s.standing(f).Good()
			})
			number, size := f.Set().Number(), p.size()
			f.stop()
			p.stop()

			if marked {
				flag(t, backup)
			}
			p = s.start(options{database: backup, address: address})
			if p.size() >= size {
				t.Fatal("the backup is not old")
			}
			if marked {
				if err := p.tryAdd(ledger.KindStatement, s.otto.Sign(s.suspension())); !errors.Is(err, authority.ErrRestored) {
					t.Errorf("a restored authority records: %v", err)
				}
			}
			f = s.follow(p, f.path)
			eventually(t, "what was missing", func() bool { return p.size() >= size })
			eventually(t, "the end of the read-only state", func() bool {
				return p.store.View(context.Background(), (*authority.Tx).Writable) == nil
			})
			if s.standing(f).Good() {
				t.Error("the suspended device came back")
			}
			p.say(s.otto, &statement.Suspension{Target: statement.Target{Kind: statement.TargetPerson, Address: s.Address("carol")}, Reason: "gone", Change: statement.NewID()})
			eventually(t, "the next bulletin", func() bool {
				return f.Set().Number() > number && !f.Set().Device([32]byte{5}, s.Address("carol")).Good()
			})
			if now := s.standing(f); now.State != bulletin.Suspended || !now.Confirmed {
				t.Errorf("after the restore: %+v", now)
			}
			if err := f.Check(t.Context()); err != nil {
				t.Error(err)
			}
			if err := p.feed.Check(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// Leaves that no checkpoint covered are given back too: a suspension of the last
// second before the disk died.
func TestRestoreTail(t *testing.T) {
	s := newSite(t)
	dir := t.TempDir()
	path, backup := filepath.Join(dir, "authority.db"), filepath.Join(dir, "backup.db")
	p := s.start(options{database: path})
	f := s.follow(p, "")
	eventually(t, "the first checkpoint", func() bool { _, err := f.Checkpoint(t.Context()); return err == nil && f.Set().Number() == 1 })
	address := host(t, p)
	p.stop()
	copyFile(t, path, backup)
	p = s.start(options{database: path, address: address, dead: true})
	p.say(s.olga, s.suspension())
	size := p.size()
	eventually(t, "the suspension on disk", func() bool {
		leaves, err := f.Leaves(t.Context(), 0, size)
		return err == nil && len(leaves) > 0 && !s.standing(f).Good()
	})
	p.stop()
	flag(t, backup)
	p = s.start(options{database: backup, address: address})
	eventually(t, "the lost leaf", func() bool { return p.size() == size })
	eventually(t, "the bulletin that knows it", func() bool { return s.standing(f).Confirmed && !s.standing(f).Good() })
}

// The same, in a database that nobody marked: the authority records something
// else in the lost leaf's place, and the suspension stays in force by itself.
func TestTailGivesWay(t *testing.T) {
	s := newSite(t)
	dir := t.TempDir()
	path, backup := filepath.Join(dir, "authority.db"), filepath.Join(dir, "backup.db")
	p := s.start(options{database: path})
	f := s.follow(p, "")
	eventually(t, "the first checkpoint", func() bool { _, err := f.Checkpoint(t.Context()); return err == nil && f.Set().Number() == 1 })
	address := host(t, p)
	p.stop()
	copyFile(t, path, backup)
	p = s.start(options{database: path, address: address, dead: true})
	p.say(s.olga, s.suspension())
	size := p.size()
	eventually(t, "the suspension on disk", func() bool {
		leaves, err := f.Leaves(t.Context(), 0, size)
		return err == nil && len(leaves) > 0 && !s.standing(f).Good()
	})
	p.stop()
	p = s.start(options{database: backup, address: address})
	p.say(s.otto, &statement.Suspension{Target: statement.Target{Kind: statement.TargetPerson, Address: s.Address("bob")}, Reason: "gone", Change: statement.NewID()})
	eventually(t, "the bulletin of the other leaf", func() bool {
		return f.Set().Number() > 1 && !f.Set().Device([32]byte{5}, s.Address("bob")).Good() && f.Set().Pending() == 1
	})
	if now := s.standing(f); now.Good() || now.Confirmed {
		t.Errorf("the lost suspension: %+v", now)
	}
	f.stop()
	f = s.follow(nil, f.path)
	if s.standing(f).Good() {
		t.Error("the lost suspension did not outlive a restart")
	}
}

// An authority with the same keys and another record is found out by both sides,
// and what was known stays in force.
func TestFork(t *testing.T) {
	s := newSite(t)
	p := s.start(options{})
	f := s.follow(p, "")
	p.say(s.olga, s.suspension())
	eventually(t, "the suspension and a checkpoint", func() bool {
		checkpoint, err := f.Checkpoint(t.Context())
		if err != nil {
			return false
		}
		_, head, err := ledger.ParseCheckpoint(checkpoint)
		return err == nil && head.N == p.size() && s.standing(f).Confirmed && !s.standing(f).Good()
	})
	address := host(t, p)
	p.stop()
	p = s.start(options{address: address}) // a new database
	for range 4 {                          // the gateway may come back in between, and then nothing more is recorded
		raw := s.otto.Sign(&statement.Suspension{Target: statement.Target{Kind: statement.TargetPerson, Address: s.Address("bob")}, Reason: "gone", Change: statement.NewID()})
		if p.tryAdd(ledger.KindStatement, raw) != nil {
			break
		}
	}
	eventually(t, "the authority's alarm", func() bool { return p.feed.Check(t.Context()) != nil })
	if s.standing(f).Good() {
		t.Error("the suspended device came back with the other record")
	}
}

// A gateway that is told another record than the one it holds keeps what it has
// and says so.
func TestGatewayFindsFork(t *testing.T) {
	s := newSite(t)
	p := s.start(options{})
	f := s.follow(p, "")
	p.say(s.olga, s.suspension())
	eventually(t, "the suspension", func() bool { return s.standing(f).Confirmed && !s.standing(f).Good() })
	f.stop()
	spool := t.TempDir()
	f = s.followAs("", f.path, spool, s.gateway)
	b := s.Bulletin(f.Set().Number() + 1)
	b.LedgerSize, b.LedgerRoot = f.Set().Bulletin().LedgerSize, [32]byte{1}
	put(t, spool, feed.DocumentBulletin, s.SignBulletin(b), feed.ErrRefused)
	if err := f.Check(t.Context()); !errors.Is(err, feed.ErrFork) {
		t.Errorf("health: %v", err)
	}
	if s.standing(f).Good() {
		t.Error("the suspended device came back")
	}
}

func put(t testing.TB, spool string, d feed.Document, raw []byte, want error) {
	t.Helper()
	path, err := feed.Put(spool, d, raw)
	if err != nil {
		t.Fatal(err)
	}
	var outcome error
	eventually(t, "the spool", func() bool {
		done, err := feed.Outcome(path)
		outcome = err
		return done
	})
	if !errors.Is(outcome, want) || (want == nil) != (outcome == nil) {
		t.Errorf("%s: %v, want %v", d, outcome, want)
	}
}

// Without any connection: manifest, bulletin and suspension come by hand.
func TestByHand(t *testing.T) {
	s := newSite(t)
	spool := filepath.Join(t.TempDir(), "spool")
	f := s.followAs("", "", spool, s.gateway)
	b := s.Bulletin(1)
	b.LedgerSize = 100 // of a record that the gateway has not seen
	for _, o := range []*paper.Officer{s.olga, s.otto} {
		b.Officers = append(b.Officers, bulletin.OfficerStanding{Key: o.ID, Address: o.Address, Role: o.Role, State: bulletin.Active})
	}
	if b.Officers[0].Key.Compare(b.Officers[1].Key) > 0 {
		b.Officers[0], b.Officers[1] = b.Officers[1], b.Officers[0]
	}
	raw := s.SignBulletin(b)
	other := paper.New(t, domain)
	put(t, spool, feed.DocumentBulletin, raw, feed.ErrRefused) // no manifest yet
	otherManifest, _ := other.First()
	put(t, spool, feed.DocumentManifest, otherManifest, feed.ErrRefused)
	put(t, spool, feed.DocumentManifest, s.first, nil)
	put(t, spool, feed.DocumentBulletin, other.SignBulletin(b), feed.ErrRefused)
	put(t, spool, feed.DocumentBulletin, raw, nil)
	if f.Set().Number() != 1 {
		t.Errorf("bulletin %d", f.Set().Number())
	}
	stranger := s.Officer("olaf", s.olga.Role)
	put(t, spool, feed.DocumentStatement, stranger.Sign(s.suspension()), feed.ErrRefused)
	put(t, spool, feed.DocumentStatement, s.olga.SignAt(s.suspension(), time.Now().Add(-2*time.Hour)), feed.ErrRefused)
	if !s.standing(f).Good() {
		t.Error("suspended by nobody")
	}
	put(t, spool, feed.DocumentStatement, s.olga.Sign(s.suspension()), nil)
	if s.standing(f).Good() {
		t.Error("a suspension by hand is not obeyed")
	}
	f.stop()
	f = s.followAs("", f.path, spool, s.gateway)
	if s.standing(f).Good() {
		t.Error("a suspension by hand did not outlive a restart")
	}
	cfg := feed.Config{Root: s.Root, Domain: domain}
	for name, test := range map[string]struct {
		d    feed.Document
		raw  []byte
		good bool
	}{
		"manifest":             {feed.DocumentManifest, s.first, true},
		"another's manifest":   {feed.DocumentManifest, otherManifest, false},
		"bulletin":             {feed.DocumentBulletin, raw, true},
		"manifest as bulletin": {feed.DocumentBulletin, s.first, false},
		"statement":            {feed.DocumentStatement, s.otto.Sign(s.suspension()), true},
		"another's statement":  {feed.DocumentStatement, other.Officer("olga", s.olga.Role).Sign(s.suspension()), false},
		"an invitation":        {feed.DocumentStatement, s.otto.Sign(&statement.Invitation{Address: s.alice.Address, Key: "k"}), false},
	} {
		if err := feed.CheckDocument(test.d, test.raw, cfg); (err == nil) != test.good {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Two processes on one database publish one line of bulletins between them.
func TestTwoProcesses(t *testing.T) {
	s := newSite(t)
	path := filepath.Join(t.TempDir(), "authority.db")
	a := s.start(options{database: path, heartbeat: time.Second})
	b := s.start(options{database: path, heartbeat: time.Second})
	f, g := s.follow(a, ""), s.followAs(b.server.URL, "", "", s.Gateway("second.interieur.example"))
	for i := range 6 {
		p := []*process{a, b}[i%2]
		p.say(s.olga, &statement.Suspension{Target: statement.Target{Kind: statement.TargetPerson, Address: s.Address("bob")}, Reason: "gone", Change: statement.NewID()})
	}
	eventually(t, "both gateways know", func() bool {
		return f.Set().Number() >= 4 && g.Set().Number() >= 4 && f.Set().Pending()+g.Set().Pending() == 0 &&
			!f.Set().Device([32]byte{1}, s.Address("bob")).Good() && !g.Set().Device([32]byte{1}, s.Address("bob")).Good()
	})
	for _, one := range []*follower{f, g} {
		if err := one.Check(t.Context()); err != nil {
			t.Error(err)
		}
	}
	// Every bulletin that either saw is the database's.
	for _, one := range []*follower{f, g} {
		raw, err := one.Bulletin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		number, err := bulletin.NumberOf(raw)
		if err != nil {
			t.Fatal(err)
		}
		if err := a.store.View(t.Context(), func(tx *authority.Tx) error {
			stored, err := tx.Bulletin(number)
			if err == nil && string(stored.JWS) != string(raw) {
				t.Errorf("bulletin %d exists twice", number)
			}
			return err
		}); err != nil {
			t.Error(err)
		}
	}
}
