// SPDX-License-Identifier: Apache-2.0

package group

import (
	"errors"
	"fmt"

	"valise/gateway/mailbox"
	"valise/identity"
	"valise/mls"
)

// A Member is one leaf of a group and the device that its certificate proves.
type Member struct {
	Leaf   mls.LeafIndex
	Device *identity.Device
}

// A View is a group at one epoch. It never changes.
type View struct {
	ID      []byte
	Epoch   uint64
	Members []Member // by leaf

	byDevice map[identity.DeviceID]int
}

// Member returns a device's place in the group.
func (v *View) Member(d identity.DeviceID) (Member, bool) {
	i, ok := v.byDevice[d]
	if !ok {
		return Member{}, false
	}
	return v.Members[i], true
}

// Others lists the mailboxes of all members but one.
func (v *View) Others(but identity.DeviceID) []mailbox.Device {
	out := make([]mailbox.Device, 0, len(v.Members))
	for _, m := range v.Members {
		if m.Device.ID != but {
			out = append(out, m.Device.ID)
		}
	}
	return out
}

// without lists the devices that are not in another view.
func (v *View) without(other *View) (out []mailbox.Device) {
	for _, m := range v.Members {
		if _, both := other.byDevice[m.Device.ID]; !both {
			out = append(out, m.Device.ID)
		}
	}
	return out
}

// NewView returns the view of a group with these members, at leaves 0 and up.
func NewView(id []byte, epoch uint64, devices ...*identity.Device) *View {
	v := &View{ID: id, Epoch: epoch, byDevice: make(map[identity.DeviceID]int)}
	for i, d := range devices {
		v.byDevice[d.ID] = i
		v.Members = append(v.Members, Member{mls.LeafIndex(i), d})
	}
	return v
}

func newView(id []byte, epoch uint64, members []mls.Member, auth authority) (*View, error) {
	v := &View{ID: id, Epoch: epoch, byDevice: make(map[identity.DeviceID]int, len(members))}
	if len(members) > MaxMembers {
		return nil, fmt.Errorf("group: %d members, at most %d are allowed", len(members), MaxMembers)
	}
	for _, m := range members {
		device, err := auth.device(m.Credential)
		if err != nil {
			return nil, err
		}
		if _, twice := v.byDevice[device.ID]; twice {
			return nil, fmt.Errorf("group: device %s has two leaves", device.ID)
		}
		v.byDevice[device.ID] = len(v.Members)
		v.Members = append(v.Members, Member{m.Leaf, device})
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
