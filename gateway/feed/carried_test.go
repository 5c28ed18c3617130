// SPDX-License-Identifier: Apache-2.0

package feed_test

import (
	"bytes"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"valise/bulletin/stream"
	"valise/enroll/book"
	enroll "valise/enroll/feed"
	"valise/gateway/feed"
	"valise/internal/store/authority"
	"valise/ledger"
	"valise/statement"
)

// whole waits until checkpoint and bulletin cover the record, and writes it into a file.
func (p *process) export(t *testing.T, from int64) []byte {
	t.Helper()
	var file bytes.Buffer
	eventually(t, "checkpoint and bulletin of everything", func() bool {
		file.Reset()
		told, err := p.feed.Export(t.Context(), &file, from)
		if err != nil {
			t.Fatal(err)
		}
		return told.Checkpoint == told.Leaves && told.Leaves == p.size() && told.Known == told.Leaves
	})
	return file.Bytes()
}

// lay hands a file to a gateway, as the import command does, and waits for its answer.
func lay(t *testing.T, s *site, spool string, file []byte) error {
	t.Helper()
	if err := feed.CheckRecord(bytes.NewReader(file), feed.Config{Root: s.Root, Domain: domain}); err != nil {
		return err
	}
	path, err := feed.PutRecord(spool, bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	var outcome error
	eventually(t, "the gateway to look at the file", func() bool {
		done, err := feed.Outcome(path)
		outcome = err
		return done
	})
	return outcome
}

// carried is a gateway without a path to its authority.
func carried(t *testing.T, s *site) (*follower, string) {
	t.Helper()
	spool := filepath.Join(t.TempDir(), "spool")
	return s.followAs("", "", spool, s.gateway), spool
}

// A gateway that cannot reach its authority is told by files all that it would be told
// over a connection: who is suspended, what the record holds, and later what is new.
func TestCarriedRecord(t *testing.T) {
	s := newSite(t)
	p := s.start(options{})
	p.say(s.olga, s.suspension())
	file := p.export(t, 0)
	f, spool := carried(t, s)
	if err := lay(t, s, spool, file); err != nil {
		t.Fatal(err)
	}
	if got := s.standing(f); got.Good() || f.Set().Number() != p.bulletin() {
		t.Errorf("after the file: %+v, bulletin %d of %d", got, f.Set().Number(), p.bulletin())
	}
	text, err := f.Checkpoint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, head, err := ledger.ParseCheckpoint(text)
	if err != nil || head.N != p.size() {
		t.Errorf("the gateway serves a record of %d leaves, want %d: %v", head.N, p.size(), err)
	}
	// The next file begins where the last one's checkpoint ended.
	resumption := &statement.Resumption{
		Target: statement.Target{Kind: statement.TargetDevice, Device: s.alice.ID}, Reason: "found", Change: statement.NewID(),
	}
	before := p.size()
	p.say(s.olga, resumption)
	p.say(s.otto, resumption)
	news := p.export(t, before)
	if err := lay(t, s, spool, news); err != nil {
		t.Fatal(err)
	}
	if got := s.standing(f); !got.Good() {
		t.Errorf("after the second file: %+v", got)
	}
	if err := lay(t, s, spool, file); err != nil || !s.standing(f).Good() {
		t.Errorf("the first file again: %v, %+v", err, s.standing(f))
	}
	late, lateSpool := carried(t, s)
	if err := lay(t, s, lateSpool, news); err == nil || !strings.Contains(err.Error(), "leaf 0 is due") || !errors.Is(err, feed.ErrRefused) {
		t.Errorf("the second file without the first: %v", err)
	}
	if late.Set().Number() != 0 {
		t.Error("a bulletin of leaves that are missing is in force")
	}
}

// A file that was altered on its way is refused, wherever that was; so are one that is
// cut off and one of another authority.
func TestCarriedRecordAltered(t *testing.T) {
	s := newSite(t)
	p := s.start(options{})
	p.say(s.olga, s.suspension())
	file := p.export(t, 0)
	var at int
	for in := bytes.NewReader(file); in.Len() > 0; {
		e, err := stream.Read(in)
		if err != nil {
			t.Fatal(err)
		}
		at = len(file) - in.Len()
		bad := slices.Clone(file)
		bad[at-len(e.Body)/2-1] ^= 1
		f, spool := carried(t, s)
		if err := lay(t, s, spool, bad); err == nil {
			t.Errorf("a %v with one bit altered is taken in", e.Kind)
		}
		if e.Kind != stream.KindBulletin && f.Set().Number() != 0 {
			t.Errorf("behind an altered %v a bulletin came into force", e.Kind)
		}
		f.stop()
	}
	_, spool := carried(t, s)
	if err := lay(t, s, spool, file[:len(file)-1]); err == nil {
		t.Error("a file that is cut off is taken in")
	}
	other := newSite(t)
	if err := lay(t, s, spool, other.start(options{}).export(t, 0)); err == nil {
		t.Error("a file of another authority is taken in")
	}
	hello := append(bytes.Clone(file), 0x07, 0, 0, 0, 0)
	if err := lay(t, s, spool, hello); !errors.Is(err, stream.ErrMalformed) {
		t.Errorf("a heartbeat in a file: %v", err)
	}
}

// An authority that was restored, and that no gateway reaches, gets back by a file what
// it lost, and goes on; a file that was altered changes nothing.
func TestCarriedBack(t *testing.T) {
	s := newSite(t)
	dir := t.TempDir()
	path, backup := filepath.Join(dir, "authority.db"), filepath.Join(dir, "backup.db")
	p := s.start(options{database: path})
	eventually(t, "the first bulletin", func() bool { return p.bulletin() == 1 })
	p.stop()
	copyFile(t, path, backup)
	p = s.start(options{database: path})
	p.say(s.olga, s.suspension())
	file := p.export(t, 0)
	number, size := p.bulletin(), p.size()
	p.stop()
	f, spool := carried(t, s)
	if err := lay(t, s, spool, file); err != nil {
		t.Fatal(err)
	}
	var back bytes.Buffer
	if leaves, err := f.Export(t.Context(), &back); err != nil || leaves != size {
		t.Fatalf("%d leaves of %d, %v", leaves, size, err)
	}

	flag(t, backup)
	store, err := authority.Open(t.Context(), backup)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	// As the command does it: without a key.
	b, err := book.Open(t.Context(), book.Config{Store: store, Root: s.Root})
	if err != nil {
		t.Fatal(err)
	}
	restored, err := enroll.New(enroll.Config{Store: store, Book: b, Root: s.Root, Domain: domain})
	if err != nil {
		t.Fatal(err)
	}
	writable := func() bool { return store.View(t.Context(), (*authority.Tx).Writable) == nil }
	bad := bytes.Clone(back.Bytes())
	bad[len(bad)*3/4] ^= 1
	if _, err := restored.TakeBack(t.Context(), "gateway.interieur.example", bytes.NewReader(bad)); err == nil || writable() {
		t.Errorf("an altered file: %v", err)
	}
	taken, err := restored.TakeBack(t.Context(), "gateway.interieur.example", bytes.NewReader(back.Bytes()))
	if err != nil || taken == 0 || !writable() {
		t.Fatalf("%d leaves taken back, writable %v, %v", taken, writable(), err)
	}
	var newest authority.SignedBulletin
	if err := store.View(t.Context(), func(tx *authority.Tx) (err error) { newest, err = tx.LatestBulletin(); return err }); err != nil || newest.Number != number {
		t.Errorf("bulletin %d of %d, %v", newest.Number, number, err)
	}
	// What it says of people is in force again, and nothing is missing the second time.
	if taken, err := restored.TakeBack(t.Context(), "gateway.interieur.example", bytes.NewReader(back.Bytes())); err != nil || taken != 0 {
		t.Errorf("the file again: %d, %v", taken, err)
	}
}
