// SPDX-License-Identifier: Apache-2.0

package authority

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"valise/identity"
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
		a, p, onRoster, err := tx.AccountOnRoster(id)
		if a.Thumbprint != "t3" || onRoster || p.Name != "" {
			t.Errorf("%+v, %+v, %t", a, p, onRoster)
		}
		return err
	}))
	must(t, s.Update(t.Context(), func(tx *Tx) error {
		_, err := tx.PutPerson(Person{Address: alice(t), Name: "Alice", Unit: "U", Changed: now})
		return err
	}))
	must(t, s.Read(t.Context(), func(tx *Tx) error {
		a, p, onRoster, err := tx.AccountOnRoster(id)
		if want, lookErr := tx.Person(alice(t)); a.ID != id || !onRoster || p != want || lookErr != nil {
			t.Errorf("%+v, %+v, %t", a, p, onRoster)
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
