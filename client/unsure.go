// SPDX-License-Identifier: Apache-2.0

package client

import (
	"errors"
	"time"

	"valise/wire"
)

// A submission that the gateway cannot do at present (unavailable) may have been done all
// the same: the same bytes settle it (spec/wire.md, Section 6), and until they have, its
// counter is free for no others. If the gateway cannot do it time after time, a new
// connection settles it too: Welcome says how far this device's counters have come. What
// was not done then waits with its conversation, and other conversations go on.
//
// A gateway that says so and does it later finds other bytes under the counter, and calls
// that a state conflict: the device begins a new life, and whoever gets a message a second
// time drops it by its id.

// unsure is what the engine remembers of a submission that the gateway cannot do. It is
// kept in memory only.
type unsure struct {
	counter uint64 // of the submission; 0: none
	tries   int    // how often it was offered in vain
	asked   bool   // a connection is made to learn whether it was done

	wait time.Duration // between two such connections, while nothing is taken at all
	next time.Time     // not before
}

// errUnsure restarts the connection, whose Welcome tells what was done.
var errUnsure = errors.New("the gateway does not do what was submitted; its mark is asked for")

// unavailable offers the same bytes again in a moment; after some tries it has Welcome
// tell whether they were done.
func (e *Engine) unavailable(s *slot) error {
	u := &e.unsure
	if u.counter != s.Counter {
		u.counter, u.tries = s.Counter, 0
	}
	u.tries++
	now := e.now()
	e.hold = now.Add(time.Duration(min(u.tries, unsureTries)) * unsureStep)
	if u.tries < unsureTries || now.Before(u.next) {
		return nil
	}
	u.wait = min(max(2*u.wait, unsurePause), restMost)
	u.next, u.asked = now.Add(u.wait), true
	return errUnsure
}

// taken notes that the gateway does what this device submits.
func (u *unsure) taken() { u.counter, u.tries, u.asked, u.wait = 0, 0, false, 0 }

// sureBy sets the submission under way aside if it was not done, by the mark in Welcome.
func (e *Engine) sureBy(w *wire.Welcome) error {
	u, s := &e.unsure, e.slot
	asked := u.asked && s != nil && s.Counter == u.counter
	u.asked, u.counter, u.tries = false, 0, 0
	if !asked || w.Counter >= s.Counter {
		return nil // offered again: what was done is acknowledged
	}
	e.hold = time.Time{}
	return e.postpone(s, &wire.Result{Code: wire.Unavailable})
}
