// SPDX-License-Identifier: Apache-2.0

package enroll_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"testing"
	"time"

	"valise/attest"
	"valise/enroll/ca"
	"valise/record"
	"valise/statement"
)

// What CRL and OCSP say follows from the officers' statements alone.
func TestRecordedStandings(t *testing.T) {
	b := newBureau(t)
	p := b.enrolled()
	id, cert := certID(t, p.client.Fetch(p.Order)[0])
	standings := &ca.Recorded{View: b.book.View, Store: b.store}
	expect := func(when string, bad bool, reason int) {
		t.Helper()
		got, found, err := standings.Standing(t.Context(), id.Serial, b.clock.now())
		if err != nil || !found || got.Bad != bad || got.Reason != reason || bad == got.Since.IsZero() {
			t.Errorf("%s: %+v, %t, %v", when, got, found, err)
		}
		listed, err := standings.Listed(t.Context(), b.clock.now())
		if err != nil || (len(listed) == 1) != bad || bad && !bytes.Equal(listed[0].Serial, id.Serial) {
			t.Errorf("%s: listed %+v, %v", when, listed, err)
		}
	}
	expect("good", false, 0)
	target := statement.Target{Kind: statement.TargetDevice, Device: p.card.ID(t)}
	b.ok(b.Olga, &statement.Suspension{Target: target, Reason: "lost", Change: statement.NewID()})
	expect("suspended", true, 6)
	resumption := &statement.Resumption{Target: target, Reason: "found", Change: statement.NewID()}
	b.ok(b.Olga, resumption)
	expect("one officer wants it back", true, 6)
	b.ok(b.Oscar, resumption)
	expect("resumed", false, 0)
	person := statement.Target{Kind: statement.TargetPerson, Address: address(t, "alice")}
	b.ok(b.Otto, &statement.Revocation{Target: person, Reason: "left", Change: statement.NewID()})
	expect("the person is gone", true, 3)
	b.ok(b.Otto, &statement.Revocation{Target: target, Reason: "stolen", Change: statement.NewID()})
	if got, _, err := standings.Standing(t.Context(), id.Serial, b.clock.now()); err != nil || !got.Bad {
		t.Errorf("%+v, %v", got, err)
	}
	// Rows make nothing good: neither one that is taken away nor one that is changed.
	b.forge("UPDATE issuances SET kind = 'gateway'")
	if got, found, err := standings.Standing(t.Context(), id.Serial, b.clock.now()); err != nil || !found || !got.Bad {
		t.Errorf("with changed rows: %+v, %t, %v", got, found, err)
	}
	unknown := sha256.Sum256(id.Serial)
	if got, found, err := standings.Standing(t.Context(), unknown[:20], b.clock.now()); err != nil || found {
		t.Errorf("never issued: %+v, %v", got, err)
	}
	// It ceases to be listed when it has expired anyway.
	b.clock.move(cert.NotAfter.Sub(b.clock.now()) + time.Minute)
	if listed, err := standings.Listed(t.Context(), b.clock.now()); err != nil || len(listed) != 0 {
		t.Errorf("after its end: %+v, %v", listed, err)
	}
}

// An officer's certificate follows the office.
func TestRecordedStandingsOfOfficers(t *testing.T) {
	b := newBureau(t)
	standings := &ca.Recorded{View: b.book.View, Store: b.store}
	var serial []byte
	b.book.View(func(s *record.State) {
		o, _ := s.OfficerAt(b.Otto.Address)
		cert, err := x509.ParseCertificate(o.Certificate)
		if err != nil {
			t.Fatal(err)
		}
		serial = cert.SerialNumber.Bytes()
	})
	expect := func(when string, bad bool, reason int) {
		t.Helper()
		got, found, err := standings.Standing(t.Context(), serial, b.clock.now())
		if err != nil || !found || got.Bad != bad || got.Reason != reason {
			t.Errorf("%s: %+v, %t, %v", when, got, found, err)
		}
	}
	expect("in office", false, 0)
	b.ok(b.Anna, &statement.Suspension{Target: statement.Target{Kind: statement.TargetOfficer, Address: b.Otto.Address}, Reason: "unclear", Change: statement.NewID()})
	expect("suspended", true, 6)
	if listed, err := standings.Listed(t.Context(), b.clock.now()); err != nil || len(listed) != 1 || !bytes.Equal(listed[0].Serial, serial) {
		t.Errorf("listed: %+v, %v", listed, err)
	}
	b.ok(b.Anna, &statement.Dismissal{Change: statement.NewID(), Address: b.Otto.Address, Reason: "retired"})
	expect("dismissed", true, 9)
}

// A lone authority has nobody who could revoke: what it issued is good, and what it
// did not is unknown.
func TestUnrevokedStandings(t *testing.T) {
	s := newSite(t, options{})
	id, _ := certID(t, s.client().Enroll(s.invite("alice"), s.card())[0])
	standings := ca.Unrevoked{Store: s.store}
	if got, found, err := standings.Standing(t.Context(), id.Serial, s.clock.now()); err != nil || !found || got.Bad {
		t.Errorf("issued: %+v, %t, %v", got, found, err)
	}
	if _, found, err := standings.Standing(t.Context(), []byte{1, 2, 3}, s.clock.now()); err != nil || found {
		t.Errorf("never issued: %t, %v", found, err)
	}
}

// When officers change the appraisal policy, renewal information calls devices back.
func TestRenewalInfoWithOfficers(t *testing.T) {
	b := newBureau(t)
	p := b.enrolled()
	id, cert := certID(t, p.client.Fetch(p.Order)[0])
	if w, _ := b.renewalInfo(id.String()); !w.SuggestedWindow.Start.After(b.clock.now()) {
		t.Errorf("control: %+v", w)
	}
	policy, err := (&attest.AppraisalPolicy{MinFirmware: "5.7.1"}).Canonical()
	if err != nil {
		t.Fatal(err)
	}
	var previous [32]byte
	b.book.View(func(s *record.State) { previous = s.Appraisal().Previous })
	change := &statement.Appraisal{Change: statement.NewID(), Policy: policy, Previous: previous}
	b.ok(b.Anna, change)
	b.ok(b.Arno, change)
	if w, _ := b.renewalInfo(id.String()); !w.SuggestedWindow.End.Before(b.clock.now()) {
		t.Errorf("after a new policy: %+v for %s", w, cert.NotBefore)
	}
}
