// SPDX-License-Identifier: Apache-2.0

package feed_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/tls"
	"database/sql"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"valise/bulletin"
	"valise/bulletin/stream"
	"valise/gateway/feed"
	"valise/internal/testenv/paper"
	"valise/ledger"
	"valise/statement"
)

// after is a bulletin made from a record, in which nothing is said against anybody.
func (s *site) after(number uint64, items ...ledger.Item) *bulletin.Bulletin {
	s.t.Helper()
	var tree ledger.Builder
	for _, i := range items {
		if err := tree.Add(i.Entry.Leaf()); err != nil {
			s.t.Fatal(err)
		}
	}
	b := s.Bulletin(number)
	b.LedgerSize, b.LedgerRoot = tree.Head().N, tree.Head().Hash
	for _, o := range []*paper.Officer{s.olga, s.otto} {
		b.Officers = append(b.Officers, bulletin.OfficerStanding{Key: o.ID, Address: o.Address, Role: o.Role, State: bulletin.Active})
	}
	if b.Officers[0].Key.Compare(b.Officers[1].Key) > 0 {
		b.Officers[0], b.Officers[1] = b.Officers[1], b.Officers[0]
	}
	return b
}

// A suspension that two officers ended does not come back as another leaf.
func TestReplayedLeaf(t *testing.T) {
	s := newSite(t)
	raw := s.olga.Sign(s.suspension())
	items := []ledger.Item{
		s.leaf(0, ledger.KindFounding, s.founding), s.leaf(1, ledger.KindManifest, s.first), s.leaf(2, ledger.KindStatement, raw),
	}
	events := []stream.Event{{Kind: stream.KindManifest, Body: s.first}}
	for _, i := range items {
		events = append(events, event(i))
	}
	events = append(events, stream.Event{Kind: stream.KindBulletin, Body: s.SignBulletin(s.after(1, items...))})
	for name, test := range map[string]struct {
		payload []byte
		good    bool
	}{
		"the same": {raw, true}, "honest control: another": {s.olga.Sign(s.suspension()), false},
	} {
		t.Run(name, func(t *testing.T) {
			s := *s
			s.t = t
			url, asked := s.serve(s.Server("127.0.0.1"), append(events, event(s.leaf(3, ledger.KindStatement, test.payload)))...)
			f := s.followAs(url, "", "", s.gateway)
			eventually(t, "the answer", func() bool { return asked.Load() > 1 })
			if s.standing(f).Good() != test.good {
				t.Errorf("%+v", s.standing(f))
			}
			f.stop()
			if f = s.follow(nil, f.path); s.standing(f).Good() != test.good {
				t.Errorf("after a restart: %+v", s.standing(f))
			}
		})
	}
}

// More statements than fit beside a bulletin hide no suspension behind them: the
// next bulletin makes room.
func TestFloodHidesNoSuspension(t *testing.T) {
	s := newSite(t)
	items := []ledger.Item{s.leaf(0, ledger.KindFounding, s.founding), s.leaf(1, ledger.KindManifest, s.first)}
	for len(items) < 2+4096 {
		items = append(items, s.leaf(int64(len(items)), ledger.KindStatement, s.otto.Sign(&statement.Roster{
			Change: statement.NewID(), Address: s.Address("p" + strconv.Itoa(len(items))), Name: "somebody",
		})))
	}
	events := []stream.Event{{Kind: stream.KindManifest, Body: s.first}}
	for _, i := range append(items, s.leaf(int64(len(items)), ledger.KindStatement, s.olga.Sign(s.suspension()))) {
		events = append(events, event(i))
	}
	events = append(events, stream.Event{Kind: stream.KindBulletin, Body: s.SignBulletin(s.after(1, items...))})
	url, _ := s.serveTimes(1, s.Server("127.0.0.1"), events...)
	f := s.followAs(url, "", "", s.gateway)
	for n := 512; n <= 4096; n += 512 { // they take their time where races are looked for
		eventually(t, "many statements", func() bool { return f.Set().Pending() >= n || f.Set().Number() == 1 })
	}
	eventually(t, "the bulletin", func() bool { return f.Set().Number() == 1 })
	eventually(t, "the suspension", func() bool { return !s.standing(f).Good() })
}

// obstruct has the disk refuse to keep anything in a table of a copy, until the
// returned function is called.
func obstruct(t *testing.T, path, table string) (clear func()) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(5000)")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	do := func(query string) {
		if _, err := db.ExecContext(t.Context(), query); err != nil {
			t.Fatal(err)
		}
	}
	do("CREATE TRIGGER obstructed BEFORE INSERT ON " + table + " BEGIN SELECT RAISE(ABORT, 'the disk is full'); END")
	return func() { do("DROP TRIGGER obstructed") }
}

