// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"valise/attest"
	"valise/enroll/enrolltest"
	"valise/identity"
	"valise/internal/store/authority"
)

const domain = "interieur.example"

// fakeKey counts signatures and fails when told. It is the double of an HSM that can
// be away or lie, which a real one cannot be made to on command.
type fakeKey struct {
	*ecdsa.PrivateKey
	signed atomic.Int64
	fail   atomic.Bool
	lie    atomic.Bool
}

func (k *fakeKey) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if k.fail.Load() {
		return nil, errors.New("token is away")
	}
	k.signed.Add(1)
	if k.lie.Load() {
		digest = bytes.Repeat([]byte{1}, len(digest))
	}
	return k.PrivateKey.Sign(r, digest, opts)
}

func newFakeKey(t testing.TB, c elliptic.Curve) *fakeKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &fakeKey{PrivateKey: key}
}

// An office is a CA with one order that is ready to be issued.
type office struct {
	ca     *CA
	store  *authority.Store
	path   string // of the database
	key    *fakeKey
	vendor *enrolltest.Vendor
	card   *enrolltest.Card
	alice  identity.Address
	policy *attest.AppraisalPolicy
	chain  []*x509.Certificate
	now    time.Time
}

func newOffice(t testing.TB, curve elliptic.Curve) *office {
	t.Helper()
	path := filepath.Join(t.TempDir(), "authority.db")
	store, err := authority.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	o := &office{
		store: store, path: path, key: newFakeKey(t, curve), vendor: enrolltest.NewVendor(t),
		policy: new(attest.AppraisalPolicy), now: time.Now(),
	}
	root, issuing, err := Found(domain, newFakeKey(t, curve), o.key, o.now)
	if err != nil {
		t.Fatal(err)
	}
	o.key.signed.Store(0)
	o.chain = []*x509.Certificate{issuing, root}
	o.card = o.vendor.Card(t, enrolltest.CardConfig{Curve: curve})
	o.ca = o.open(t)
	if o.alice, err = identity.ParseAddress("alice@" + domain); err != nil {
		t.Fatal(err)
	}
	return o
}

