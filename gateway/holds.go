// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"valise/bulletin"
	"valise/gateway/mailbox"
	"valise/identity"
)

// holds keeps the store's holds on devices as standings say (spec/wire.md, Section 11):
// who is suspended or off the roster is in quarantine, from which everything comes back;
// what a revoked device had is deleted. A revocation that no bulletin knows yet is a
// quarantine: what is deleted does not come back.
//
// Standings are the truth, and the store follows, after a restart too.
type holds struct {
	store  mailbox.Store
	node   mailbox.Node // nil: no other gateway lays and lifts holds
	behind func()       // has newer standings asked for
	set    func() *bulletin.Set
	tell   func(event string, id mailbox.Device)
	log    *slog.Logger
	news   chan struct{}

	// mu orders what is laid and lifted; it is held while the store does one of them.
	mu   sync.Mutex
	done map[mailbox.Device]mailbox.Hold // guarded by mu; nil until it was read
	old  atomic.Bool                     // others may have laid and lifted some since
}

var errSuperseded = errors.New("gateway: other standings are in force by now")

// nudge has the store follow again.
func (h *holds) nudge() {
	select {
	case h.news <- struct{}{}:
	default:
	}
}

// run follows standings until ctx ends.
func (h *holds) run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-h.news:
		case <-timer.C:
		}
		err := h.follow(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, errSuperseded):
			h.nudge()
		case errors.Is(err, mailbox.ErrOlderLaw):
			h.log.Info("another gateway knows newer standings: they are asked for", "bulletin", h.set().Number(), "detail", err)
			h.behind()
			timer.Reset(holdPause)
		case err != nil:
			h.log.Error("mailboxes do not follow standings; tried again soon", "error", err)
			timer.Reset(holdPause)
		}
	}
}

// follow lays and lifts what differs.
func (h *holds) follow(ctx context.Context) error {
	set := h.set()
	if h.node != nil {
		h.outdate()
		if err := h.node.Govern(ctx, set.Number()); err != nil {
			return err
		}
	}
	wanted, err := h.wanted(ctx, set)
	if err != nil {
		return err
	}
	held, err := h.now(ctx)
	if err != nil {
		return err
	}
	changed := false
	for id, hold := range wanted {
		if held[id] != hold && held[id] != mailbox.Purged {
			changed = true
			if err := h.lay(ctx, set, id, hold); err != nil {
				return err
			}
		}
	}
	for id, hold := range held {
		if _, barred := wanted[id]; !barred && hold == mailbox.Quarantined {
			changed = true
			if err := h.lay(ctx, set, id, mailbox.Free); err != nil {
				return err
			}
		}
	}
	if changed && h.node != nil {
		h.node.Tell(mailbox.News{Law: set.Number()})
	}
	return nil
}

// outdate has what is laid read again: others may have changed it.
func (h *holds) outdate() { h.old.Store(true) }

// wanted are the holds of all devices against whom something speaks.
func (h *holds) wanted(ctx context.Context, set *bulletin.Set) (map[mailbox.Device]mailbox.Hold, error) {
	out := make(map[mailbox.Device]mailbox.Hold)
	devices, people := set.Barred()
	for _, id := range devices {
		out[id] = holdOf(set.Device(id, identity.Address{}))
	}
	for _, address := range people {
		arrived, err := h.store.Arrived(ctx, address.String())
		if err != nil {
			return nil, err
		}
		for _, id := range arrived {
			out[id] = holdOf(set.Device(id, address))
		}
	}
	return out, nil
}

// holdOf says what is kept from a device of a standing.
func holdOf(s bulletin.Standing) mailbox.Hold {
	switch {
	case s.Good():
		return mailbox.Free
	case s.State == bulletin.Revoked && s.Confirmed:
		return mailbox.Purged
	}
	return mailbox.Quarantined
}

// now returns a copy of what is laid.
func (h *holds) now(ctx context.Context) (map[mailbox.Device]mailbox.Hold, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.read(ctx); err != nil {
		return nil, err
	}
	out := make(map[mailbox.Device]mailbox.Hold, len(h.done))
	for id, hold := range h.done {
		out[id] = hold
	}
	return out, nil
}

// read asks the store once. The caller holds h.mu.
func (h *holds) read(ctx context.Context) (err error) {
	if h.old.Swap(false) {
		h.done = nil
	}
	if h.done == nil {
		h.done, err = h.store.Holds(ctx)
		if h.done == nil && err == nil {
			h.done = make(map[mailbox.Device]mailbox.Hold)
		}
	}
	return err
}

// lay makes one device's hold what it is to be, if set is still in force.
func (h *holds) lay(ctx context.Context, set *bulletin.Set, id mailbox.Device, hold mailbox.Hold) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.set() != set {
		return errSuperseded
	}
	return h.change(ctx, id, hold)
}

// change does it in the store. The caller holds h.mu.
func (h *holds) change(ctx context.Context, id mailbox.Device, hold mailbox.Hold) error {
	var err error
	event := eventQuarantined
	switch hold {
	case mailbox.Purged:
		event, err = eventPurged, h.store.Purge(ctx, id)
	case mailbox.Quarantined:
		err = h.store.Quarantine(ctx, id, true)
	default:
		event, err = eventReleased, h.store.Quarantine(ctx, id, false)
	}
	if err != nil && !errors.Is(err, mailbox.ErrNotFound) {
		return fmt.Errorf("device %s: %w", identity.DeviceID(id), err)
	}
	if err == nil { // one that never arrived has nothing to hold
		h.tell(event, id)
	}
	if hold == mailbox.Free {
		delete(h.done, id)
		return nil
	}
	h.done[id] = hold
	return nil
}

// admit lifts a device's quarantine if it is in good standing: before it is welcomed,
// so that nothing is missing when it asks. false says that it has no mailbox any more.
func (h *holds) admit(ctx context.Context, d *identity.Device) (bool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.read(ctx); err != nil {
		return false, err
	}
	switch h.done[d.ID] {
	case mailbox.Purged:
		return false, nil
	case mailbox.Quarantined:
		if against(h.set(), d.ID, d.Address) == "" {
			err := h.change(ctx, d.ID, mailbox.Free)
			if errors.Is(err, mailbox.ErrOlderLaw) {
				h.behind()
			}
			return true, err
		}
	}
	return true, nil
}
