// SPDX-License-Identifier: Apache-2.0

package authority

import (
	"bytes"
	"errors"
	"reflect"
	"testing"
	"time"

	"valise/identity"
	"valise/internal/store"
)

// someAccount registers alice with an invitation of her own.
func someAccount(t *testing.T, s *Store, kid, thumbprint string) (id int64) {
	t.Helper()
	now := time.Now()
	must(t, s.Update(t.Context(), func(tx *Tx) (err error) {
		if err := tx.AddInvitation(Invitation{KID: kid, Key: []byte("k"), Address: alice(t), Created: now, Expires: now.Add(time.Hour)}); err != nil {
			return err
		}
		id, err = tx.AddAccount(Account{Thumbprint: thumbprint, JWK: []byte("{}"), Address: alice(t), KID: kid, Status: Valid, Created: now})
		return err
	}))
	return id
}

func TestUseNonceOf(t *testing.T) { eachDatabase(t, testUseNonceOf) }

func testUseNonceOf(t *testing.T, path string) {
	s, now := testOpen(t, path), time.Now()
	id := someAccount(t, s, "k1", "t1")
	nonce := s.NewNonce(now)
	a, err := s.UseNonceOf(t.Context(), nonce, id, now)
	if err != nil || a.ID != id || a.Thumbprint != "t1" || a.Status != Valid {
		t.Errorf("%+v, %v", a, err)
	}
	if _, err := s.UseNonceOf(t.Context(), nonce, id, now); !errors.Is(err, ErrNonce) {
		t.Errorf("again: %v", err)
	}
	if err := s.UseNonce(t.Context(), nonce, now); !errors.Is(err, ErrNonce) {
		t.Errorf("again, without an account: %v", err)
	}
	other := s.NewNonce(now)
	if err := s.UseNonce(t.Context(), other, now); err != nil {
		t.Fatal(err)
	}
	if _, err := s.UseNonceOf(t.Context(), other, id, now); !errors.Is(err, ErrNonce) {
		t.Errorf("used without an account: %v", err)
	}
	must(t, s.Update(t.Context(), func(tx *Tx) error { return tx.DeactivateAccount(id) }))
	if a, err := s.UseNonceOf(t.Context(), s.NewNonce(now), id, now); err != nil || a.Status != Deactivated {
		t.Errorf("deactivated: %+v, %v", a, err)
	}
}

// What is looked up with a nonce is what is there, and nothing without the nonce.
func TestUseNonceAndLook(t *testing.T) { eachDatabase(t, testUseNonceAndLook) }

func testUseNonceAndLook(t *testing.T, path string) {
	s, now := testOpen(t, path), time.Now()
	id := someAccount(t, s, "k1", "t1")
	o := Order{ID: "o", Account: id, Profile: "p", Status: Pending, Created: now, Expires: now.Add(time.Hour)}
	must(t, s.Update(t.Context(), func(tx *Tx) error {
		return tx.AddOrder(o, Authorization{ID: "z", Order: "o", Token: "t", Status: Pending, Expires: o.Expires})
	}))
	use := func(nonce string, l *Look) (*Facts, error) {
		a, found, err := s.UseNonceAndLook(t.Context(), nonce, id, now, l)
		if err == nil && a.ID != id || err != nil && (a.ID != 0 || found != nil) {
			t.Errorf("%+v, %+v, %v", a, found, err)
		}
		return found, err
	}
	there := s.db.Dialect() == store.PostgreSQL // elsewhere nothing is looked up
	for name, l := range map[string]*Look{"order": {Order: "o", Ref: "order:o"}, "authorization": {Authorization: "z"}} {
		nonce := s.NewNonce(now)
		f, err := use(nonce, l)
		if err != nil || (f != nil) != there || there && (f.Order.ID != "o" || f.Authorization.ID != "z" || f.Account.ID != id) {
			t.Errorf("%s: %+v, %v", name, f, err)
		}
		if _, err := use(nonce, l); !errors.Is(err, ErrNonce) {
			t.Errorf("%s, used before: %v", name, err)
		}
	}
	for name, l := range map[string]*Look{"none": nil, "no order": {Order: "x"}, "no authorization": {Authorization: "o"}} {
		nonce := s.NewNonce(now)
		if f, err := use(nonce, l); f != nil || err != nil {
			t.Errorf("%s: %+v, %v", name, f, err)
		}
		if _, err := use(nonce, l); !errors.Is(err, ErrNonce) {
			t.Errorf("%s, used before: %v", name, err)
		}
	}
}

