// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"crypto/elliptic"
	"crypto/x509"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"valise/attest"
	"valise/enroll/book"
	"valise/enroll/enrolltest"
	"valise/identity"
	"valise/internal/store/authority"
	"valise/ledger"
	"valise/record"
	"valise/statement"
)

// A council is an office whose authority has officers, with one order that two of
// them have approved.
type council struct {
	*office
	*enrolltest.Ministry
	book *book.Book
}

func newCouncil(t *testing.T) *council {
	t.Helper()
	path := filepath.Join(t.TempDir(), "authority.db")
	store, err := authority.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	o := &office{store: store, path: path, key: newFakeKey(t, elliptic.P256()), vendor: enrolltest.NewVendor(t), policy: new(attest.AppraisalPolicy), now: time.Now()}
	c := &council{office: o, Ministry: enrolltest.NewMinistry(t, enrolltest.MinistryConfig{Vendor: o.vendor, IssuerKey: o.key, Now: o.now})}
	o.chain, o.card, o.alice = c.Chain(), o.vendor.Card(t, enrolltest.CardConfig{}), address(t, "alice@"+domain)
	c.book = c.openBook(t)
	err = c.book.Update(t.Context(), func(_ *authority.Tx, _ *record.State, add book.Append) error { return c.Open(add) })
	if err != nil {
		t.Fatal(err)
	}
	c.ca = c.start(t)
	line := &statement.Roster{Change: statement.NewID(), Address: o.alice, Name: "Alice", Clearance: enrolltest.Clearance(t, 1, 3)}
	c.say(t, c.Olga, line)
	c.say(t, c.Oscar, line)
	c.say(t, c.Olga, &statement.Invitation{Address: o.alice, Key: "kid-a"})
	o.order(t, "a")
	p, err := c.ca.Propose(t.Context(), "a")
	if err != nil || p.Missing == nil {
		t.Fatalf("got %+v, %v", p, err)
	}
	c.say(t, c.Olga, &p.Approval)
	c.say(t, c.Oscar, &p.Approval)
	o.key.signed.Store(0)
	return c
}

