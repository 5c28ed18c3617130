// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"valise/identity"
	"valise/ledger"
	"valise/manifest"
)

// A shelf is an authority's record in the hands of a gateway. What it proves is real;
// tests have it hold back, forget and forge.
type shelf struct {
	t         testing.TB
	w         *world
	ledgerKey ed25519.PrivateKey
	bulletin  []byte // SubjectPublicKeyInfo
	announcer *ecdsa.PrivateKey

	mu         sync.Mutex
	entries    []*ledger.Entry
	hashes     []tlog.Hash
	checkpoint []byte
	manifest   []byte
	newest     *manifest.Manifest
	silent     bool // growth is not published
	asked      int  // proofs given
	empty      bool // there is no manifest yet
	lies       bool // proofs are of entries that it makes up
	away       bool // nothing is found
	announced  []byte
	issue      uint64 // number of the bulletin
	clock      func() time.Time
	reach      bool     // bulletins say which record they were made from
	olga       *officer // named in bulletins; nil: none
}

var errNothing = errors.New("nothing is here")

// ministry is a world whose authority keeps a record: every device made in it is
// recorded and demands it.
func ministry(t testing.TB) (*world, *shelf) {
	t.Helper()
	w := newWorld(t)
	s := &shelf{t: t, w: w, clock: time.Now}
	_, s.ledgerKey, _ = ed25519.GenerateKey(rand.Reader)
	s.announcer = newKey(t, elliptic.P256())
	spki, err := x509.MarshalPKIXPublicKey(s.announcer.Public())
	if err != nil {
		t.Fatal(err)
	}
	s.bulletin = spki
	s.sign(1, w.issuer)
	w.record, w.demands, w.patience = s, true, 700*time.Millisecond
	w.issued = func(_ *device, leaf *x509.Certificate) { s.add(leaf.RawTBSCertificate); s.publish() }
	w.stop()
	w.start()
	return w, s
}

// sign makes the next manifest.
func (s *shelf) sign(number uint64, issuers ...*x509.Certificate) {
	s.t.Helper()
	m := &manifest.Manifest{
		Number: number, Domain: domain, Time: time.Now(), Origin: ledger.Origin(domain), Bulletin: []manifest.Key{{SPKI: s.bulletin}},
		Ledger: []manifest.LedgerKey{{Public: s.ledgerKey.Public().(ed25519.PublicKey)}},
	}
	for _, i := range issuers {
		m.Issuers = append(m.Issuers, manifest.Issuer{Certificate: i.Raw})
	}
	if number > 1 {
		m.Previous = s.newest.Digest()
	}
	raw, err := manifest.Sign(context.Background(), s.w.rootKey, s.w.root, m)
	if err == nil {
		m, err = manifest.ParseManifest(raw, s.w.root)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.manifest, s.newest = raw, m
}

// add records a certificate, publish signs a checkpoint.
func (s *shelf) add(tbs []byte) { s.record(ledger.KindIssuance, tbs) }

func (s *shelf) record(kind ledger.Kind, payload []byte) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	e, err := ledger.NewEntry(kind, payload, time.Now())
	if err != nil {
		s.t.Fatal(err)
	}
	s.append(e)
}

func (s *shelf) append(e *ledger.Entry) {
	hashes, err := ledger.Append(int64(len(s.entries)), e.Leaf(), s)
	if err != nil {
		s.t.Fatal(err)
	}
	s.hashes, s.entries = append(s.hashes, hashes...), append(s.entries, e)
}