func TestChangeAccountKey(t *testing.T) { eachDatabase(t, testChangeAccountKey) }

func testChangeAccountKey(t *testing.T, path string) {
	s, now := testOpen(t, path), time.Now()
	id, other := someAccount(t, s, "k1", "t1"), someAccount(t, s, "k2", "t2")
	change := func(expected, to string) error {
		return s.Update(t.Context(), func(tx *Tx) error { return tx.ChangeAccountKey(id, expected, to, []byte("{}")) })
	}
	if err := change("t0", "t3"); !errors.Is(err, ErrState) {
		t.Errorf("another present key: %v", err)
	}
	if err := change("t1", "t2"); !errors.Is(err, ErrExists) {
		t.Errorf("the key of account %d: %v", other, err)
	}
	order := Order{ID: "o", Account: id, Profile: "p", Status: Ready, Created: now, Expires: now.Add(time.Hour)}
	authz := Authorization{ID: "z", Order: "o", Token: "t", Status: Valid, Expires: order.Expires}
	must(t, s.Update(t.Context(), func(tx *Tx) error { return tx.AddOrder(order, authz) }))
	if err := change("t1", "t3"); !errors.Is(err, ErrState) {
		t.Errorf("with evidence that waits: %v", err)
	}
	must(t, s.Update(t.Context(), func(tx *Tx) error { return tx.MoveOrder("o", Ready, Invalid, "x") }))
	must(t, change("t1", "t3"))
	must(t, s.Read(t.Context(), func(tx *Tx) error {
		f, err := tx.FactsOf("o", "order:o")
		if f.Account.Thumbprint != "t3" || f.OnRoster || f.Person.Name != "" || f.Order.ID != "o" || f.Authorization.ID != "z" || f.Issuance.Ref != "" {
			t.Errorf("%+v", f)
		}
		return err
	}))
	must(t, s.Update(t.Context(), func(tx *Tx) error {
		_, err := tx.PutPerson(Person{Address: alice(t), Name: "Alice", Unit: "U", Changed: now})
		return err
	}))
	must(t, s.Read(t.Context(), func(tx *Tx) error {
		f, err := tx.FactsOf("o", "order:o")
		if want, lookErr := tx.Person(alice(t)); f.Account.ID != id || !f.OnRoster || f.Person != want || lookErr != nil {
			t.Errorf("%+v", f)
		}
		return err
	}))
}

func TestFacts(t *testing.T) { eachDatabase(t, testFacts) }

