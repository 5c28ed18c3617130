// SPDX-License-Identifier: Apache-2.0

package authority

import (
	"errors"
	"testing"
	"time"
)

// A clock that was ahead when nonces were purged, and is right again, must not make a
// used nonce good: neither at this process nor at another one on the database. New
// nonces are good all the while.
func TestNoncesAndClockJumps(t *testing.T) {
	for name, jump := range map[string]time.Duration{"seconds": 90 * time.Second, "minutes": 70 * time.Minute, "years": 20 * 365 * 24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			eachDatabase(t, func(t *testing.T, path string) { testNoncesAndClockJumps(t, path, jump) })
		})
	}
}

func testNoncesAndClockJumps(t *testing.T, path string, jump time.Duration) {
	ctx, now := t.Context(), time.Now()
	here, there := testOpen(t, path), testOpen(t, path)
	fresh := func(s *Store, at time.Time) {
		t.Helper()
		err := s.UseNonce(ctx, s.NewNonce(at), at)
		if errors.Is(err, ErrNonce) { // it has learned of the jump now, as a client's second attempt shows
			err = s.UseNonce(ctx, s.NewNonce(at), at)
		}
		must(t, err)
	}
	// One that expires at once and one that has just been made, both used.
	used := []string{here.NewNonce(now.Add(time.Minute - nonceLife)), here.NewNonce(now)}
	for _, n := range used {
		must(t, here.UseNonce(ctx, n, now))
	}
	replay := func(when string) {
		t.Helper()
		for i, n := range used {
			for _, s := range []*Store{here, there} {
				if err := s.UseNonce(ctx, n, now); !errors.Is(err, ErrNonce) {
					t.Errorf("%s: nonce %d: %v", when, i, err)
				}
			}
		}
	}
	replay("before the jump")
	must(t, here.Purge(ctx, now.Add(jump)))
	fresh(here, now.Add(jump))
	replay("the clock is right again")
	fresh(here, now)
	fresh(there, now)
	must(t, there.Purge(ctx, now))
	replay("purged with the right clock")
	fresh(here, now)
	fresh(there, now)
	// What a jump by years has left must not stay for ever.
	later := now.Add(3 * nonceLife)
	must(t, here.Purge(ctx, later))
	must(t, here.View(ctx, func(tx *Tx) error {
		var left int
		err := tx.row("SELECT count(*) FROM nonces WHERE expires > $1", unix(later.Add(nonceLife)))(&left)
		if left != 0 {
			t.Errorf("%d nonces stay beyond their life", left)
		}
		return err
	}))
	fresh(there, later)
}