// What is obeyed while the disk refuses to keep it is obeyed at once, and kept when
// the disk takes it again: its file stays where it is until then.
func TestObeyedWithoutDisk(t *testing.T) {
	for name, test := range map[string]struct {
		table    string
		document feed.Document
		raw      func(s *site) []byte
	}{
		"statement": {"statements", feed.DocumentStatement, func(s *site) []byte { return s.olga.Sign(s.suspension()) }},
		"bulletin": {"bulletins", feed.DocumentBulletin, func(s *site) []byte {
			b := s.after(2)
			b.Devices = []bulletin.DeviceStanding{{ID: s.alice.ID, State: bulletin.Suspended, Since: b.Time}}
			b.LedgerRoot = ledger.Empty.Hash
			return s.SignBulletin(b)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			spool := filepath.Join(t.TempDir(), "spool")
			f := s.followAs("", "", spool, s.gateway)
			put(t, spool, feed.DocumentManifest, s.first, nil)
			clear := obstruct(t, f.path, test.table)
			path, err := feed.Put(spool, test.document, test.raw(s))
			if err != nil {
				t.Fatal(err)
			}
			eventually(t, "the suspension", func() bool { return !s.standing(f).Good() })
			later, err := feed.Put(spool, feed.DocumentStatement, s.Officer("olaf", s.olga.Role).SignAt(s.suspension(), s.Start.AddDate(-1, 0, 0)))
			if err != nil {
				t.Fatal(err)
			}
			eventually(t, "a refusal of what comes after it", func() bool { done, err := feed.Outcome(later); return done && err != nil })
			if _, err := os.Stat(path); err != nil {
				t.Errorf("the file is gone: %v", err)
			}
			clear()
			eventually(t, "the spool", func() bool { done, err := feed.Outcome(path); return done && err == nil })
			f.stop()
			if f = s.follow(nil, f.path); s.standing(f).Good() {
				t.Error("forgotten after a restart")
			}
		})
	}
}

// A contradiction is still one after a restart, and the document that shows it is there.
func TestContradictionStays(t *testing.T) {
	s := newSite(t)
	spool := filepath.Join(t.TempDir(), "spool")
	f := s.followAs("", "", spool, s.gateway)
	put(t, spool, feed.DocumentManifest, s.first, nil)
	b := s.Bulletin(1)
	b.LedgerSize = 100 // of a record that the gateway has not seen
	put(t, spool, feed.DocumentBulletin, s.SignBulletin(b), nil)
	other := *b
	other.Next = other.Next.Add(time.Hour)
	raw := s.SignBulletin(&other)
	f.stop()
	f = s.followAs("", f.path, spool, s.gateway)
	if err := f.Check(t.Context()); errors.Is(err, feed.ErrFork) {
		t.Fatalf("honest control: %v", err)
	}
	put(t, spool, feed.DocumentBulletin, raw, feed.ErrRefused)
	f.stop()
	f = s.followAs("", f.path, spool, s.gateway)
	if err := f.Check(t.Context()); !errors.Is(err, feed.ErrFork) {
		t.Errorf("after a restart: %v", err)
	}
	evidence := f.path + ".contradiction"
	if kept, err := os.ReadFile(evidence); err != nil || !bytes.HasSuffix(kept, raw) {
		t.Errorf("the other bulletin was not kept: %v", err)
	}
	f.stop()
	if err := os.Remove(evidence); err != nil {
		t.Fatal(err)
	}
	f = s.followAs("", f.path, spool, s.gateway)
	if err := f.Check(t.Context()); errors.Is(err, feed.ErrFork) {
		t.Errorf("after somebody took it away: %v", err)
	}
}

// Where an authority sends a gateway elsewhere, it does not go.
func TestRedirection(t *testing.T) {
	s := newSite(t)
	asked := new(atomic.Int64)
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = stream.Write(w, stream.Event{Kind: stream.KindManifest, Body: s.first})
	}))
	t.Cleanup(elsewhere.Close)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere.URL, http.StatusSeeOther)
		asked.Add(1)
	}))
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{*s.Server("127.0.0.1")}}
	server.StartTLS()
	t.Cleanup(server.Close)
	f := s.followAs(server.URL, "", "", s.gateway)
	eventually(t, "the answer", func() bool { return asked.Load() > 1 })
	if raw, err := f.Manifest(t.Context()); err != nil || raw != nil {
		t.Errorf("told by somebody else: %.20q, %v", raw, err)
	}
}

// A gateway that starts between the manifest that replaces all keys and the first
// bulletin under them goes on with the bulletin that it has.
func TestRestartBetweenKeys(t *testing.T) {
	s := newSite(t)
	spool := filepath.Join(t.TempDir(), "spool")
	p := s.start(options{})
	p.say(s.olga, s.suspension())
	f := s.follow(p, "")
	eventually(t, "bulletin and checkpoint", func() bool {
		_, err := f.Checkpoint(t.Context())
		return err == nil && !s.standing(f).Good() && s.standing(f).Confirmed
	})
	f.stop()
	p.stop()
	_, first := s.First()
	fresh := *s.Authority
	fresh.BulletinKey = paper.NewKey(t)
	var err error
	if _, fresh.LedgerKey, err = ed25519.GenerateKey(nil); err != nil {
		t.Fatal(err)
	}
	f = s.followAs("", f.path, spool, s.gateway)
	number := f.Set().Number()
	put(t, spool, feed.DocumentManifest, s.SignRoot(fresh.Manifest(2, first.Digest())), nil)
	f.stop()
	f = s.followAs("", f.path, spool, s.gateway)
	if s.standing(f).Good() || f.Set().Number() != number {
		t.Errorf("bulletin %d, want %d: %+v", f.Set().Number(), number, s.standing(f))
	}
	b := fresh.Bulletin(number + 1)
	b.LedgerSize, b.LedgerRoot = f.Set().Bulletin().LedgerSize, f.Set().Bulletin().LedgerRoot
	put(t, spool, feed.DocumentBulletin, s.SignBulletin(b), feed.ErrRefused) // the lost key's
	put(t, spool, feed.DocumentBulletin, fresh.SignBulletin(b), nil)
}