func (s *shelf) publish() {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.silent {
		return
	}
	head, err := ledger.HeadOf(int64(len(s.entries)), s)
	if err == nil {
		s.checkpoint, err = ledger.SignCheckpoint(context.Background(), ledger.Origin(domain), head, s.ledgerKey)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// rewrite builds the tree of the first n entries anew; the first one has another salt.
func (s *shelf) rewrite(n int, change bool) {
	s.t.Helper()
	s.mu.Lock()
	old := s.entries[:n]
	s.entries, s.hashes = nil, nil
	for i, e := range old {
		copied := *e
		if i == 0 && change {
			copied.Salt[0] ^= 1
		}
		s.append(&copied)
	}
	s.mu.Unlock()
	s.publish()
}

// ReadHashes implements tlog.HashReader for whoever holds mu.
func (s *shelf) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	var out []tlog.Hash
	for _, i := range indexes {
		if i >= int64(len(s.hashes)) {
			return nil, errNothing
		}
		out = append(out, s.hashes[i])
	}
	return out, nil
}

func (s *shelf) Hashes(_ context.Context, indexes []int64) ([]tlog.Hash, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ReadHashes(indexes)
}

func (s *shelf) Leaves(context.Context, int64, int64) ([]ledger.Leaf, error) { return nil, errNothing }

func (s *shelf) Find(_ context.Context, subject [32]byte) (int64, *ledger.Entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	if s.away {
		return 0, nil, ledger.ErrYoung
	}
	if s.lies {
		e, err := ledger.NewEntry(ledger.KindIssuance, []byte("x"), time.Now())
		if err == nil {
			e.Subject = subject
		}
		return 0, e, err
	}
	for i, e := range slices.Backward(s.entries) {
		if e.Subject == subject {
			return int64(i), e, nil
		}
	}
	return 0, nil, ledger.ErrUnknown
}

func (s *shelf) Checkpoint(context.Context) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.checkpoint == nil {
		return nil, ledger.ErrYoung
	}
	return s.checkpoint, nil
}

func (s *shelf) Manifest(context.Context) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.empty {
		return nil, nil
	}
	return s.manifest, nil
}

func (s *shelf) Bulletin(context.Context) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.announced, nil
}

// size is of the tree that a device keeps a checkpoint of.
func (d *device) size() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.known.head.N
}

// told says whether an event of a kind with a reason is there.
func (d *device) told(kind, reason string) bool {
	return slices.ContainsFunc(d.all(), func(ev Event) bool { return ev.Kind == kind && ev.Reason == reason })
}

// refusedBy tries to write to somebody and returns the reason why they are not let in.
func (d *device) refusedBy(other *device) string {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conv, err := d.Direct(ctx, other.address)
	if err == nil {
		var id MessageID
		if id, err = d.Send(ctx, Draft{Conversation: conv, Text: "are you there?"}); err == nil {
			err = d.Wait(ctx, id)
		}
	}
	if err == nil {
		return ""
	}
	for _, ev := range d.all() {
		if ev.Kind == EventUnrecorded && ev.From == other.address.String() {
			return ev.Reason
		}
	}
	d.t.Fatalf("not refused because of the record: %v", err)
	return ""
}

// Who is in the record talks; the checkpoint is kept over a restart, and a certificate
// is looked up once.
func TestRecordedDevicesTalk(t *testing.T) {
	w, s := ministry(t)
	alice, bob := w.device("alice").reachable(), w.device("bob").reachable()
	conv := alice.with(t, bob)
	alice.says(conv, "hello")
	bob.gets("hello")
	if n := alice.size(); n != 2 {
		t.Errorf("alice keeps a checkpoint of %d leaves, want 2", n)
	}
	alice.restart()
	if n := alice.size(); n != 2 {
		t.Errorf("after a restart alice keeps a checkpoint of %d leaves, want 2", n)
	}
	carol := w.device("carol").reachable()
	s.mu.Lock()
	before := s.asked
	s.mu.Unlock()
	bob.says(conv, "again")
	alice.gets("again")
	s.mu.Lock()
	if s.asked != before {
		t.Errorf("%d more proofs were asked for members who are known", s.asked-before)
	}
	s.mu.Unlock()
	s.mu.Lock()
	before = s.asked
	s.mu.Unlock()
	dora := w.device("dora").reachable()
	four := dora.with(t, alice, bob, carol)
	dora.says(four, "to all")
	for _, d := range []*device{alice, bob, carol} {
		d.until("reads it", func() bool { return slices.Contains(d.texts(), "to all") })
	}
	s.mu.Lock()
	// Everybody looks up whom they did not know, 12 in all, and dora up to twice more,
	// who is younger than the trees that the others keep.
	if n := s.asked - before; n > 24 {
		t.Errorf("%d proofs were asked for", n)
	}
	s.mu.Unlock()
	three := alice.with(t, bob, carol)
	alice.says(three, "to both")
	carol.gets("to all", "to both")
	bob.gets("hello", "to all", "to both")
	if alice.told(EventRecord, reasonLedgerFork) || alice.told(EventUnrecorded, reasonNotInLedger) {
		t.Errorf("refusals in an honest world: %+v", alice.all())
	}
}

