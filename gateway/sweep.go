// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"valise/bulletin"
	"valise/gateway/group"
	"valise/gateway/mailbox"
	"valise/identity"
	"valise/wire"
)

// A sweep looks for the groups of devices that are out of good standing among those that
// are not in memory, so that they are cleared too although nobody writes in them. It reads
// the store page by page, takes a small part of one processor, and begins anew when
// somebody is barred who was not when it began; after a restart, too.
type sweep struct {
	store  mailbox.Store
	groups *group.Registry
	set    func() *bulletin.Set
	room   func() bool // for more groups that wait for a removal
	log    *slog.Logger
	news   chan struct{}
	page   int

	swept func(groups int) // told after each walk; for tests, may be nil
}

// barredThen are those against whom something spoke at a moment.
type barredThen struct {
	devices map[identity.DeviceID]bool
	people  map[identity.Address]bool
}

// nudge has it look whether there is anything to do.
func (w *sweep) nudge() {
	select {
	case w.news <- struct{}{}:
	default:
	}
}

// run walks whenever somebody new is barred, until ctx ends.
func (w *sweep) run(ctx context.Context) error {
	known := barredNow(bulletin.NewSet())
	for ctx.Err() == nil {
		now := barredNow(w.set())
		if !now.within(known) {
			err := w.walk(ctx)
			if ctx.Err() != nil {
				return nil
			}
			if err != nil {
				w.log.Error("idle groups were not looked through; tried again soon", "error", err)
				pauseFor(ctx, holdPause)
				continue
			}
		}
		known = now
		select {
		case <-ctx.Done():
		case <-w.news:
		}
	}
	return nil
}

// walk looks at every group in the store.
func (w *sweep) walk(ctx context.Context) error {
	began, all, damaged := time.Now(), 0, 0
	for after := int64(0); ; {
		for !w.room() {
			pauseFor(ctx, holdPause)
			if ctx.Err() != nil {
				return nil
			}
		}
		ids, last, err := w.store.Groups(ctx, after, w.page)
		if err != nil {
			return err
		}
		for _, id := range ids {
			start := time.Now()
			err := w.groups.Visit(ctx, id)
			var refused *group.Refusal
			switch {
			case ctx.Err() != nil:
				return nil
			case errors.As(err, &refused) && refused.Code == wire.UnknownGroup:
			case err != nil: // the others are not to wait for it
				damaged++
				w.log.Warn("a group could not be looked at", "group", hexOf(id), "error", err)
			}
			all++
			pauseFor(ctx, sweepRest*time.Since(start))
		}
		if after = last; len(ids) < w.page {
			break
		}
	}
	w.log.Info("idle groups were looked through for devices that are out of good standing", "groups", all, "unreadable", damaged, "took", time.Since(began).Round(time.Millisecond).String())
	if w.swept != nil {
		w.swept(all)
	}
	return nil
}

// pauseFor waits, at most until ctx ends.
func pauseFor(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func barredNow(set *bulletin.Set) barredThen {
	out := barredThen{make(map[identity.DeviceID]bool), make(map[identity.Address]bool)}
	devices, people := set.Barred()
	for _, id := range devices {
		out.devices[id] = true
	}
	for _, address := range people {
		out.people[address] = true
	}
	return out
}

// within tells whether all of them are among others.
func (b barredThen) within(others barredThen) bool {
	for id := range b.devices {
		if !others.devices[id] {
			return false
		}
	}
	for address := range b.people {
		if !others.people[address] {
			return false
		}
	}
	return true
}
