// SPDX-License-Identifier: Apache-2.0

package feed_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"math"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"valise/bulletin"
	"valise/bulletin/stream"
	enroll "valise/enroll/feed"
	"valise/gateway/feed"
	"valise/internal/testenv/paper"
	"valise/ledger"
	"valise/statement"
)

// serve answers every stream with the same events.
func (s *site) serve(certificate *tls.Certificate, events ...stream.Event) (url string, asked *atomic.Int64) {
	s.t.Helper()
	return s.serveTimes(math.MaxInt64, certificate, events...)
}

// serveTimes is serve for so many streams, and nothing for those that follow.
func (s *site) serveTimes(times int64, certificate *tls.Certificate, events ...stream.Event) (url string, asked *atomic.Int64) {
	s.t.Helper()
	var answer bytes.Buffer
	for _, e := range events {
		if err := stream.Write(&answer, e); err != nil {
			s.t.Fatal(err)
		}
	}
	asked = new(atomic.Int64)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked.Load() < times {
			_, _ = w.Write(answer.Bytes())
		}
		asked.Add(1)
	}))
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS13, ClientAuth: enroll.ClientAuth, Certificates: []tls.Certificate{*certificate}}
	server.StartTLS()
	s.t.Cleanup(server.Close)
	return server.URL, asked
}

func (s *site) leaf(index int64, kind ledger.Kind, payload []byte) ledger.Item {
	s.t.Helper()
	entry, err := ledger.NewEntry(kind, payload, time.Now())
	return ledger.Item{Index: index, Entry: paper.Must(s.t, entry, err), Payload: payload}
}

func event(i ledger.Item) stream.Event {
	return stream.Item{Index: i.Index, Entry: i.Entry.Marshal(), Payload: i.Payload}.Event()
}

// What an authority says that was taken over: documents are verified, leaves
// follow on one another, and a gateway believes nothing of the rest.
func TestHostileAuthority(t *testing.T) {
	s := newSite(t)
	other := paper.New(t, domain)
	founding, first := s.leaf(0, ledger.KindFounding, s.founding), s.leaf(1, ledger.KindManifest, s.first)
	var tree ledger.Builder
	for _, i := range []ledger.Item{founding, first} {
		if err := tree.Add(i.Entry.Leaf()); err != nil {
			t.Fatal(err)
		}
	}
	head := tree.Head()
	good := s.Bulletin(1)
	good.LedgerSize, good.LedgerRoot = head.N, head.Hash
	another := *good
	another.LedgerRoot = [32]byte{9}
	manifest := stream.Event{Kind: stream.KindManifest, Body: s.first}
	checkpoint := func(a *paper.Authority, h ledger.Head) stream.Event {
		return stream.Event{Kind: stream.KindCheckpoint, Body: a.Checkpoint(h)}
	}
	news := func(a *paper.Authority, b *bulletin.Bulletin) stream.Event {
		return stream.Event{Kind: stream.KindBulletin, Body: a.SignBulletin(b)}
	}
	rewritten := ledger.Item{Index: 1, Entry: first.Entry, Payload: s.founding}
	for name, test := range map[string]struct {
		events           []stream.Event
		number           uint64
		leaves, covered  int64
		forked, suspends bool
	}{
		"honest control": {[]stream.Event{manifest, event(founding), event(first), checkpoint(s.Authority, head), news(s.Authority, good)}, 1, 2, 2, false, false},
		"a suspension, and nothing is signed": {[]stream.Event{
			manifest, event(founding), event(first), event(s.leaf(2, ledger.KindStatement, s.olga.Sign(s.suspension()))),
		}, 0, 3, 0, false, true},
		"a stranger's suspension": {[]stream.Event{
			manifest, event(founding), event(first), event(s.leaf(2, ledger.KindStatement, other.Officer("olga", s.olga.Role).Sign(s.suspension()))),
		}, 0, 3, 0, false, false},
		"a forwarded suspension": {[]stream.Event{manifest, {Kind: stream.KindStatement, Body: s.olga.Sign(s.suspension())}}, 0, 0, 0, false, true},
		"a forwarded resumption": {[]stream.Event{manifest, {Kind: stream.KindStatement, Body: s.olga.Sign(&statement.Resumption{
			Target: s.suspension().Target, Reason: "x", Change: statement.NewID(),
		})}}, 0, 0, 0, false, false},
		"another's manifest":         {[]stream.Event{{Kind: stream.KindManifest, Body: other.SignRoot(other.Manifest(1, [32]byte{}))}, event(founding)}, 0, 0, 0, false, false},
		"a stranger's bulletin":      {[]stream.Event{manifest, event(founding), event(first), news(other, good)}, 0, 2, 0, false, false},
		"a stranger's checkpoint":    {[]stream.Event{manifest, event(founding), event(first), checkpoint(other, head)}, 0, 2, 0, false, false},
		"a checkpoint of more":       {[]stream.Event{manifest, event(founding), checkpoint(s.Authority, head)}, 0, 1, 0, false, false},
		"a checkpoint of others":     {[]stream.Event{manifest, event(founding), event(first), checkpoint(s.Authority, ledger.Head{N: 2, Hash: [32]byte{1}})}, 0, 2, 0, true, false},
		"a bulletin of others":       {[]stream.Event{manifest, event(founding), event(first), news(s.Authority, &another)}, 0, 2, 0, true, false},
		"a gap":                      {[]stream.Event{manifest, event(founding), event(s.leaf(2, ledger.KindManifest, s.first))}, 0, 1, 0, false, false},
		"another payload":            {[]stream.Event{manifest, event(founding), event(rewritten)}, 0, 1, 0, false, false},
		"a hello":                    {[]stream.Event{manifest, stream.Hello{}.Event(), event(founding)}, 0, 0, 0, false, false},
		"a covered leaf, changed":    {[]stream.Event{manifest, event(founding), event(first), checkpoint(s.Authority, head), event(s.leaf(1, ledger.KindManifest, s.first))}, 0, 2, 2, true, false},
		"bulletin before the leaves": {[]stream.Event{manifest, news(s.Authority, &another), event(founding), event(first)}, 1, 2, 0, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := *s
			s.t = t
			url, asked := s.serve(s.Server("127.0.0.1"), test.events...)
			f := s.followAs(url, "", "", s.gateway)
			eventually(t, "the answer", func() bool { return asked.Load() > 1 })
			if got := errors.Is(f.Check(t.Context()), feed.ErrFork); got != test.forked {
				t.Errorf("found a fork: %t, want %t", got, test.forked)
			}
			f.stop()
			f = s.followAs("", f.path, "", s.gateway)
			if got := f.Set().Number(); got != test.number {
				t.Errorf("bulletin %d, want %d", got, test.number)
			}
			leaves, err := f.Leaves(t.Context(), 0, test.leaves)
			if err != nil || int64(len(leaves)) != test.leaves {
				t.Errorf("%d leaves, %v", len(leaves), err)
			}
			if _, err := f.Leaves(t.Context(), 0, test.leaves+1); err == nil {
				t.Errorf("more than %d leaves", test.leaves)
			}
			var covered int64
			if text, err := f.Checkpoint(t.Context()); err == nil {
				_, h, err := ledger.ParseCheckpoint(text)
				if covered = h.N; err != nil {
					t.Error(err)
				}
			}
			if covered != test.covered {
				t.Errorf("a checkpoint of %d leaves, want %d", covered, test.covered)
			}
			if got := !s.standing(f).Good(); got != test.suspends {
				t.Errorf("suspended: %t, want %t", got, test.suspends)
			}
		})
	}
}