// Everything in one question is what the questions for each of it say.
func testFacts(t *testing.T, path string) {
	s, now := testOpen(t, path), time.Now().UTC().Truncate(time.Second)
	id, other := someAccount(t, s, "k1", "t1"), someAccount(t, s, "k2", "t2")
	device := identity.DeviceID{7}
	add := func(order string) {
		o := Order{ID: order, Account: id, Device: device, Profile: "p", Status: Pending, Created: now, Expires: now.Add(time.Hour)}
		must(t, s.Update(t.Context(), func(tx *Tx) error {
			return tx.AddOrder(o, Authorization{ID: "z" + order, Order: order, Token: "t" + order, Status: Pending, Expires: o.Expires})
		}))
	}
	add("a")
	add("b")
	must(t, s.Update(t.Context(), func(tx *Tx) error {
		i := Issuance{Ref: "order:a", Kind: "device", Subject: "s", Request: []byte("r"), Serial: []byte{1}, TBS: []byte("tbs"), Created: now, NotAfter: now}
		return errors.Join(tx.AddIssuance(i), tx.Later().CompleteIssuance("order:a", []byte("certificate")), tx.BindAccount(id, device))
	}))
	must(t, s.View(t.Context(), func(tx *Tx) error {
		f, err := tx.FactsOf("a", "order:a")
		o, z, err2 := tx.OrderOf("a")
		account, err3 := tx.Account(id)
		past, err4 := tx.Issuance("order:a")
		if want := (Facts{Order: o, Authorization: z, Account: account, Issuance: past}); !reflect.DeepEqual(f, want) {
			t.Errorf("%+v, want %+v", f, want)
		}
		if _, err := tx.FactsOf("x", "order:a"); !errors.Is(err, ErrNotFound) {
			t.Errorf("none: %v", err)
		}
		owner, status, certificate, err5 := tx.CertificateOf("a", "order:a")
		if owner != id || status != Pending || string(certificate) != "certificate" {
			t.Errorf("%d, %s, %s", owner, status, certificate)
		}
		_, _, none, err6 := tx.CertificateOf("b", "order:b")
		if none != nil {
			t.Errorf("%s", none)
		}
		return errors.Join(err, err2, err3, err4, err5, err6)
	}))
	must(t, s.Read(t.Context(), func(tx *Tx) error {
		own, err := tx.Applicant(id, device, now)
		late, err2 := tx.Applicant(id, device, now.Add(2*time.Hour))
		if own.Account.ID != id || own.OnRoster || own.Taken || own.Open != 2 || late.Open != 0 {
			t.Errorf("%+v %+v", own, late)
		}
		return errors.Join(err, err2)
	}))
	must(t, s.Update(t.Context(), func(tx *Tx) error {
		bob, err := identity.ParseAddress("bob@interieur.example")
		if err != nil {
			return err
		}
		return tx.exec("UPDATE accounts SET address = $1 WHERE id = $2", bob.String(), other)
	}))
	must(t, s.Read(t.Context(), func(tx *Tx) error {
		taken, err := tx.Applicant(other, device, now)
		if !taken.Taken || taken.Open != 0 {
			t.Errorf("%+v", taken)
		}
		_, err2 := tx.Applicant(99, device, now)
		if !errors.Is(err2, ErrNotFound) {
			t.Errorf("none: %v", err2)
		}
		return err
	}))
}

func TestReplacements(t *testing.T) { eachDatabase(t, testReplacements) }

func testReplacements(t *testing.T, path string) {
	s, now := testOpen(t, path), time.Now()
	id := someAccount(t, s, "k1", "t1")
	must(t, s.Update(t.Context(), func(tx *Tx) error {
		o := Order{ID: "o", Account: id, Device: identity.DeviceID{1}, Profile: "p", Status: Ready, Created: now, Expires: now.Add(time.Hour)}
		return errors.Join(tx.AddOrder(o, Authorization{ID: "z", Order: "o", Token: "t", Status: Valid, Expires: o.Expires}), tx.ReplaceCertificate("o", "a.b"))
	}))
	replaced := func() (is bool) {
		must(t, s.View(t.Context(), func(tx *Tx) (err error) { is, err = tx.Replaced("a.b"); return err }))
		return is
	}
	if replaced() {
		t.Error("an order that is not finalized counts")
	}
	must(t, s.Update(t.Context(), func(tx *Tx) error { return tx.FinalizeOrder("o", []byte("csr")) }))
	if !replaced() {
		t.Error("an order that is finalized does not count")
	}
	must(t, s.Read(t.Context(), func(tx *Tx) error {
		o, z, err := tx.OrderOf("o")
		byZ, zz, err2 := tx.OrderOfAuthorization("z")
		alone, err3 := tx.Order("o")
		if o.Replaces != "a.b" || z.ID != "z" || byZ.ID != "o" || zz.Token != "t" || alone.Replaces != "a.b" || !bytes.Equal(o.CSR, alone.CSR) || o.Device != alone.Device {
			t.Errorf("%+v %+v %+v %+v %+v", o, z, byZ, zz, alone)
		}
		if _, _, err := tx.OrderOf("x"); !errors.Is(err, ErrNotFound) {
			t.Errorf("none: %v", err)
		}
		return errors.Join(err, err2, err3)
	}))
}

func TestStatusRows(t *testing.T) { eachDatabase(t, testStatusRows) }