// Nobody adds a device whose certificate has no leaf, be it by the authority's own key.
func TestUnrecordedIsNotAdded(t *testing.T) {
	w, _ := ministry(t)
	alice := w.device("alice").reachable()
	record := w.issued
	w.issued = nil // in secret
	mallory := w.device("mallory").reachable()
	w.issued = record
	bob := w.device("bob").reachable()
	if got := alice.refusedBy(bob); got != "" {
		t.Fatalf("the honest control is refused: %s", got)
	}
	if got := alice.refusedBy(mallory); got != reasonNotInLedger {
		t.Errorf("refused with %q, want %s", got, reasonNotInLedger)
	}
	if texts := mallory.texts(); len(texts) > 0 {
		t.Errorf("mallory reads %q", texts)
	}
}

// A certificate that is recorded, and covered by a checkpoint a moment later, is waited
// for.
func TestYoungCertificateIsWaitedFor(t *testing.T) {
	w, s := ministry(t)
	w.patience = patience
	alice := w.device("alice").reachable()
	s.mu.Lock()
	s.silent = true
	s.mu.Unlock()
	dora := w.device("dora").reachable()
	conv := alice.with(t, dora)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	id, err := alice.Send(ctx, Draft{Conversation: conv, Text: "welcome"})
	if err != nil {
		t.Fatal(err)
	}
	alice.until("asks for the young certificate", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.asked > 0
	})
	s.mu.Lock()
	s.silent = false
	s.mu.Unlock()
	s.publish()
	if err := alice.Wait(ctx, id); err != nil {
		t.Fatal(err)
	}
	dora.gets("welcome")
}

// A member without a leaf, added by somebody who does not look, is refused by those who
// do: the group goes on without it, in a successor.
func TestUnrecordedIsNotAccepted(t *testing.T) {
	w, _ := ministry(t)
	record := w.issued
	w.issued = func(d *device, leaf *x509.Certificate) { d.careless = true; record(d, leaf) }
	alice := w.device("alice").reachable()
	w.issued = record
	bob, carol := w.device("bob").reachable(), w.device("carol").reachable()
	conv := alice.with(t, bob, carol)
	alice.says(conv, "before")
	bob.gets("before")
	carol.gets("before")
	w.issued = func(d *device, _ *x509.Certificate) { d.careless = true }
	mallory := w.device("mallory").reachable()

	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := alice.Add(ctx, conv, mallory.address); err != nil {
		t.Fatal(err)
	}
	for _, d := range []*device{bob, carol} {
		d.until("refuses mallory", func() bool { return d.told(EventUnrecorded, reasonNotInLedger) })
	}
	if !w.reported(reasonNotInLedger) {
		t.Errorf("not in the audit stream: %q", w.reports)
	}
	bob.says(conv, "without mallory")
	carol.gets("before", "without mallory")
	if texts := mallory.texts(); slices.Contains(texts, "without mallory") {
		t.Errorf("mallory reads %q", texts)
	}
}

