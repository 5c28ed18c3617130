// SPDX-License-Identifier: Apache-2.0

package bulletin

import (
	"strings"
	"time"

	"valise/identity"
)

// lastSecond is the last that X.509 can write (RFC 5280, Section 4.1.2.5).
const lastSecond = 253402300799

// maxSize is the ledger's bound on its leaves.
const maxLeaves = 1 << 48

// check applies what holds for every bulletin, to ours before we sign it too.
func (b *Bulletin) check() error {
	switch {
	case b.Number == 0 || b.Number > 1<<53:
		return refuse("number %d, they count from 1", b.Number)
	case b.Manifest == 0 || b.Manifest > 1<<53:
		return refuse("manifest %d, they count from 1", b.Manifest)
	case !validTime(b.Time) || !validTime(b.Next) || !b.Next.After(b.Time):
		return refuse("made at %v, the next one due at %v", b.Time, b.Next)
	case b.LedgerSize < 0 || b.LedgerSize > maxLeaves:
		return refuse("made from a record of %d leaves", b.LedgerSize)
	case len(b.Devices) > maxListed || len(b.People) > maxListed || len(b.Officers) > maxOfficers:
		return refuse("%d devices, %d people, %d officers are too many", len(b.Devices), len(b.People), len(b.Officers))
	}
	if err := b.checkDevices(); err != nil {
		return err
	}
	if err := b.checkPeople(); err != nil {
		return err
	}
	return b.checkOfficers()
}

func (b *Bulletin) checkDevices() error {
	for i, d := range b.Devices {
		switch {
		case d.State != Suspended && d.State != Revoked:
			return refuse("device %s is %.20q", d.ID, d.State)
		case i > 0 && b.Devices[i-1].ID.Compare(d.ID) >= 0:
			return refuse("device %s is out of order", d.ID)
		case !validTime(d.Since):
			return refuse("device %s: since %v", d.ID, d.Since)
		case len(d.Reason) > MaxReason || strings.IndexFunc(d.Reason, notWord) >= 0:
			return refuse("device %s: the reason %.80q is no word", d.ID, d.Reason)
		}
	}
	return nil
}

func (b *Bulletin) checkPeople() error {
	for i, p := range b.People {
		switch {
		case p.State != Active && p.State != Suspended && p.State != Revoked && p.State != Removed:
			return refuse("%s is %.20q", p.Address, p.State)
		case p.Address.IsZero() || i > 0 && b.People[i-1].Address.String() >= p.Address.String():
			return refuse("%s is out of order", p.Address)
		case !validTime(p.Since):
			return refuse("%s: since %v", p.Address, p.Since)
		}
	}
	return nil
}

func (b *Bulletin) checkOfficers() error {
	for i, o := range b.Officers {
		switch {
		case o.State != Active && o.State != Suspended && o.State != Dismissed:
			return refuse("officer %s is %.20q", o.Address, o.State)
		case o.Address.IsZero():
			return refuse("an officer without an address")
		case i > 0 && b.Officers[i-1].Key.Compare(o.Key) >= 0:
			return refuse("officer %s is out of order", o.Address)
		}
		if _, err := identity.ParseRole(string(o.Role)); err != nil {
			return refuse("officer %s: %w", o.Address, err)
		}
	}
	return nil
}

func notWord(r rune) bool {
	return !('a' <= r && r <= 'z' || '0' <= r && r <= '9' || r == '_' || r == '-' || r == ':')
}

func validTime(t time.Time) bool {
	return t.Nanosecond() == 0 && t.Unix() > 0 && t.Unix() <= lastSecond
}
