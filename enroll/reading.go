// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"context"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"time"

	"valise/enroll/desk/call"
	"valise/identity"
	"valise/internal/store/authority"
	"valise/record"
	"valise/statement"
)

// Roster implements desk.Backend.
func (a *Authority) Roster(_ context.Context, after string, limit int) ([]call.Person, error) {
	all := []call.Person{}
	a.book().View(func(s *record.State) {
		for p := range s.People() {
			if p.Address.String() > after {
				all = append(all, personOf(s, p))
			}
		}
	})
	slices.SortFunc(all, func(a, b call.Person) int { return strings.Compare(a.Address.String(), b.Address.String()) })
	return all[:min(limit, len(all))], nil
}

func personOf(s *record.State, p record.Person) call.Person {
	out := call.Person{Address: p.Address, Name: p.Name, Unit: p.Unit, State: "active", Previous: digestText(s.Previous(p.Address))}
	if p.Clearance != nil {
		out.Clearance, _ = p.Clearance.Marshal() // it was read from a statement
	}
	if now := s.PersonStanding(p.Address); now.State != "" {
		out.State = record.Suspended
		if now.State == record.Revoked {
			out.State = "removed"
		}
	}
	if p.Removed {
		out.State = "removed"
	}
	return out
}

// Person implements desk.Backend.
func (a *Authority) Person(_ context.Context, address identity.Address) (out call.Person, err error) {
	a.book().View(func(s *record.State) {
		p, ok := s.Person(address)
		if !ok {
			out = call.Person{Address: address, State: "unknown", Previous: digestText(s.Previous(address))}
			return
		}
		out = personOf(s, p)
		for _, k := range s.KeysOf(address) {
			if k.Kind == record.KindDevice {
				out.Devices = append(out.Devices, deviceOf(s, k))
			}
		}
	})
	return out, nil
}

func deviceOf(s *record.State, k record.Key) call.Device {
	newest := k.Newest()
	d := call.Device{ID: k.ID, Address: k.Address, State: "active", Tier: newest.Tier, Expires: newest.NotAfter}
	if now := s.Device(k.ID); now.State != "" {
		d.State = now.State
	}
	return d
}

// Devices implements desk.Backend. Serial numbers and vendors' roots stand in the
// evidence, and nowhere else.
func (a *Authority) Devices(ctx context.Context, t statement.Target) ([]identity.DeviceID, error) {
	all, err := a.Behind(ctx, t)
	return all[:min(len(all), statement.MaxDevices)], err
}

// Behind returns all devices behind a person, a card's serial number or a vendor's
// root, ascending.
func (a *Authority) Behind(ctx context.Context, t statement.Target) ([]identity.DeviceID, error) {
	all := []identity.DeviceID{}
	switch t.Kind {
	case statement.TargetPerson:
		a.book().View(func(s *record.State) {
			for _, k := range s.KeysOf(t.Address) {
				if k.Kind == record.KindDevice {
					all = append(all, k.ID)
				}
			}
		})
	case statement.TargetSerial, statement.TargetRoot:
		hardware, err := a.hardware(ctx)
		if err != nil {
			return nil, err
		}
		for id, h := range hardware {
			if t.Kind == statement.TargetSerial && h.serial == t.Serial || t.Kind == statement.TargetRoot && h.root == hex.EncodeToString(t.Root[:]) {
				all = append(all, id)
			}
		}
	case statement.TargetDevice:
		all = append(all, t.Device)
	}
	slices.SortFunc(all, identity.DeviceID.Compare)
	return all, nil
}

// Rules implements desk.Backend.
func (a *Authority) Rules(context.Context) (out call.Rules, err error) {
	a.book().View(func(s *record.State) {
		e, p := s.Endorsements(), s.Appraisal()
		out = call.Rules{
			Endorsements: string(e.Raw), EndorsementsPrevious: digestText(e.Previous),
			Appraisal: string(p.Raw), AppraisalPrevious: digestText(p.Previous),
		}
		if b := s.Bundle(); b.Version > 0 {
			out.Bundle, out.BundleVersion, out.BundlePrevious = hex.EncodeToString(b.Hash[:]), b.Version, digestText(b.Previous)
		}
	})
	return out, nil
}

// Profiles implements desk.Backend.
func (a *Authority) Profiles(context.Context) ([]call.Profile, error) {
	all := []call.Profile{}
	a.book().View(func(s *record.State) {
		for _, p := range s.Profiles() {
			all = append(all, call.Profile{
				Name: p.Name, Version: p.Version, Approvals: p.Approvals, Validity: int64(p.Validity / time.Second),
				Grace: int64(p.Grace / time.Second), Tiers: p.Tiers, Previous: digestText(p.Previous),
			})
		}
	})
	return all, nil
}

// Proposals implements desk.Backend.
func (a *Authority) Proposals(_ context.Context, limit int) ([]call.Proposal, error) {
	var waiting []record.Ballot
	a.book().View(func(s *record.State) { waiting = s.Waiting(a.cfg.Now()) })
	all := []call.Proposal{}
	for _, b := range waiting[:min(limit, len(waiting))] {
		sign, err := call.NewSignable(b.Body)
		if err != nil {
			return nil, err
		}
		all = append(all, call.Proposal{Signable: sign, Signed: signed(b.Signatures), Needs: b.Needs, Expires: b.Expires()})
	}
	return all, nil
}

// Standings implements desk.Backend.
func (a *Authority) Standings(_ context.Context, limit int) ([]call.Standing, error) {
	var known []record.Standing
	a.book().View(func(s *record.State) { known = s.Standings() })
	all := []call.Standing{}
	for _, n := range known[:min(limit, len(known))] {
		all = append(all, call.Standing{
			Kind: n.Target.Kind, Name: targetName(&n.Target), State: n.State, Since: n.Since, Reason: n.Reason, By: n.By, Devices: n.Target.Devices,
		})
	}
	return all, nil
}

func targetName(t *statement.Target) string {
	switch t.Kind {
	case statement.TargetDevice:
		return t.Device.String()
	case statement.TargetSerial:
		return t.Serial
	case statement.TargetRoot:
		return hex.EncodeToString(t.Root[:])
	}
	return t.Address.String()
}

// Items implements desk.Backend.
func (a *Authority) Items(ctx context.Context, from int64, limit int) (out call.Items, err error) {
	err = a.cfg.Store.View(ctx, func(tx *authority.Tx) error {
		out = call.Items{Items: []call.Item{}}
		newest, err := tx.LatestCheckpoint()
		if err != nil && !errors.Is(err, authority.ErrNotFound) {
			return err
		}
		out.Checkpoint = string(newest.Note)
		items, err := tx.Items(from, limit)
		for _, i := range items {
			out.Items = append(out.Items, call.Item{Index: i.Index, Entry: i.Entry.Marshal(), Payload: i.Payload})
		}
		return err
	})
	return out, err
}
