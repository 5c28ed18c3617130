// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"valise/gateway/group"
	"valise/identity"
	"valise/wire"
)

// duties sees to it that members who are out of good standing are removed from their
// groups (spec/wire.md, Section 11). Admission holds back content until then; here one
// member at a time is asked for the commit, so that a thousand of them do not race.
//
// Groups that are not in memory are looked for by sweep, which is slow: nothing is said in
// them, and whoever begins to has them loaded.
type duties struct {
	barred func(id identity.DeviceID, address identity.Address) bool
	online func(id identity.DeviceID) *session // that listens; nil if it does not
	news   chan struct{}
	period time.Duration // of a lease

	mu  sync.Mutex
	due map[string]*due // guarded by mu; by group id
}

// due is a group from which somebody must be removed.
type due struct {
	view   *group.View
	able   []identity.DeviceID // members in good standing, whose turn comes in this order
	next   int                 // of able
	holder identity.DeviceID
	until  time.Time // of the holder's lease
}

func newDuties(barred func(identity.DeviceID, identity.Address) bool, online func(identity.DeviceID) *session) *duties {
	return &duties{barred: barred, online: online, news: make(chan struct{}, 1), period: leaseTime, due: make(map[string]*due)}
}

// look takes note of a group's present members. It is told every view of every group
// that is in memory, and again when standings change.
func (d *duties) look(v *group.View) {
	barred, able := 0, []identity.DeviceID(nil)
	for _, m := range v.Members {
		if d.barred(m.Device.ID, m.Device.Address) {
			barred++
		}
	}
	if barred > 0 {
		for _, m := range v.Members {
			if !d.barred(m.Device.ID, m.Device.Address) {
				able = append(able, m.Device.ID)
			}
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	old := d.due[string(v.ID)]
	switch {
	case barred == 0:
		delete(d.due, string(v.ID))
		return
	case old != nil && old.view.Epoch > v.Epoch:
		return
	case old != nil && old.view.Epoch == v.Epoch && slices.Equal(old.able, able):
		return // standings changed, and nothing here
	case old == nil && len(d.due) >= maxDue:
		return // found again when somebody writes
	}
	// Whose turn comes first is drawn, so that one member does not get all groups.
	fresh := &due{view: v, able: able}
	if len(able) > 0 {
		fresh.next = rand.IntN(len(able))
	}
	d.due[string(v.ID)] = fresh
	d.nudge()
}

// review looks again at the groups that wait, those among them that are not in memory any
// more: standings have changed.
func (d *duties) review() {
	d.mu.Lock()
	views := make([]*group.View, 0, len(d.due))
	for _, w := range d.due {
		views = append(views, w.view)
	}
	d.mu.Unlock()
	for _, v := range views {
		d.look(v)
	}
}

// waits says whether somebody must be removed from a group.
func (d *duties) waits(id []byte) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.due[string(id)] != nil
}

// epochs are those of the groups from which somebody must be removed, as they are known here.
func (d *duties) epochs() map[string]uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make(map[string]uint64, len(d.due))
	for id, w := range d.due {
		out[id] = w.view.Epoch
	}
	return out
}

// room says whether more groups may wait than do: half of them are kept for those that
// are in use.
func (d *duties) room() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.due) < maxDue/2
}

// nudge makes run look again.
func (d *duties) nudge() {
	select {
	case d.news <- struct{}{}:
	default:
	}
}

// run hands out leases until ctx ends.
func (d *duties) run(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		timer.Reset(d.lease(time.Now()))
		select {
		case <-ctx.Done():
			return nil
		case <-d.news:
		case <-timer.C:
		}
	}
}

// lease gives every group without a lease to a member who is there, and returns when it
// is to be asked again.
func (d *duties) lease(now time.Time) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	wait := time.Hour
	for _, w := range d.due {
		if w.until.After(now) && d.online(w.holder) != nil {
			wait = min(wait, w.until.Sub(now))
			continue
		}
		if d.give(w, now) {
			wait = min(wait, d.period)
		}
	}
	return wait
}

// give asks the next member who is there; false if nobody is. The caller holds d.mu.
func (d *duties) give(w *due, now time.Time) bool {
	frame := &wire.Lease{Group: w.view.ID, Epoch: w.view.Epoch, Milliseconds: uint32(d.period / time.Millisecond)}
	for range w.able {
		id := w.able[w.next]
		w.next = (w.next + 1) % len(w.able)
		s := d.online(id)
		if s == nil {
			continue
		}
		select {
		case s.leases <- frame:
			s.tell()
			w.holder, w.until = id, now.Add(d.period)
			return true
		default: // it has more than enough to do
		}
	}
	w.holder, w.until = identity.DeviceID{}, time.Time{}
	return false
}

// listening returns a device's session if deliveries reach it, nil if not.
func (g *Gateway) listening(d identity.DeviceID) *session {
	if s := g.session(d); s != nil && s.down.Load() != nil && s.conn.Context().Err() == nil {
		return s
	}
	return nil
}