func (c *council) openBook(t testing.TB) *book.Book {
	t.Helper()
	b, err := book.Open(t.Context(), book.Config{Store: c.store, Root: c.Root, Now: func() time.Time { return c.now }})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (c *council) start(t testing.TB) *CA {
	t.Helper()
	made, err := New(Config{
		Store: c.store, Book: c.book, Domain: domain, Chain: c.chain, Signer: c.key, Device: Profile{Name: "device"}, Now: func() time.Time { return c.now },
	})
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func (c *council) say(t testing.TB, o *enrolltest.Officer, b statement.Body) {
	t.Helper()
	err := c.book.Update(t.Context(), func(_ *authority.Tx, _ *record.State, add book.Append) error {
		_, err := add(ledger.KindStatement, o.Sign(t, c.now, b))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (c *council) suspend(t testing.TB) {
	c.say(t, c.Otto, &statement.Suspension{
		Target: statement.Target{Kind: statement.TargetDevice, Device: c.card.ID(t)}, Reason: "lost", Change: statement.NewID(),
	})
}

// A suspension between any two steps keeps the certificate from everybody: what the
// token signed meanwhile is not kept.
func TestSuspendedBetweenTheSteps(t *testing.T) {
	for _, step := range []string{"", "built", "recorded", "signed"} {
		t.Run("at "+step, func(t *testing.T) {
			c := newCouncil(t)
			c.ca.interrupt = func(at string) error {
				if at == step {
					c.suspend(t)
				}
				return nil
			}
			i, err := c.ca.IssueDevice(t.Context(), "a")
			if step == "" {
				if err != nil || !i.Done() {
					t.Errorf("control: %v", err)
				}
				return
			}
			if record.ReasonOf(err) != record.DeviceSuspended {
				t.Errorf("got %v", err)
			}
			if found, err := c.ca.lookup(t.Context(), "order:a"); err == nil && found.Done() {
				t.Error("the certificate was kept")
			}
		})
	}
}

// After a crash the recorded certificate is signed only on approvals that are still
// what was recorded.
func TestRecordedStandsOnItsApprovals(t *testing.T) {
	for name, c := range map[string]struct {
		attack string
		want   func(err error) bool
	}{
		"control": {"", func(err error) bool { return err == nil }},
		"an approval changed": {"UPDATE leaves SET payload = x'00' WHERE id = 5", func(err error) bool {
			return record.ReasonOf(err) == record.WrongPayload
		}},
		"an approval taken out": {"DELETE FROM leaves WHERE id = 6", func(err error) bool {
			return record.ReasonOf(err) == record.Rewritten
		}},
	} {
		t.Run(name, func(t *testing.T) {
			o := newCouncil(t)
			o.key.fail.Store(true)
			var signing *SigningError
			if _, err := o.ca.IssueDevice(t.Context(), "a"); !errors.As(err, &signing) {
				t.Fatalf("got %v", err)
			}
			o.key.fail.Store(false)
			if c.attack != "" {
				o.forge(t, c.attack)
			}
			if _, err := o.ca.IssueDevice(t.Context(), "a"); !c.want(err) || err != nil && o.key.signed.Load() != 0 {
				t.Errorf("got %v, %d signatures", err, o.key.signed.Load())
			}
		})
	}
}

// A recorded certificate that a forger put there with a leaf of its own is not signed.
func TestPlantedIssuanceWithOfficers(t *testing.T) {
	c := newCouncil(t)
	c.key.fail.Store(true)
	_, _ = c.ca.IssueDevice(t.Context(), "a")
	c.key.fail.Store(false)
	f, err := c.ca.load(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	j, err := c.ca.decide(f)
	if err != nil {
		t.Fatal(err)
	}
	forged, err := c.ca.buildDevice(f, j)
	if err != nil {
		t.Fatal(err)
	}
	entry, err := ledger.NewEntry(ledger.KindIssuance, forged.TBS, c.now)
	if err != nil {
		t.Fatal(err)
	}
	c.forge(t, "UPDATE issuances SET tbs = ?, serial = ?, not_after = ?", forged.TBS, forged.Serial, forged.NotAfter.Unix())
	c.forge(t, "UPDATE leaves SET entry = ?, payload = ? WHERE id = (SELECT max(id) FROM leaves)", entry.Marshal(), forged.TBS)
	if _, err := c.ca.IssueDevice(t.Context(), "a"); !errors.Is(err, ErrStale) || c.key.signed.Load() != 0 {
		t.Errorf("got %v, %d signatures", err, c.key.signed.Load())
	}
}

// The CA of an authority with officers has no other way to a device's certificate:
// a CA that was opened without a record finds the officers by itself.
func TestOfficersAreNotForgotten(t *testing.T) {
	c := newCouncil(t)
	forgetful, err := New(Config{
		Store: c.store, Domain: domain, Chain: c.chain, Signer: c.key, Device: Profile{Name: "device"}, Now: func() time.Time { return c.now },
		Appraiser: &Appraiser{Endorsements: c.vendor.Endorsements(t), Policy: c.policy},
	})
	if err != nil {
		t.Fatal(err)
	}
	if !forgetful.HasOfficers() {
		t.Error("an authority with officers counts as lone")
	}
	if _, err := forgetful.IssueDevice(t.Context(), "a"); err != nil {
		t.Errorf("control: %v", err)
	}
	o := newCouncil(t)
	o.say(t, o.Otto, &statement.Refusal{Request: "a", Reason: "no"})
	if _, err := o.ca.IssueDevice(t.Context(), "a"); record.ReasonOf(err) != record.Refused {
		t.Errorf("got %v", err)
	}
}

// Nor is a gateway's: what waits for the token must be what the record holds.
func TestPlantedGatewayWithOfficers(t *testing.T) {
	for name, forge := range map[string]bool{"planted": true, "control": false} {
		t.Run(name, func(t *testing.T) {
			c := newCouncil(t)
			csr, names := enrolltest.CSR(t, enrolltest.NewKey(t)), []string{"gateway." + domain}
			c.key.fail.Store(true)
			_, _ = c.ca.IssueGateway(t.Context(), csr, names)
			c.key.fail.Store(false)
			left := c.recorded(t)
			if forge {
				other, old := left, parsed(t, left.TBS)
				template, err := (&identity.GatewayProfile{
					Name: names[0], PublicKey: old.PublicKey, Tier: identity.TierWitnessed, Serial: newSerial(), NotBefore: old.NotBefore, NotAfter: old.NotAfter,
				}).Template()
				if err != nil {
					t.Fatal(err)
				}
				tbs, err := c.ca.issuer.build(template)
				if err != nil {
					t.Fatal(err)
				}
				entry, err := ledger.NewEntry(ledger.KindIssuance, tbs, c.now)
				if err != nil {
					t.Fatal(err)
				}
				other.Serial = template.SerialNumber.Bytes()
				c.forge(t, "UPDATE issuances SET tbs = ?, serial = ?", tbs, other.Serial)
				c.forge(t, "UPDATE leaves SET entry = ?, payload = ? WHERE id = ?", entry.Marshal(), tbs, left.Leaf)
			}
			i, err := c.ca.IssueGateway(t.Context(), csr, names)
			if err != nil {
				t.Fatal(err)
			}
			if (i.Leaf != left.Leaf) != forge {
				t.Errorf("signed what stands at leaf %d, recorded at %d", i.Leaf, left.Leaf)
			}
			var known bool
			c.book.View(func(s *record.State) { _, known = s.Serial(i.Serial) })
			if !known {
				t.Error("a certificate that the record does not know was signed")
			}
		})
	}
}

// recorded is the gateway's certificate that waits for the token.
func (c *council) recorded(t *testing.T) (i authority.Issuance) {
	t.Helper()
	err := c.store.View(t.Context(), func(tx *authority.Tx) error {
		all, err := tx.Issuances()
		if err == nil {
			i = all[len(all)-1]
		}
		return err
	})
	if err != nil || i.Kind != record.KindGateway || i.Done() {
		t.Fatalf("got %+v, %v", i, err)
	}
	return i
}

func parsed(t *testing.T, tbs []byte) *x509.Certificate {
	t.Helper()
	cert, err := parseTBS(tbs)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}