// open makes another CA on the same database, as a process after a crash does.
func (o *office) open(t testing.TB) *CA {
	t.Helper()
	c, err := New(Config{
		Store: o.store, Domain: domain, Chain: o.chain, Signer: o.key,
		Appraiser: &Appraiser{Endorsements: o.vendor.Endorsements(t), Policy: o.policy},
		Device:    Profile{Name: "device"}, Now: func() time.Time { return o.now },
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// order stores an order that is "processing", with honest evidence.
func (o *office) order(t testing.TB, id string) {
	t.Helper()
	address := o.alice
	device := o.card.ID(t)
	ctx := t.Context()
	err := o.store.Update(ctx, func(tx *authority.Tx) error {
		list, err := identity.NewClassList(1, 3)
		if err != nil {
			return err
		}
		_, err = tx.PutPerson(authority.Person{
			Address: address, Name: "Alice", Unit: "Cabinet", Changed: o.now,
			Clearance: &identity.Clearance{PolicyID: []int{1, 3, 6, 1, 4, 1, 99999, 1}, ClassList: list},
		})
		if err != nil {
			return err
		}
		if err := tx.AddInvitation(authority.Invitation{KID: "kid-" + id, Key: []byte("k"), Address: address, Created: o.now, Expires: o.now.Add(time.Hour)}); err != nil {
			return err
		}
		account, err := tx.AddAccount(authority.Account{Thumbprint: "thumb-" + id, JWK: []byte("{}"), Address: address, KID: "kid-" + id, Status: authority.Valid, Created: o.now})
		if err != nil {
			return err
		}
		if err := tx.BindAccount(account, device); err != nil {
			return err
		}
		order := authority.Order{ID: id, Account: account, Device: device, Profile: "device", Status: authority.Ready, Created: o.now, Expires: o.now.Add(time.Hour)}
		authz := authority.Authorization{ID: "authz-" + id, Order: id, Token: "token-" + id, Status: authority.Pending, Expires: order.Expires}
		if err := tx.AddOrder(order, authz); err != nil {
			return err
		}
		authz.Status, authz.Validated = authority.Valid, o.now
		authz.Evidence = o.card.Answer(t, "token-"+id+".thumb-"+id)
		authz.Result = []byte(`{"verdict":"accepted"}`)
		if err := tx.CloseAuthorization(authz); err != nil {
			return err
		}
		return tx.FinalizeOrder(id, enrolltest.CSR(t, o.card.Key))
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (o *office) leaves(t testing.TB) (n int64) {
	t.Helper()
	err := o.store.View(t.Context(), func(tx *authority.Tx) (err error) { n, err = tx.LedgerSize(); return err })
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (o *office) status(t testing.TB, id string) string {
	t.Helper()
	var order authority.Order
	err := o.store.View(t.Context(), func(tx *authority.Tx) (err error) { order, err = tx.Order(id); return err })
	if err != nil {
		t.Fatal(err)
	}
	return order.Status
}

func (o *office) exec(t testing.TB, f func(tx *authority.Tx) error) {
	t.Helper()
	if err := o.store.Update(t.Context(), f); err != nil {
		t.Fatal(err)
	}
}

func curves() map[string]elliptic.Curve {
	return map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384()}
}

// The certificate is what DESIGN promises: it passes package identity's check, holds
// what the roster and the evidence say, and stands in the ledger.
func TestIssueDevice(t *testing.T) {
	for name, curve := range curves() {
		t.Run(name, func(t *testing.T) {
			o := newOffice(t, curve)
			o.order(t, "a")
			i, err := o.ca.IssueDevice(t.Context(), "a")
			if err != nil {
				t.Fatal(err)
			}
			chain := append([][]byte{i.Certificate}, o.ca.Chain()...)
			trust := identity.NewTrust(identity.Authority{Domain: domain, Roots: []*x509.Certificate{o.ca.Root()}})
			device, err := trust.Device(chain, o.now)
			if err != nil {
				t.Fatal(err)
			}
			issuedAt, err := identity.IssuedAt(chain)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := trust.Device(chain, issuedAt); err != nil {
				t.Errorf("as of its first moment: %v", err)
			}
			if device.Address != o.alice || device.ID != o.card.ID(t) || device.Tier != identity.TierHardware {
				t.Errorf("got %+v", device)
			}
			if device.Clearance == nil || fmt.Sprint(device.Clearance.Classes()) != "[1 3]" {
				t.Errorf("clearance %v", device.Clearance)
			}
			if device.Appraisal.EvidenceHash != o.card.Evidence.Hash() {
				t.Error("the certificate names other evidence")
			}
			if life := device.Leaf.NotAfter.Sub(o.now); life > 7*day || life < 7*day-time.Minute {
				t.Errorf("valid for %v", life)
			}
			if o.status(t, "a") != authority.Valid || o.leaves(t) != 1 {
				t.Errorf("order %s, %d leaves", o.status(t, "a"), o.leaves(t))
			}
			err = o.store.View(t.Context(), func(tx *authority.Tx) error {
				entry, err := tx.LedgerEntry(i.Leaf)
				if err == nil && !entry.Records(device.Leaf.RawTBSCertificate) {
					t.Error("the leaf is not this certificate's")
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			again, err := o.ca.IssueDevice(t.Context(), "a")
			if err != nil || !bytes.Equal(again.Certificate, i.Certificate) || o.key.signed.Load() != 1 {
				t.Errorf("asked again: %v, %d signatures", err, o.key.signed.Load())
			}
		})
	}
}

// A crash after any step loses nothing: the next process finishes with the same
// TBSCertificate under the same leaf.
func TestCrashAtEveryStep(t *testing.T) {
	for _, step := range []string{"built", "recorded", "signed", "stored"} {
		t.Run(step, func(t *testing.T) {
			o := newOffice(t, elliptic.P256())
			o.order(t, "a")
			crash := errors.New("crash")
			o.ca.interrupt = func(at string) error {
				if at == step {
					return crash
				}
				return nil
			}
			if _, err := o.ca.IssueDevice(t.Context(), "a"); !errors.Is(err, crash) {
				t.Fatalf("got %v", err)
			}
			var before authority.Issuance
			if step != "built" {
				o.exec(t, func(tx *authority.Tx) (err error) { before, err = tx.Issuance("order:a"); return err })
			}
			i, err := o.open(t).IssueDevice(t.Context(), "a")
			if err != nil {
				t.Fatal(err)
			}
			if step != "built" && !bytes.Equal(before.TBS, i.TBS) {
				t.Error("another TBSCertificate was signed")
			}
			if o.leaves(t) != 1 || o.status(t, "a") != authority.Valid {
				t.Errorf("%d leaves, order %s", o.leaves(t), o.status(t, "a"))
			}
			cert, err := x509.ParseCertificate(i.Certificate)
			if err != nil || !bytes.Equal(cert.RawTBSCertificate, i.TBS) {
				t.Errorf("certificate: %v", err)
			}
		})
	}
}

func TestTokenAway(t *testing.T) {
	o := newOffice(t, elliptic.P256())
	o.order(t, "a")
	o.key.fail.Store(true)
	var signing *SigningError
	for range 3 {
		if _, err := o.ca.IssueDevice(t.Context(), "a"); !errors.As(err, &signing) {
			t.Fatalf("got %v", err)
		}
	}
	if o.leaves(t) != 1 || o.status(t, "a") != authority.Processing {
		t.Errorf("%d leaves, order %s", o.leaves(t), o.status(t, "a"))
	}
	o.key.fail.Store(false)
	if _, err := o.ca.IssueDevice(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if o.leaves(t) != 1 {
		t.Errorf("%d leaves", o.leaves(t))
	}
}

// A token that signs something else must not get a certificate published.
func TestWrongSignatureIsNotPublished(t *testing.T) {
	o := newOffice(t, elliptic.P256())
	o.order(t, "a")
	o.key.lie.Store(true)
	var signing *SigningError
	if _, err := o.ca.IssueDevice(t.Context(), "a"); !errors.As(err, &signing) {
		t.Fatalf("got %v", err)
	}
	if o.status(t, "a") != authority.Processing {
		t.Errorf("order %s", o.status(t, "a"))
	}
	o.key.lie.Store(false)
	if _, err := o.ca.IssueDevice(t.Context(), "a"); err != nil {
		t.Errorf("control: %v", err)
	}
}

// Two processes and many goroutines: one leaf, one certificate.
func TestConcurrentIssuance(t *testing.T) {
	o := newOffice(t, elliptic.P256())
	o.order(t, "a")
	cas := []*CA{o.ca, o.open(t)}
	certs := make([][]byte, 8)
	var wg sync.WaitGroup
	for n := range certs {
		wg.Go(func() {
			i, err := cas[n%2].IssueDevice(context.Background(), "a")
			if err != nil {
				t.Error(err)
			}
			certs[n] = i.Certificate
		})
	}
	wg.Wait()
	for _, c := range certs {
		if !bytes.Equal(c, certs[0]) {
			t.Error("two certificates")
		}
	}
	if o.leaves(t) != 1 {
		t.Errorf("%d leaves", o.leaves(t))
	}
}

// What the database says is not enough: each case changes one thing behind the
// authority's back, and nothing is issued.
func TestIssueDeviceRefuses(t *testing.T) {
	cases := map[string]struct {
		spoil func(t *testing.T, o *office)
		check func(err error) bool
	}{
		"control": {func(*testing.T, *office) {}, func(err error) bool { return err == nil }},
		"off the roster": {func(t *testing.T, o *office) {
			o.exec(t, func(tx *authority.Tx) error { return tx.RemovePerson(o.alice) })
		}, func(err error) bool { return errors.Is(err, ErrNotOnRoster) }},
		"account closed": {func(t *testing.T, o *office) {
			o.exec(t, func(tx *authority.Tx) error { return tx.DeactivateAccount(1) })
		}, func(err error) bool { return errors.Is(err, ErrOrder) }},
		"order not processing": {func(t *testing.T, o *office) {
			o.exec(t, func(tx *authority.Tx) error {
				return tx.MoveOrder("a", authority.Processing, authority.Ready, "")
			})
		}, func(err error) bool { return errors.Is(err, ErrOrder) }},
		"approvals missing": {
			func(_ *testing.T, o *office) { o.ca.cfg.Device.Approvals = 1 },
			func(err error) bool { return errors.Is(err, ErrApprovals) },
		},
		"card denied since": {
			func(_ *testing.T, o *office) { o.policy.Slots = []string{"82"} },
			func(err error) bool { var e *RefusedError; return errors.As(err, &e) && e.Reason == "slot" },
		},
		"vendor root withdrawn": {func(t *testing.T, o *office) {
			o.ca.cfg.Appraiser.Endorsements = enrolltest.NewVendor(t).Endorsements(t)
		}, func(err error) bool { var e *RefusedError; return errors.As(err, &e) && e.Reason == "unknown_root" }},
		"foreign domain": {
			func(_ *testing.T, o *office) { o.ca.cfg.Domain = "finances.example" },
			func(err error) bool { return errors.Is(err, ErrOrder) },
		},
		"profile unknown": {
			func(_ *testing.T, o *office) { o.ca.cfg.Device.Name = "other" },
			func(err error) bool { return errors.Is(err, ErrOrder) },
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			o := newOffice(t, elliptic.P256())
			o.order(t, "a")
			c.spoil(t, o)
			i, err := o.ca.IssueDevice(t.Context(), "a")
			if !c.check(err) {
				t.Errorf("got %v", err)
			}
			if want := int64(0); err != nil && (o.leaves(t) != want || i.Done() || o.key.signed.Load() != 0) {
				t.Errorf("%d leaves, %d signatures", o.leaves(t), o.key.signed.Load())
			}
		})
	}
}

// Evidence forged into the row of another device's order does not help: it is judged
// again, for this device.
func TestForgedRowIsNotIssued(t *testing.T) {
	o := newOffice(t, elliptic.P256())
	honest := o.card
	software := newFakeKey(t, elliptic.P256()) // the attacker's key, not in hardware
	o.card = &enrolltest.Card{Key: software.PrivateKey, Evidence: honest.Evidence}
	o.order(t, "a") // every row says "valid", for the attacker's key
	var refused *RefusedError
	_, err := o.ca.IssueDevice(t.Context(), "a")
	if !errors.As(err, &refused) || refused.Reason != string(attest.ReasonKeyMismatch) {
		t.Errorf("got %v", err)
	}
	if o.leaves(t) != 0 || o.key.signed.Load() != 0 {
		t.Errorf("%d leaves, %d signatures", o.leaves(t), o.key.signed.Load())
	}
	o.card = honest
	o.order(t, "b")
	if _, err := o.ca.IssueDevice(t.Context(), "b"); err != nil {
		t.Errorf("control: %v", err)
	}
}

func TestExpiredWhileTokenWasAway(t *testing.T) {
	o := newOffice(t, elliptic.P256())
	o.order(t, "a")
	o.key.fail.Store(true)
	if _, err := o.ca.IssueDevice(t.Context(), "a"); err == nil {
		t.Fatal("issued without a token")
	}
	o.key.fail.Store(false)
	o.now = o.now.Add(8 * day)
	if _, err := o.ca.IssueDevice(t.Context(), "a"); !errors.Is(err, ErrExpired) {
		t.Errorf("got %v", err)
	}
}
