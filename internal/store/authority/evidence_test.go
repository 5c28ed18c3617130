// SPDX-License-Identifier: Apache-2.0

package authority

import (
	"errors"
	"testing"
	"time"

	"valise/identity"
)

func TestEvidence(t *testing.T) { eachDatabase(t, testEvidence) }

// The newest valid order of each device counts, page by page.
func testEvidence(t *testing.T, path string) {
	s, now := testOpen(t, path), time.Now()
	add := func(tx *Tx, id string, device byte, at time.Time, status string) error {
		d := identity.DeviceID{device}
		if err := tx.AddOrder(Order{ID: id, Account: 1, Device: d, Profile: "device", Status: Ready, Created: at, Expires: at},
			Authorization{ID: "z" + id, Order: id, Token: "t" + id, Status: Pending, Expires: at}); err != nil {
			return err
		}
		if err := tx.CloseAuthorization(Authorization{ID: "z" + id, Status: Valid, Validated: at, Evidence: []byte(id)}); err != nil {
			return err
		}
		return tx.MoveOrder(id, Ready, status, "")
	}
	must(t, s.Update(t.Context(), func(tx *Tx) error {
		must(t, tx.AddInvitation(Invitation{KID: "k", Key: []byte("k"), Address: alice(t), Created: now, Expires: now}))
		if _, err := tx.AddAccount(Account{Thumbprint: "t", JWK: []byte("{}"), Address: alice(t), KID: "k", Status: Valid, Created: now}); err != nil {
			return err
		}
		return errors.Join(add(tx, "a", 1, now, Valid), add(tx, "b", 1, now.Add(time.Hour), Valid), add(tx, "c", 1, now.Add(2*time.Hour), Invalid),
			add(tx, "d", 2, now, Valid), add(tx, "e", 3, now, Processing))
	}))
	must(t, s.View(t.Context(), func(tx *Tx) error {
		first, err := tx.Evidence(identity.DeviceID{}, 1)
		must(t, err)
		rest, err := tx.Evidence(identity.DeviceID{1}, 10)
		must(t, err)
		if len(first) != 1 || string(first[0].Evidence) != "b" || first[0].Address != alice(t) || len(rest) != 1 || string(rest[0].Evidence) != "d" {
			t.Errorf("got %+v and %+v", first, rest)
		}
		waiting, err := tx.OrdersAfter(Processing, Order{}, 10)
		must(t, err)
		if len(waiting) != 1 || waiting[0].ID != "e" {
			t.Errorf("got %+v", waiting)
		}
		waiting, err = tx.OrdersAfter(Processing, waiting[0], 10)
		if len(waiting) != 0 {
			t.Errorf("got %+v", waiting)
		}
		return err
	}))
}

func TestApplications(t *testing.T) { eachDatabase(t, testApplications) }

func testApplications(t *testing.T, path string) {
	s, now := testOpen(t, path), time.Now()
	one, other := [32]byte{1}, [32]byte{2}
	must(t, s.Update(t.Context(), func(tx *Tx) error { return tx.AddApplication("n", now.Add(time.Hour)) }))
	accept := func(nonce string, at time.Time, digest [32]byte) error {
		return s.Update(t.Context(), func(tx *Tx) error { return tx.AcceptApplication(nonce, at, digest, []byte("evidence")) })
	}
	for name, err := range map[string]error{
		"a stranger's nonce": accept("m", now, one), "too late": accept("n", now.Add(2*time.Hour), one),
	} {
		if !errors.Is(err, ErrState) {
			t.Errorf("%s: %v", name, err)
		}
	}
	must(t, accept("n", now, one))
	must(t, accept("n", now, one))
	if err := accept("n", now, other); !errors.Is(err, ErrState) {
		t.Errorf("another one under the same nonce: %v", err)
	}
	must(t, s.Update(t.Context(), func(tx *Tx) error { return tx.PurgeApplications(now.Add(3 * time.Hour)) }))
	must(t, s.View(t.Context(), func(tx *Tx) error {
		is, err := tx.Accepted(one)
		not, err2 := tx.Accepted(other)
		if !is || not {
			t.Errorf("accepted: %v, %v", is, not)
		}
		return errors.Join(err, err2)
	}))
}
