// SPDX-License-Identifier: Apache-2.0

package statement

import (
	"encoding/hex"
	"fmt"
	"slices"

	"valise/identity"
)

// The kinds of a Target.
const (
	TargetDevice  = "device"  // Device
	TargetPerson  = "person"  // Address: all that the person has
	TargetSerial  = "serial"  // Serial: all keys of one card
	TargetRoot    = "root"    // Root: all keys that one vendor's root vouches for
	TargetOfficer = "officer" // Address: as an officer, not as a person
)

// A Target is what a suspension, resumption or revocation is about. Exactly
// the field that belongs to Kind is set.
type Target struct {
	Kind    string
	Device  identity.DeviceID
	Address identity.Address
	Serial  string   // hexadecimal SHA-256 of "format:serial", so that no serial number leaves the authority
	Root    [32]byte // SHA-256 of a vendor's root certificate

	// Devices are those that the desk found behind Address, Serial or Root when
	// the officer signed, ascending, so that a gateway can obey at once. The
	// statement covers the others all the same.
	Devices []identity.DeviceID
}

// All returns the devices that the statement names.
func (t *Target) All() []identity.DeviceID {
	if t.Kind == TargetDevice {
		return []identity.DeviceID{t.Device}
	}
	return slices.Clone(t.Devices)
}

func (t *Target) members(m *members) {
	m.name("target")
	m.object(func() {
		choice(m, "kind", &t.Kind, TargetDevice, TargetPerson, TargetSerial, TargetRoot, TargetOfficer)
		m.hash("device", (*[32]byte)(&t.Device))
		m.anyAddress("address", &t.Address)
		var serial [32]byte
		if !m.reading && t.Serial != "" {
			id, err := identity.ParseDeviceID(t.Serial)
			m.check(err == nil && !id.IsZero(), "serial: want 64 lower-case hexadecimal digits")
			serial = id
		}
		m.hash("serial", &serial)
		if m.reading && serial != [32]byte{} {
			t.Serial = hex.EncodeToString(serial[:])
		}
		m.hash("root", &t.Root)
		list(m, "devices", &t.Devices, MaxDevices, func(id *identity.DeviceID) {
			m.anyHash((*[32]byte)(id))
			m.check(!id.IsZero(), "devices: an empty one")
		})
	})
	m.check(slices.IsSortedFunc(t.Devices, identity.DeviceID.Compare) && len(slices.Compact(slices.Clone(t.Devices))) == len(t.Devices),
		"devices: they are not in ascending order, each once")
	m.check(t.fits(), "target: a %s needs exactly the member that names it", t.Kind)
}

// fits reports whether the one field that Kind wants is set, and no other.
func (t *Target) fits() bool {
	set := map[string]bool{
		TargetDevice: !t.Device.IsZero(), TargetPerson: !t.Address.IsZero(), TargetSerial: t.Serial != "", TargetRoot: t.Root != [32]byte{},
	}
	want := t.Kind
	if want == TargetOfficer {
		want = TargetPerson
	}
	for kind, is := range set {
		if is != (kind == want) {
			return false
		}
	}
	return t.Kind != TargetDevice && t.Kind != TargetOfficer || len(t.Devices) == 0
}

// words names the target and what it is known to cover.
func (t *Target) words() []string {
	lines := []string{t.name()}
	switch {
	case t.Kind == TargetDevice || t.Kind == TargetOfficer:
		return lines
	case len(t.Devices) == 0:
		return append(lines, "devices: none known")
	}
	for _, id := range t.Devices {
		lines = append(lines, "device: "+id.String())
	}
	return lines
}

func (t *Target) name() string {
	switch t.Kind {
	case TargetDevice:
		return "the device " + t.Device.String()
	case TargetPerson:
		return "the person " + t.Address.String() + ", with every device"
	case TargetSerial:
		return "every key of the card whose number has the hash " + t.Serial
	case TargetRoot:
		return fmt.Sprintf("every device under the vendor's root %x", t.Root)
	case TargetOfficer:
		return "the officer " + t.Address.String() + ", in that role only"
	}
	return "nothing that can be named"
}
