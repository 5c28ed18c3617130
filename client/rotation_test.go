// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"testing"
	"time"

	"valise/identity"
	"valise/ledger"
	"valise/manifest"
)

// rotate gives the authority new issuing and ledger keys. The former ones stand in the
// manifest with the end of their use, which is now.
func (s *shelf) rotate() {
	s.t.Helper()
	w, now := s.w, time.Now()
	key := newKey(s.t, elliptic.P256())
	template, err := identity.IssuerTemplate(identity.CAProfile{
		Domain: domain, PublicKey: key.Public(), Serial: serial(), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(1000 * time.Hour),
	})
	issuer := issue(s.t, template, err, w.root, key.Public(), w.rootKey)
	_, s.ledgerKey, _ = ed25519.GenerateKey(rand.Reader)
	m := &manifest.Manifest{
		Number: s.newest.Number + 1, Domain: domain, Time: now, Origin: ledger.Origin(domain), Bulletin: []manifest.Key{{SPKI: s.bulletin}},
		Issuers:  []manifest.Issuer{{Certificate: issuer.Raw}},
		Ledger:   []manifest.LedgerKey{{Public: s.ledgerKey.Public().(ed25519.PublicKey)}},
		Previous: s.newest.Digest(),
	}
	for _, i := range s.newest.Issuers {
		m.Issuers = append(m.Issuers, manifest.Issuer{Certificate: i.Certificate, Until: now})
	}
	for _, k := range s.newest.Ledger {
		m.Ledger = append(m.Ledger, manifest.LedgerKey{Public: k.Public, Until: now.Add(-time.Second)})
	}
	raw, err := manifest.Sign(context.Background(), w.rootKey, w.root, m)
	if err == nil {
		m, err = manifest.ParseManifest(raw, w.root)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	w.issuer, w.issuerKey = issuer, key
	s.mu.Lock()
	s.manifest, s.newest = raw, m
	s.mu.Unlock()
	s.publish()
}

// The authority's keys rotate, twice. Who is there goes on; who comes new is let in under
// the new keys; who was away during all of it finds its way by the root alone. A
// checkpoint under a former key counts no longer, and keeps somebody new out.
func TestAuthorityKeysRotate(t *testing.T) {
	w, s := ministry(t)
	alice, bob, carol := w.device("alice").reachable(), w.device("bob").reachable(), w.device("carol").reachable()
	conv := alice.with(t, bob)
	alice.says(conv, "before")
	bob.gets("before")
	if got := carol.refusedBy(bob); got != "" {
		t.Fatalf("control: %s", got)
	}
	carol.kill()
	former := s.ledgerKey
	s.rotate()
	s.rotate()
	alice.kill()
	alice.start()
	alice.says(conv, "after")
	bob.gets("before", "after")
	dave := w.device("dave").reachable()
	if got := alice.refusedBy(dave); got != "" {
		t.Errorf("a device of the new issuing key is refused: %s", got)
	}
	carol.start()
	if got := carol.refusedBy(dave); got != "" {
		t.Errorf("refused by a device that was away: %s", got)
	}
	if n := carol.number(); n != 3 {
		t.Errorf("it knows manifest %d", n)
	}

	carol.kill()
	w.stop()
	current := s.ledgerKey
	s.ledgerKey = former
	s.add([]byte("more"))
	s.publish()
	w.start()
	carol.start()
	carol.until("tells of the former key", func() bool { return carol.told(EventRecord, reasonCheckpoint) })
	carol.kill()
	w.stop()
	s.ledgerKey = current
	s.publish()
	w.start()
	carol.start()
	carol.until("tells that it is in order", func() bool { return carol.told(EventRecord, "") })
}

// number is that of the manifest that a device has.
func (d *device) number() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.known.manifest == nil {
		return 0
	}
	return d.known.manifest.Number
}