func testStatusRows(t *testing.T, path string) {
	s, now := testOpen(t, path), time.Now().UTC().Truncate(time.Second)
	var first, second int64
	must(t, s.Update(t.Context(), func(tx *Tx) (err error) { first, err = tx.ReserveCRL([]byte("a"), now); return err }))
	must(t, s.Update(t.Context(), func(tx *Tx) (err error) { second, err = tx.ReserveCRL([]byte("b"), now); return err }))
	if second <= first {
		t.Errorf("numbers %d, %d", first, second)
	}
	view := func(f func(tx *Tx) error) error { return s.View(t.Context(), f) }
	if err := view(func(tx *Tx) error { _, err := tx.LatestCRL(); return err }); !errors.Is(err, ErrNotFound) {
		t.Errorf("none is signed: %v", err)
	}
	must(t, s.Update(t.Context(), func(tx *Tx) error { return tx.AddCRL(StoredCRL{Number: second, DER: []byte("crl")}) }))
	must(t, view(func(tx *Tx) error {
		c, err := tx.LatestCRL()
		if c.Number != second || string(c.State) != "b" || !c.Until.Equal(now) || string(c.DER) != "crl" {
			t.Errorf("%+v", c)
		}
		return err
	}))
	if err := s.Update(t.Context(), func(tx *Tx) error { return tx.AddCRL(StoredCRL{Number: first, DER: []byte("late")}) }); !errors.Is(err, ErrState) {
		t.Errorf("an older list after a newer one: %v", err)
	}
	r := StoredOCSP{ID: []byte("id"), State: []byte("s"), Until: now.Add(time.Hour), DER: []byte("one")}
	put := func(r StoredOCSP, at time.Time) {
		must(t, s.Update(t.Context(), func(tx *Tx) error { return tx.PutOCSP(r, at) }))
	}
	put(r, now)
	r.DER = []byte("two")
	put(r, now)
	must(t, view(func(tx *Tx) error {
		got, err := tx.OCSP([]byte("id"))
		if string(got.DER) != "two" || !got.Until.Equal(r.Until) || string(got.State) != "s" {
			t.Errorf("%+v", got)
		}
		return err
	}))
	put(StoredOCSP{ID: []byte("other"), State: []byte("s"), Until: now.Add(3 * time.Hour), DER: []byte("x")}, now.Add(2*time.Hour))
	if err := view(func(tx *Tx) error { _, err := tx.OCSP([]byte("id")); return err }); !errors.Is(err, ErrNotFound) {
		t.Errorf("an expired response was kept: %v", err)
	}
}

// A nonce that is used within a transaction counts exactly if that happens, whatever
// else the transaction does, and says itself that it was used before.
func TestUseNonceInATransaction(t *testing.T) { eachDatabase(t, testUseNonceInATransaction) }

func testUseNonceInATransaction(t *testing.T, path string) {
	s, now := testOpen(t, path), time.Now()
	id := someAccount(t, s, "k1", "t1")
	nonce := s.NewNonce(now)
	use := func(nonce string, then error) error {
		return s.Update(t.Context(), func(tx *Tx) error {
			if err := s.UseNonceIn(tx, nonce, now); err != nil {
				return err
			}
			if _, err := tx.Account(id); err != nil {
				return err
			}
			return then
		})
	}
	other := errors.New("something else")
	if err := use(nonce, other); !errors.Is(err, other) {
		t.Fatalf("a transaction that fails: %v", err)
	}
	if err := use(nonce, nil); err != nil {
		t.Fatalf("the nonce of a transaction that did not happen: %v", err)
	}
	if err := use(nonce, nil); !errors.Is(err, ErrNonce) {
		t.Errorf("used twice: %v", err)
	}
	if err := s.UseNonce(t.Context(), nonce, now); !errors.Is(err, ErrNonce) {
		t.Errorf("used again outside of a transaction: %v", err)
	}
	if err := use(s.NewNonce(now.Add(-2*nonceLife)), nil); !errors.Is(err, ErrNonce) {
		t.Errorf("an expired one: %v", err)
	}
}
