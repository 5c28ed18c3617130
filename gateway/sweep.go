// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"time"

	"valise/bulletin"
	"valise/gateway/group"
	"valise/gateway/mailbox"
	"valise/identity"
	"valise/wire"
)

// A sweep looks for the groups of devices that are out of good standing among those that
// are not in memory, so that they are cleared too although nobody writes in them. The store
// knows them by device: who is suspended costs a look at his groups, not at all that there
// are. It reads page by page, takes a small part of one processor, and looks for those who
// are barred and were not when it looked last; after a restart, for all of them.
type sweep struct {
	store  mailbox.Store
	groups *group.Registry
	set    func() *bulletin.Set
	denied func() denyList // by the operator
	room   func() bool     // for more groups that wait for a removal
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
	known, begun := barredNow(bulletin.NewSet(), nil), false
	for ctx.Err() == nil {
		now := barredNow(w.set(), w.denied())
		if fresh := now.without(known); !begun || fresh.any() {
			err := w.walk(ctx, fresh)
			if ctx.Err() != nil {
				return nil
			}
			if err != nil {
				w.log.Error("idle groups were not looked through; tried again soon", "error", err)
				pauseFor(ctx, holdPause)
				continue
			}
		}
		known, begun = now, true
		select {
		case <-ctx.Done():
		case <-w.news:
		}
	}
	return nil
}

// A walk is one look at groups in the store.
type walk struct {
	*sweep
	all, unreadable int
}

// walk looks at every group in the store of those who are barred; first, and once for
// each, at groups of which the store does not know by device who stands in them.
func (w *sweep) walk(ctx context.Context, barred barredThen) error {
	began, on := time.Now(), &walk{sweep: w}
	if err := on.pages(ctx, w.store.Unlisted, w.groups.List); err != nil || ctx.Err() != nil {
		return err
	}
	devices := slices.Collect(maps.Keys(barred.devices))
	for address := range barred.people {
		arrived, err := w.store.Arrived(ctx, address.String())
		if err != nil {
			return err
		}
		for _, d := range arrived {
			if !barred.devices[d] {
				devices = append(devices, d)
			}
		}
	}
	for _, d := range devices {
		of := func(ctx context.Context, after int64, limit int) ([][]byte, int64, error) {
			return w.store.GroupsOf(ctx, d, after, limit)
		}
		if err := on.pages(ctx, of, w.groups.Visit); err != nil || ctx.Err() != nil {
			return err
		}
	}
	w.log.Info("idle groups were looked through for devices that are out of good standing", "devices", len(devices), "groups", on.all, "unreadable", on.unreadable, "took", time.Since(began).Round(time.Millisecond).String())
	if w.swept != nil {
		w.swept(on.all)
	}
	return nil
}

// pages has each group of a list dealt with. It returns nil when ctx has ended.
func (w *walk) pages(ctx context.Context, list func(context.Context, int64, int) ([][]byte, int64, error), do func(context.Context, []byte) error) error {
	for after := int64(0); ; {
		for !w.room() {
			pauseFor(ctx, holdPause)
			if ctx.Err() != nil {
				return nil
			}
		}
		ids, last, err := list(ctx, after, w.page)
		if err != nil {
			return err
		}
		for _, id := range ids {
			start := time.Now()
			err := do(ctx, id)
			var refused *group.Refusal
			switch {
			case ctx.Err() != nil:
				return nil
			case errors.As(err, &refused) && refused.Code == wire.UnknownGroup:
			case err != nil: // the others are not to wait for it
				w.unreadable++
				w.log.Warn("a group could not be looked at", "group", hexOf(id), "error", err)
			}
			w.all++
			pauseFor(ctx, sweepRest*time.Since(start))
		}
		if after = last; len(ids) < w.page {
			return nil
		}
	}
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

func barredNow(set *bulletin.Set, denied denyList) barredThen {
	out := barredThen{maps.Clone(denied), make(map[identity.Address]bool)}
	if out.devices == nil {
		out.devices = make(map[identity.DeviceID]bool)
	}
	devices, people := set.Barred()
	for _, id := range devices {
		out.devices[id] = true
	}
	for _, address := range people {
		out.people[address] = true
	}
	return out
}

// without are those who are not among others.
func (b barredThen) without(others barredThen) barredThen {
	out := barredThen{make(map[identity.DeviceID]bool), make(map[identity.Address]bool)}
	for id := range b.devices {
		if !others.devices[id] {
			out.devices[id] = true
		}
	}
	for address := range b.people {
		if !others.people[address] {
			out.people[address] = true
		}
	}
	return out
}

func (b barredThen) any() bool { return len(b.devices)+len(b.people) > 0 }