// A Welcome into a group with a member without a leaf is refused as well.
func TestUnrecordedDoesNotInvite(t *testing.T) {
	w, _ := ministry(t)
	bob := w.device("bob").reachable()
	w.issued = func(d *device, _ *x509.Certificate) { d.careless = true }
	mallory := w.device("mallory").reachable()
	conv := mallory.with(t, bob)
	mallory.says(conv, "trust me")
	bob.until("refuses mallory", func() bool { return bob.told(EventUnrecorded, reasonNotInLedger) })
	if texts := bob.texts(); len(texts) > 0 {
		t.Errorf("bob reads %q", texts)
	}
	if !w.reported(reasonNotInLedger) {
		t.Errorf("not in the audit stream: %q", w.reports)
	}
}

// What was shown once does not go back, on this or any other connection: whoever is in
// a group stays in it, and nobody new comes in until the record is in order again.
func TestRecordNeverGoesBack(t *testing.T) {
	issuer := func(w *world) *x509.Certificate {
		p := identity.CAProfile{
			Domain: domain, PublicKey: newKey(w.t, elliptic.P256()).Public(), Serial: serial(),
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(1000 * time.Hour),
		}
		template, err := identity.IssuerTemplate(p)
		return issue(w.t, template, err, w.root, p.PublicKey, w.rootKey)
	}
	for _, c := range []struct {
		reason string
		spoil  func(w *world, s *shelf)
		repair func(w *world, s *shelf) // nil: there is no way back
	}{
		{reasonLedgerFork, func(_ *world, s *shelf) { s.rewrite(len(s.entries), true); s.add([]byte("more")); s.publish() }, nil},
		{reasonLedgerFork, func(_ *world, s *shelf) { s.rewrite(len(s.entries), true) }, nil},
		{reasonLedgerRollback, func(_ *world, s *shelf) { s.rewrite(1, false) }, nil},
		{reasonCheckpoint, func(_ *world, s *shelf) {
			honest := s.ledgerKey
			_, s.ledgerKey, _ = ed25519.GenerateKey(rand.Reader)
			s.add([]byte("more"))
			s.publish()
			s.ledgerKey = honest
		}, func(_ *world, s *shelf) { s.publish() }},
		{reasonManifestRollback, func(w *world, s *shelf) { s.newest = nil; s.sign(1, w.issuer) }, nil},
		{reasonManifestFork, func(w *world, s *shelf) { s.sign(2, w.issuer, issuer(w)) }, nil},
		{reasonManifest, func(_ *world, s *shelf) { s.manifest[len(s.manifest)-9] ^= 1 }, func(_ *world, s *shelf) { s.manifest[len(s.manifest)-9] ^= 1 }},
		{reasonNoRecord, func(w *world, _ *shelf) { w.record = nil }, func(w *world, s *shelf) { w.record = s }},
	} {
		t.Run(c.reason, func(t *testing.T) {
			w, s := ministry(t)
			s.sign(2, w.issuer)
			alice, bob, carol := w.device("alice").reachable(), w.device("bob").reachable(), w.device("carol").reachable()
			conv := alice.with(t, bob)
			alice.says(conv, "before")
			bob.gets("before")
			kept := alice.size()
			for _, d := range []*device{alice, bob, carol} {
				d.kill()
			}
			w.stop()
			c.spoil(w, s)
			w.start()
			for _, d := range []*device{alice, bob, carol} {
				d.start()
			}
			alice.until("tells of "+c.reason, func() bool { return alice.told(EventRecord, c.reason) })
			if n := alice.size(); n != kept {
				t.Errorf("alice keeps a checkpoint of %d leaves, had %d", n, kept)
			}
			alice.says(conv, "still here")
			bob.gets("before", "still here")
			if got := alice.refusedBy(carol.reachable()); got != c.reason {
				t.Errorf("carol is refused with %q, want %s", got, c.reason)
			}
			alice.mu.Lock()
			evidence := alice.known.cell.Evidence
			alice.mu.Unlock()
			if (evidence != "") != (c.reason == reasonLedgerFork) {
				t.Errorf("the evidence kept is %q", evidence)
			}
			if c.repair == nil {
				return
			}
			alice.kill()
			w.stop()
			c.repair(w, s)
			w.start()
			alice.start()
			alice.until("tells that it is in order", func() bool { return alice.told(EventRecord, "") })
			if got := alice.refusedBy(carol); got != "" {
				t.Errorf("after the repair: %s", got)
			}
		})
	}
}

