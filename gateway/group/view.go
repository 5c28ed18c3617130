// SPDX-License-Identifier: Apache-2.0

package group

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"valise/gateway/mailbox"
	"valise/identity"
	"valise/mls"
)

// A Member is one leaf of a group and the device that its certificate proves.
type Member struct {
	Leaf   mls.LeafIndex
	Device *identity.Device
}

// A View is a group at one epoch. It never changes, but for what is attached to it.
type View struct {
	ID      []byte
	Epoch   uint64
	Members []Member // by leaf

	ids      []identity.DeviceID       // of Members, side by side: a message looks at all of them
	byDevice map[identity.DeviceID]int // nil for few members
	attached atomic.Value
}

// fewMembers are looked through faster than a map finds one.
const fewMembers = 8

// index returns a device's place among the members, -1 if it has none.
func (v *View) index(d identity.DeviceID) int {
	if v.byDevice != nil {
		if i, ok := v.byDevice[d]; ok {
			return i
		}
		return -1
	}
	return slices.Index(v.ids, d)
}

// add puts a member behind the others; false if its device is there already.
func (v *View) add(m Member) bool {
	id := m.Device.ID
	if v.index(id) >= 0 {
		return false
	}
	v.Members, v.ids = append(v.Members, m), append(v.ids, id)
	switch {
	case v.byDevice != nil:
		v.byDevice[id] = len(v.ids) - 1
	case len(v.ids) > fewMembers:
		v.byDevice = make(map[identity.DeviceID]int)
		for i, id := range v.ids {
			v.byDevice[id] = i
		}
	}
	return true
}

// Member returns a device's place in the group.
func (v *View) Member(d identity.DeviceID) (Member, bool) {
	i := v.index(d)
	if i < 0 {
		return Member{}, false
	}
	return v.Members[i], true
}

// Others lists the mailboxes of all members but one.
func (v *View) Others(but identity.DeviceID) []mailbox.Device {
	out := make([]mailbox.Device, 0, len(v.ids))
	for _, id := range v.ids {
		if id != but {
			out = append(out, id)
		}
	}
	return out
}

// without lists the devices that are not in another view.
func (v *View) without(other *View) (out []mailbox.Device) {
	for _, id := range v.ids {
		if other.index(id) < 0 {
			out = append(out, id)
		}
	}
	return out
}

// Attach keeps with a view what its user has worked out about it, and Attached returns
// that: so it needs not be looked up again for each message. It is always of one type.
func (v *View) Attach(x any) { v.attached.Store(x) }

// Attached returns what was attached last, nil if nothing was.
func (v *View) Attached() any { return v.attached.Load() }

// NewView returns the view of a group with these members, at leaves 0 and up.
func NewView(id []byte, epoch uint64, devices ...*identity.Device) *View {
	v := &View{ID: id, Epoch: epoch}
	for i, d := range devices {
		v.add(Member{mls.LeafIndex(i), d})
	}
	return v
}

func newView(id []byte, epoch uint64, members []mls.Member, auth authority) (*View, error) {
	v := &View{ID: id, Epoch: epoch}
	if len(members) > MaxMembers {
		return nil, fmt.Errorf("group: %d members, at most %d are allowed", len(members), MaxMembers)
	}
	for _, m := range members {
		device, err := auth.device(m.Credential)
		if err != nil {
			return nil, err
		}
		if !v.add(Member{m.Leaf, device}) {
			return nil, fmt.Errorf("group: device %s has two leaves", device.ID)
		}
	}
	return v, nil
}

// authority is the gateway's Authentication Service (RFC 9420, Section 5.3.1):
// a leaf's chain is judged as of the moment its certificate was issued, because
// expiry governs connections and not membership.
type authority struct{ trust *identity.Trust }

var errNotX509 = errors.New("group: a leaf's credential is not a certificate chain")

// Authenticate implements mls.Authenticator.
func (a authority) Authenticate(c mls.Credential, _ []byte) error {
	_, err := a.device(c)
	return err
}

func (a authority) device(c mls.Credential) (*identity.Device, error) {
	if c.Type != mls.CredentialX509 {
		return nil, errNotX509
	}
	at, err := identity.IssuedAt(c.Certificates)
	if err != nil {
		return nil, err
	}
	return a.trust.Device(c.Certificates, at)
}