// A gateway speaks to nobody whose certificate is not of the pinned root and for
// the host.
func TestWrongServer(t *testing.T) {
	s := newSite(t)
	for name, certificate := range map[string]*tls.Certificate{
		"another authority's": paper.New(t, domain).Server("127.0.0.1"),
		"another host's":      s.Server("enroll.interieur.example"),
	} {
		url, wrong := s.serve(certificate, stream.Event{Kind: stream.KindManifest, Body: s.first})
		f := s.followAs(url, "", "", s.gateway)
		url, _ = s.serve(s.Server("127.0.0.1"), stream.Event{Kind: stream.KindManifest, Body: s.first})
		honest := s.followAs(url, "", "", s.gateway)
		eventually(t, "the honest control", func() bool { raw, err := honest.Manifest(t.Context()); return err == nil && raw != nil })
		if raw, err := f.Manifest(t.Context()); err != nil || raw != nil || wrong.Load() != 0 {
			t.Errorf("%s: asked %d times, %v", name, wrong.Load(), err)
		}
	}
}

// The page of health: no bulletin, a fresh one, one whose grace is over.
func TestStaleness(t *testing.T) {
	s := newSite(t)
	path := filepath.Join(t.TempDir(), "record.db")
	now := time.Now()
	open := func() *feed.Feed {
		f, err := feed.Open(t.Context(), feed.Config{Path: path, Root: s.Root, Domain: domain, Grace: time.Minute, Now: func() time.Time { return now }})
		return paper.Must(t, f, err)
	}
	f := open()
	if err := f.Check(t.Context()); err == nil || f.Stale() != bulletin.Missing {
		t.Errorf("without a bulletin: %v, %v", err, f.Stale())
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	p := s.start(options{heartbeat: 30 * time.Second})
	g := s.follow(p, path)
	eventually(t, "a bulletin", func() bool { return g.Set().Number() > 0 })
	g.stop()
	f = open()
	defer f.Close()
	next := f.Set().Bulletin().Next
	for _, test := range []struct {
		at   time.Time
		want bulletin.Staleness
		good bool
	}{
		{next, bulletin.Fresh, true}, {next.Add(time.Minute), bulletin.Late, true}, {next.Add(time.Minute + 1), bulletin.Stale, false},
	} {
		now = test.at
		if err := f.Check(t.Context()); (err == nil) != test.good || f.Stale() != test.want {
			t.Errorf("%v after it was due: %v, %v", test.at.Sub(next), f.Stale(), err)
		}
	}
}

// A copy that somebody changed on the disk is not taken up.
func TestChangedCopy(t *testing.T) {
	s := newSite(t)
	p := s.start(options{})
	f := s.follow(p, "")
	eventually(t, "a bulletin", func() bool { return f.Set().Number() == 1 })
	f.stop()
	for name, root := range map[string]*paper.Authority{"honest control": s.Authority, "another root": paper.New(t, domain)} {
		again, err := feed.Open(t.Context(), feed.Config{Path: f.path, Root: root.Root, Domain: domain})
		if (err == nil) != (name == "honest control") {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			err = again.Close()
		}
		if err != nil && errors.Is(err, feed.ErrFork) {
			t.Error(err)
		}
	}
}