// A gateway whose copy is not there yet is no trouble; whoever is to be added waits for
// it.
func TestFreshGatewayIsWaitedFor(t *testing.T) {
	w, s := ministry(t)
	w.patience = patience
	s.empty, s.silent = true, true
	alice, bob := w.device("alice").reachable(), w.device("bob").reachable()
	conv := alice.with(t, bob)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	id, err := alice.Send(ctx, Draft{Conversation: conv, Text: "first"})
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.empty = false
	s.mu.Unlock()
	alice.until("has the manifest", func() bool {
		alice.mu.Lock()
		defer alice.mu.Unlock()
		return alice.known.manifest != nil
	})
	s.mu.Lock()
	s.silent = false
	s.mu.Unlock()
	s.publish()
	if err := alice.Wait(ctx, id); err != nil {
		t.Fatal(err)
	}
	bob.gets("first")
	for _, ev := range alice.all() {
		if ev.Kind == EventRecord || ev.Kind == EventUnrecorded {
			t.Errorf("told of trouble: %+v", ev)
		}
	}
}

// A gateway that claims a leaf has to prove it.
func TestProofMustHold(t *testing.T) {
	w, s := ministry(t)
	alice := w.device("alice").reachable()
	record := w.issued
	w.issued = nil
	mallory := w.device("mallory").reachable()
	w.issued = record
	s.mu.Lock()
	s.lies = true
	s.mu.Unlock()
	if got := alice.refusedBy(mallory); got != reasonProof {
		t.Errorf("refused with %q, want %s", got, reasonProof)
	}
}

// A certificate of an issuer that the root certified and no manifest names opens
// nothing, although it is recorded.
func TestIssuerMustBeNamed(t *testing.T) {
	w, s := ministry(t)
	alice := w.device("alice").reachable()
	named := w.issuer
	key := newKey(t, elliptic.P256())
	template, err := identity.IssuerTemplate(identity.CAProfile{
		Domain: domain, PublicKey: key.Public(), Serial: serial(), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(1000 * time.Hour),
	})
	w.issuer, w.issuerKey = issue(t, template, err, w.root, key.Public(), w.rootKey), key
	stray := w.device("stray").reachable()
	if got := alice.refusedBy(stray); got != reasonIssuerNotNamed {
		t.Errorf("refused with %q, want %s", got, reasonIssuerNotNamed)
	}
	s.sign(2, named, w.issuer)
	if got := alice.refusedBy(stray); got != "" {
		t.Errorf("refused with %q although the manifest names the issuer now", got)
	}
}

// Where nobody told a device that its authority keeps a record, the first manifest does,
// for ever.
func TestRecordIsRememberedOnceSeen(t *testing.T) {
	w := newWorld(t)
	s := &shelf{t: t, w: w, clock: time.Now}
	_, s.ledgerKey, _ = ed25519.GenerateKey(rand.Reader)
	spki, err := x509.MarshalPKIXPublicKey(newKey(t, elliptic.P256()).Public())
	if err != nil {
		t.Fatal(err)
	}
	s.bulletin = spki
	w.optional = true
	w.patience = 700 * time.Millisecond
	alice, bob := w.device("alice").reachable(), w.device("bob").reachable()
	if got := alice.refusedBy(bob); got != "" {
		t.Fatalf("refused with %q where there is no record", got)
	}
	s.sign(1, w.issuer)
	s.add([]byte("something"))
	s.publish()
	for _, record := range []*shelf{s, nil} {
		alice.kill()
		w.stop()
		w.record = nil
		want := reasonNoRecord
		if record != nil {
			w.record, want = record, reasonNotInLedger
		}
		w.start()
		alice.start()
		carol := w.device(fmt.Sprint("carol", len(want))).reachable()
		if got := alice.refusedBy(carol); got != want {
			t.Errorf("refused with %q, want %s", got, want)
		}
	}
}
