// SPDX-License-Identifier: Apache-2.0

package endtoend

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"valise/internal/stage"
)

// A home is copied back from an older state, as from a backup, and later the newer one
// again. The gateway sees each time that the device's state went back; the device takes
// a new incarnation and joins its conversations anew. Nothing is lost, nothing is there
// twice, and both can go on writing.
func TestHomeCopiedBack(t *testing.T) {
	t.Parallel()
	s := seed(t)
	w := newWorld(t, stage.Config{}, "alice", "bob")
	alice, bob := w.people[0], w.people[1]
	w.introduce(alice, bob)
	list := []*correspondence{{from: alice, to: bob}, {from: bob, to: alice}}
	for i, c := range list {
		c.rng = rand.New(rand.NewPCG(s, uint64(i)))
	}
	// exchange lets both write, in turn, and waits until all has arrived.
	exchange := func(n int) {
		t.Helper()
		for range n {
			for _, c := range list {
				w.write(c)
			}
		}
		for _, c := range list {
			w.last(c)
		}
	}
	exchange(3)
	older := w.keep(alice, "older")
	exchange(4) // in both directions, and unknown to the copy
	newer := w.keep(alice, "newer")
	w.write(list[1]) // waits for alice while she is away

	w.replace(alice, older)
	w.wentBack(alice, 1)
	exchange(3)
	w.keep(alice, "after")

	w.replace(alice, newer)
	w.wentBack(alice, 2)
	exchange(3)

	resynced := 0
	events, err := alice.events()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		if e.Kind == "resynced" {
			resynced++
		}
	}
	if resynced != 2 {
		t.Errorf("alice was told %d times that her device's state was an older copy, want 2", resynced)
	}
	w.judge(list)
}

// write sends one letter of a correspondence.
func (w *world) write(c *correspondence) {
	w.t.Helper()
	l, err := c.compose(len(c.letters) + 1)
	if err == nil {
		err = c.send(w.ctx, l)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// keep copies a home while its agent is stopped, and starts the agent again.
func (w *world) keep(p *person, name string) string {
	w.t.Helper()
	w.away(p)
	copied := filepath.Join(w.Dir, name)
	if err := stage.CopyHome(copied, p.Home); err != nil {
		w.t.Fatal(err)
	}
	w.back(p)
	return copied
}

// replace puts a copy in the place of a home.
func (w *world) replace(p *person, copied string) {
	w.t.Helper()
	w.away(p)
	if err := errors.Join(os.RemoveAll(p.Home), stage.CopyHome(p.Home, copied)); err != nil {
		w.t.Fatal(err)
	}
	w.back(p)
}

// away ends what reads along, and the agent.
func (w *world) away(p *person) {
	w.t.Helper()
	p.mu.Lock()
	p.receiver.Stop()
	p.mu.Unlock()
	p.must("agent", "--stop")
	w.until(p.Name+"'s agent to end", func() (bool, error) { return !p.AgentRuns(), nil })
}

func (w *world) back(p *person) {
	w.t.Helper()
	if err := errors.Join(p.unlockAgain(w.ctx), p.follow()); err != nil {
		w.t.Fatal(err)
	}
}

// wentBack waits until the audit stream says n times that a device showed an older
// state, and began another incarnation as often.
func (w *world) wentBack(p *person, n int) {
	w.t.Helper()
	st, err := p.status(w.ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	w.until(fmt.Sprintf("the gateway to see %s's state go back (%d)", p.Name, n), func() (bool, error) {
		behind, began := 0, 0
		for _, l := range audit(w.t, w.gateway.Audit) {
			if l["device"] != st.Device {
				continue
			}
			switch l["event"] {
			case "state_behind":
				behind++
			case "incarnation_begun":
				began++
			}
		}
		if behind > n {
			return false, fmt.Errorf("%d times", behind)
		}
		return behind == n && began == n+1, nil
	})
}
