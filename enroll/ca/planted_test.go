// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"crypto/elliptic"
	"crypto/x509"
	"database/sql"
	"errors"
	"testing"
	"time"

	"valise/identity"
	"valise/internal/store/authority"
	"valise/ledger"
)

// forge writes to the database as somebody does who has the file and nothing else.
func (o *office) forge(t *testing.T, query string, args ...any) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+o.path+"?_pragma=busy_timeout(5000)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	res, err := db.ExecContext(t.Context(), query, args...)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		t.Fatalf("%d rows changed: %v", n, err)
	}
}

// plant exchanges what is recorded for a reference, and with leaf its leaf as well.
func (o *office) plant(t *testing.T, kind string, i authority.Issuance, leaf bool) {
	t.Helper()
	o.forge(t, "UPDATE issuances SET tbs = ?, serial = ?, not_after = ? WHERE kind = ?",
		i.TBS, i.Serial, i.NotAfter.Unix(), kind)
	if !leaf {
		return
	}
	entry, err := ledger.NewIssuance(i.TBS)
	if err != nil {
		t.Fatal(err)
	}
	o.forge(t, "UPDATE leaves SET entry = ?, payload = ?", entry.Marshal(), i.TBS)
}

// crashAfterRecording leaves an order recorded and unsigned.
func (o *office) crashAfterRecording(t *testing.T, issue func() error) {
	t.Helper()
	crash := errors.New("crash")
	o.ca.interrupt = func(at string) error {
		if at == "recorded" {
			return crash
		}
		return nil
	}
	if err := issue(); !errors.Is(err, crash) {
		t.Fatalf("got %v", err)
	}
	o.ca = o.open(t)
}

// What waits for the token's signature comes from the database, which has no token:
// whoever writes there must not choose what is signed.
func TestPlantedCertificateIsNotSigned(t *testing.T) {
	cases := map[string]struct {
		leaf  bool
		spoil func(t *testing.T, o *office, f *facts)
	}{
		"without a leaf":  {false, func(*testing.T, *office, *facts) {}},
		"another address": {true, func(_ *testing.T, _ *office, f *facts) { f.account.Address = address(t, "minister@"+domain) }},
		"more clearance": {true, func(t *testing.T, _ *office, f *facts) {
			list, err := identity.NewClassList(1, 3, 5)
			if err != nil {
				t.Fatal(err)
			}
			f.person.Clearance = &identity.Clearance{PolicyID: f.person.Clearance.PolicyID, ClassList: list}
		}},
		"a longer life": {true, func(_ *testing.T, o *office, _ *facts) { o.ca.cfg.Device.Validity = 365 * day }},
		"from later on": {true, func(_ *testing.T, o *office, _ *facts) { o.now = o.now.Add(time.Hour) }},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			o := newOffice(t, elliptic.P256())
			o.order(t, "a")
			o.crashAfterRecording(t, func() error { _, err := o.ca.IssueDevice(t.Context(), "a"); return err })
			f, err := o.ca.load(t.Context(), "a")
			if err != nil {
				t.Fatal(err)
			}
			now := o.now
			c.spoil(t, o, f)
			j, err := o.ca.decide(f)
			if err != nil {
				t.Fatal(err)
			}
			forged, err := o.ca.buildDevice(f, j)
			if err != nil {
				t.Fatal(err)
			}
			o.now = now
			o.plant(t, "device", forged, c.leaf)
			o.ca = o.open(t)
			if i, err := o.ca.IssueDevice(t.Context(), "a"); !errors.Is(err, ErrStale) || i.Done() || o.key.signed.Load() != 0 {
				t.Errorf("got %v, %d signatures", err, o.key.signed.Load())
			}
		})
	}
	t.Run("an authority's", func(t *testing.T) {
		o := newOffice(t, elliptic.P256())
		o.order(t, "a")
		o.crashAfterRecording(t, func() error { _, err := o.ca.IssueDevice(t.Context(), "a"); return err })
		o.plant(t, "device", o.issuerTBS(t), true)
		if _, err := o.ca.IssueDevice(t.Context(), "a"); !errors.Is(err, ErrStale) || o.key.signed.Load() != 0 {
			t.Errorf("got %v, %d signatures", err, o.key.signed.Load())
		}
	})
	t.Run("control", func(t *testing.T) { // what a crash left is signed
		o := newOffice(t, elliptic.P256())
		o.order(t, "a")
		o.crashAfterRecording(t, func() error { _, err := o.ca.IssueDevice(t.Context(), "a"); return err })
		if _, err := o.ca.IssueDevice(t.Context(), "a"); err != nil {
			t.Error(err)
		}
	})
}

