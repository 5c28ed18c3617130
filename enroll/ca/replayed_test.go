// SPDX-License-Identifier: Apache-2.0

package ca_test

import (
	"testing"

	"golang.org/x/crypto/ocsp"

	"valise/internal/store/authority"
)

// Whoever writes the database relabels an answer of before, which our own key signed,
// as the one that is true now. It is not given out: a row says nothing of what the
// answer beside it says.
func TestReplayedAnswers(t *testing.T) {
	d := newDesk(t)
	d.set(1, false, 0)
	d.expect(1, ocsp.Good, 0)
	id := []byte("5:01")
	var good, held authority.StoredOCSP
	var none, list authority.StoredCRL
	read := func(o *authority.StoredOCSP, c *authority.StoredCRL) {
		t.Helper()
		err := d.cfg.Store.View(t.Context(), func(tx *authority.Tx) (err error) {
			if *o, err = tx.OCSP(id); err == nil {
				*c, err = tx.LatestCRL()
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	d.crl()
	read(&good, &none)
	d.set(1, true, 6)
	d.expect(1, ocsp.Revoked, 6)
	d.crl()
	read(&held, &list)
	replace := func(c authority.StoredCRL, der []byte) {
		t.Helper()
		err := d.cfg.Store.Update(t.Context(), func(tx *authority.Tx) error {
			if err := tx.PutOCSP(authority.StoredOCSP{ID: id, State: held.State, Until: held.Until, DER: der}, d.now); err != nil {
				return err
			}
			return tx.AddCRL(c)
		})
		if err != nil {
			t.Fatal(err)
		}
		d.restart()
	}
	list.DER, none.DER = none.DER, list.DER
	replace(list, good.DER)
	d.expect(1, ocsp.Revoked, 6)
	if got := d.crl(); len(got.RevokedCertificateEntries) != 1 {
		t.Error("an older list was given out as the one in force")
	}
	d.restart() // the honest control: what it finds is used, and no token is asked
	d.away = true
	d.expect(1, ocsp.Revoked, 6)
	if got := d.crl(); len(got.RevokedCertificateEntries) != 1 {
		t.Error("a restart forgot the list")
	}
}
