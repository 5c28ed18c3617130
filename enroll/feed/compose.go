// SPDX-License-Identifier: Apache-2.0

package feed

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"valise/bulletin"
	"valise/identity"
	"valise/record"
	"valise/statement"
)

// compose makes the next bulletin of the record as this process knows it; nil
// before the first manifest. Rows of the database add to it only devices that
// stand behind a card or a root that officers suspended.
func (f *Feed) compose(ctx context.Context) (*bulletin.Bulletin, error) {
	var (
		b         *bulletin.Bulletin
		standings []record.Standing
		ok        bool
	)
	f.cfg.Book.View(func(s *record.State) {
		if b, ok = f.head(s); !ok {
			return
		}
		standings = s.Standings()
		b.People = people(s, standings)
		b.Officers = officers(s)
	})
	if !ok {
		return nil, nil
	}
	devices := make(map[identity.DeviceID]bulletin.DeviceStanding)
	for _, now := range standings {
		all, err := f.devicesOf(ctx, now.Target)
		if err != nil {
			return nil, err
		}
		for _, id := range all {
			d := bulletin.DeviceStanding{ID: id, State: stateOf(now), Since: since(now.Since, b.Time), Reason: "leaf:" + strconv.FormatInt(now.Leaf, 10)}
			if old, twice := devices[id]; !twice || old.State == bulletin.Suspended && d.State == bulletin.Revoked {
				devices[id] = d
			}
		}
	}
	if f.cfg.Distrusted != nil {
		for _, d := range f.cfg.Distrusted() {
			if _, known := devices[d.ID]; !known {
				devices[d.ID] = bulletin.DeviceStanding{ID: d.ID, State: bulletin.Suspended, Since: since(d.Since, b.Time), Reason: word(d.Reason)}
			}
		}
	}
	b.Devices = slices.SortedFunc(maps.Values(devices), func(a, b bulletin.DeviceStanding) int { return a.ID.Compare(b.ID) })
	return b, nil
}

// devicesOf returns the devices that a standing is about by themselves, not by
// their person.
func (f *Feed) devicesOf(ctx context.Context, t statement.Target) ([]identity.DeviceID, error) {
	if t.Kind != statement.TargetDevice && t.Kind != statement.TargetSerial && t.Kind != statement.TargetRoot {
		return nil, nil
	}
	all := t.All()
	if t.Kind == statement.TargetDevice || f.cfg.Devices == nil {
		return all, nil
	}
	more, err := f.cfg.Devices(ctx, t)
	return append(all, more...), err
}

// word makes a reason that a bulletin can hold: one that it could not would keep
// all bulletins back.
func word(reason string) string {
	clean := strings.Map(func(r rune) rune {
		if 'a' <= r && r <= 'z' || '0' <= r && r <= '9' || strings.ContainsRune("_-:", r) {
			return r
		}
		return '_'
	}, reason)
	return clean[:min(len(clean), bulletin.MaxReason)]
}

func stateOf(now record.Standing) bulletin.State {
	if now.State == record.Revoked {
		return bulletin.Revoked
	}
	return bulletin.Suspended
}

// since is a time that a bulletin can hold.
func since(t, otherwise time.Time) time.Time {
	if t.Unix() <= 0 {
		return otherwise
	}
	return t.UTC().Truncate(time.Second)
}

// people lists those who are suspended, revoked or removed, and those of whom a
// certificate says more than the roster allows now.
func people(s *record.State, standings []record.Standing) []bulletin.PersonStanding {
	all := make(map[identity.Address]bulletin.PersonStanding)
	for p := range s.People() {
		line := bulletin.PersonStanding{Address: p.Address, State: bulletin.Active, Since: since(p.Changed, s.Time()), Ceiling: p.Clearance}
		if p.Removed {
			line.State, line.Ceiling = bulletin.Removed, nil
		}
		if p.Removed || says(s.KeysOf(p.Address), p.Clearance) {
			all[p.Address] = line
		}
	}
	for _, now := range standings {
		if now.Target.Kind != statement.TargetPerson {
			continue
		}
		line, listed := all[now.Target.Address]
		if listed && line.State == bulletin.Removed {
			continue
		}
		p, _ := s.Person(now.Target.Address)
		all[now.Target.Address] = bulletin.PersonStanding{
			Address: now.Target.Address, State: stateOf(now), Since: since(now.Since, s.Time()), Ceiling: p.Clearance,
		}
	}
	return slices.SortedFunc(maps.Values(all), func(a, b bulletin.PersonStanding) int {
		return cmp.Compare(a.Address.String(), b.Address.String())
	})
}

// says tells whether a certificate of one of the keys says more than a
// clearance. Membership outlives certificates, so one that has ended counts too
// while the record knows it.
func says(keys []record.Key, clearance *identity.Clearance) bool {
	return slices.ContainsFunc(keys, func(k record.Key) bool {
		return slices.ContainsFunc(k.Certificates, func(c record.Certificate) bool { return !clearance.Covers(c.Clearance) })
	})
}

// officers lists all that ever were.
func officers(s *record.State) []bulletin.OfficerStanding {
	var all []bulletin.OfficerStanding
	for _, o := range s.Officers() {
		line := bulletin.OfficerStanding{Key: o.Key, Address: o.Address, Role: o.Role, State: bulletin.Active}
		switch {
		case !o.Dismissed.IsZero():
			line.State = bulletin.Dismissed
		default:
			if _, err := s.Officer(o.Key); err != nil {
				line.State = bulletin.Suspended
			}
		}
		all = append(all, line)
	}
	slices.SortFunc(all, func(a, b bulletin.OfficerStanding) int { return a.Key.Compare(b.Key) })
	return all
}