// issuerTBS is the certificate of an authority of the attacker's own.
func (o *office) issuerTBS(t *testing.T) authority.Issuance {
	t.Helper()
	serial := newSerial()
	template, err := identity.IssuerTemplate(identity.CAProfile{
		Domain: "other.example", PublicKey: newFakeKey(t, elliptic.P256()).Public(), Serial: serial,
		NotBefore: o.now.Add(-time.Minute), NotAfter: o.now.Add(day),
	})
	if err != nil {
		t.Fatal(err)
	}
	tbs, err := o.ca.issuer.build(template)
	if err != nil {
		t.Fatal(err)
	}
	return authority.Issuance{TBS: tbs, Serial: serial.Bytes(), NotAfter: template.NotAfter}
}

// The same for certificates without an order, which are renewed by themselves: the
// planted one is passed over, and an honest one is made.
func TestPlantedServerCertificateIsNotSigned(t *testing.T) {
	for name, forged := range map[string]bool{"planted": true, "control": false} {
		t.Run(name, func(t *testing.T) {
			o := newOffice(t, elliptic.P256())
			key := newFakeKey(t, elliptic.P256()).Public()
			names := []string{"enroll." + domain}
			o.crashAfterRecording(t, func() error { _, err := o.ca.IssueServer(t.Context(), key, names); return err })
			want := int64(1)
			if forged {
				o.plant(t, "server", o.issuerTBS(t), true)
				want = 2
			}
			i, err := o.ca.IssueServer(t.Context(), key, names)
			if err != nil {
				t.Fatal(err)
			}
			cert, err := x509.ParseCertificate(i.Certificate)
			if err != nil {
				t.Fatal(err)
			}
			if cert.IsCA || len(cert.DNSNames) != 1 || o.leaves(t) != want || o.key.signed.Load() != 1 {
				t.Errorf("authority: %v, names %v, %d leaves, %d signatures", cert.IsCA, cert.DNSNames, o.leaves(t), o.key.signed.Load())
			}
		})
	}
}

// What is recorded is judged again before it is signed: what was withdrawn since is
// not issued.
func TestRecordedCertificateIsJudgedAgain(t *testing.T) {
	cases := map[string]struct {
		change func(t *testing.T, o *office)
		check  func(err error) bool
	}{
		"control": {func(*testing.T, *office) {}, func(err error) bool { return err == nil }},
		"card denied": {
			func(_ *testing.T, o *office) { o.policy.Slots = []string{"82"} },
			func(err error) bool { var e *RefusedError; return errors.As(err, &e) && e.Reason == "slot" },
		},
		"clearance lowered": {func(t *testing.T, o *office) {
			o.exec(t, func(tx *authority.Tx) error {
				_, err := tx.PutPerson(authority.Person{Address: o.alice, Name: "Alice", Unit: "Cabinet", Changed: o.now})
				return err
			})
		}, func(err error) bool { return errors.Is(err, ErrStale) }},
		"evidence too old": {
			func(_ *testing.T, o *office) { o.now = o.now.Add(25 * time.Hour) },
			func(err error) bool { var e *RefusedError; return errors.As(err, &e) && e.Reason == "evidence_expired" },
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			o := newOffice(t, elliptic.P256())
			o.order(t, "a")
			o.crashAfterRecording(t, func() error { _, err := o.ca.IssueDevice(t.Context(), "a"); return err })
			c.change(t, o)
			if _, err := o.ca.IssueDevice(t.Context(), "a"); !c.check(err) || err != nil && o.key.signed.Load() != 0 {
				t.Errorf("got %v, %d signatures", err, o.key.signed.Load())
			}
		})
	}
}

// A policy says how long evidence may be used to issue (valid_hours): an order that
// waited longer is not issued on it.
func TestEvidenceExpires(t *testing.T) {
	for name, c := range map[string]struct {
		hours  int
		issued bool
	}{"default": {0, false}, "two days": {48, true}} {
		t.Run(name, func(t *testing.T) {
			o := newOffice(t, elliptic.P256())
			o.policy.ValidHours = c.hours
			o.order(t, "a")
			o.now = o.now.Add(25 * time.Hour)
			_, err := o.ca.IssueDevice(t.Context(), "a")
			var refused *RefusedError
			if c.issued != (err == nil) || err != nil && (!errors.As(err, &refused) || refused.Reason != "evidence_expired") {
				t.Errorf("got %v", err)
			}
		})
	}
}

func address(t *testing.T, s string) identity.Address {
	t.Helper()
	a, err := identity.ParseAddress(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}
