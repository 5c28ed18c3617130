// SPDX-License-Identifier: Apache-2.0

package feed_test

import (
	"errors"
	"path/filepath"
	"testing"

	"valise/bulletin/stream"
	"valise/gateway/feed"
	"valise/identity"
	"valise/internal/testenv/paper"
	"valise/ledger"
	"valise/policy/bundle"
	"valise/statement"
)

// A bundle's statements are verified where the record holds them: neither before
// they stand there, nor by what their officer became later.
func TestVerifyRecorded(t *testing.T) {
	s := newSite(t)
	anna := s.Officer("anna", identity.RoleAdministrator)
	s.founding = s.SignRoot(s.Founding(s.olga, s.otto, anna))
	p := s.start(options{})
	f := s.follow(p, "")
	eventually(t, "the first bulletin", func() bool { return f.Set().Number() == 1 })
	d := paper.NewDoctrine(t, "tlp")
	contents, _ := d.Bundle(1, d.Folder("", bundle.Domains{}))
	statements, _ := paper.SignBundle(t, contents, [32]byte{}, s.olga, s.otto)
	if _, err := f.VerifyRecorded(t.Context(), statements[0]); !errors.Is(err, feed.ErrUnrecorded) {
		t.Fatalf("before it is recorded: %v", err)
	}
	for _, raw := range statements {
		p.add(ledger.KindStatement, raw)
	}
	hash, err := contents.Hash()
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the bulletin that names it", func() bool { return f.Set().Bulletin().Bundle == hash })
	for _, raw := range statements {
		if _, err := f.VerifyRecorded(t.Context(), raw); err != nil {
			t.Errorf("recorded: %v", err)
		}
	}
	if all, err := f.BundleStatements(t.Context(), hash); err != nil || len(all) != 2 || string(all[1]) != string(statements[0]) {
		t.Errorf("the record holds %d statements about it: %v", len(all), err)
	}
	if all, err := f.BundleStatements(t.Context(), [32]byte{1}); err != nil || len(all) != 0 {
		t.Errorf("and %d about another: %v", len(all), err)
	}
	// The same officer, the same words, signed again: nowhere in the record.
	again, _ := paper.SignBundle(t, contents, [32]byte{}, s.olga)
	if _, err := f.VerifyRecorded(t.Context(), again[0]); !errors.Is(err, feed.ErrUnrecorded) {
		t.Errorf("another signature: %v", err)
	}
	// Who is dismissed later had signed while in office.
	p.say(anna, &statement.Suspension{
		Target: statement.Target{Kind: statement.TargetOfficer, Address: s.otto.Address}, Reason: "under inquiry", Change: statement.NewID(),
	})
	number := f.Set().Number()
	eventually(t, "the suspension", func() bool { return f.Set().Number() > number })
	if f.Set().Officer(s.otto.Address, s.otto.ID, s.otto.Role) == "active" {
		t.Fatal("the officer is in office still")
	}
	if _, err := f.VerifyRecorded(t.Context(), statements[1]); err != nil {
		t.Errorf("after the suspension: %v", err)
	}
}

// The gateway's copy of a record in which somebody out of office signs.
func TestVerifyRecordedOutOfOffice(t *testing.T) {
	s := newSite(t)
	d := paper.NewDoctrine(t, "tlp")
	contents, _ := d.Bundle(1, d.Folder("", bundle.Domains{}))
	statements, _ := paper.SignBundle(t, contents, [32]byte{}, s.olga, s.otto)
	suspension := s.olga.Sign(&statement.Suspension{
		Target: statement.Target{Kind: statement.TargetPerson, Address: s.otto.Address}, Reason: "away", Change: statement.NewID(),
	})
	for name, c := range map[string]struct {
		leaves [][]byte
		want   error
	}{
		"in office":     {[][]byte{statements[0], statements[1], suspension}, nil},
		"out of office": {[][]byte{suspension, statements[0], statements[1]}, feed.ErrRefused},
	} {
		t.Run(name, func(t *testing.T) {
			f := s.mirrored(t, c.leaves)
			if _, err := f.VerifyRecorded(t.Context(), statements[1]); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

// mirrored returns a feed whose authority told these leaves and a bulletin made
// from all of them.
func (s *site) mirrored(t *testing.T, payloads [][]byte) *follower {
	t.Helper()
	own := *s
	own.t = t
	items := []ledger.Item{own.leaf(0, ledger.KindFounding, s.founding), own.leaf(1, ledger.KindManifest, s.first)}
	for i, raw := range payloads {
		items = append(items, own.leaf(int64(i+2), ledger.KindStatement, raw))
	}
	events := []stream.Event{{Kind: stream.KindManifest, Body: s.first}}
	for _, i := range items {
		events = append(events, event(i))
	}
	events = append(events, stream.Event{Kind: stream.KindBulletin, Body: own.SignBulletin(own.after(1, items...))})
	url, _ := own.serve(own.Server("127.0.0.1"), events...)
	f := own.followAs(url, "", "", s.gateway)
	eventually(t, "the bulletin", func() bool { return f.Set().Number() == 1 })
	return f
}

// A gateway to which everything comes by hand believes the bulletin about officers.
func TestVerifyRecordedByHand(t *testing.T) {
	s := newSite(t)
	spool := filepath.Join(t.TempDir(), "spool")
	f := s.followAs("", "", spool, s.gateway)
	d := paper.NewDoctrine(t, "tlp")
	contents, _ := d.Bundle(1, d.Folder("", bundle.Domains{}))
	olaf := s.Officer("olaf", identity.RoleOfficer) // certified, and no officer any more
	statements, _ := paper.SignBundle(t, contents, [32]byte{}, s.olga, s.otto, olaf)
	if _, err := f.VerifyRecorded(t.Context(), statements[0]); !errors.Is(err, feed.ErrUnrecorded) {
		t.Errorf("without a bulletin: %v", err)
	}
	put(t, spool, feed.DocumentManifest, s.first, nil)
	put(t, spool, feed.DocumentBulletin, s.SignBulletin(s.after(1)), nil)
	for i, want := range []error{nil, nil, feed.ErrRefused} {
		if _, err := f.VerifyRecorded(t.Context(), statements[i]); !errors.Is(err, want) {
			t.Errorf("officer %d: %v, want %v", i, err, want)
		}
	}
	stranger := paper.New(t, domain).Officer("olga", identity.RoleOfficer)
	forged, _ := paper.SignBundle(t, contents, [32]byte{}, stranger)
	if _, err := f.VerifyRecorded(t.Context(), forged[0]); err == nil {
		t.Error("a stranger is believed")
	}
}
