// SPDX-License-Identifier: Apache-2.0

package wire

import "encoding/binary"

// A Result ends a request that has no answer of its own, or that was refused.
//
//	struct { uint32 id; uint16 code; opaque detail<0..255>; } Result;
type Result struct {
	id
	Code   Code
	Detail []byte // StaleEpoch: the group's epoch, uint64; RecipientRefused, NotCleared, CeilingLowered, RemovalDue: the device, or nothing
}

// Type implements Frame.
func (*Result) Type() Type { return TypeResult }

// AnswerTo implements Answer.
func (r *Result) AnswerTo() uint32 { return r.ID }

func (r *Result) fields(f field) {
	f.u32(&r.ID)
	f.u16((*uint16)(&r.Code))
	f.opaque(&r.Detail, 0, 255)
}

// Stale makes the Result for a commit or message of an epoch that has passed.
func Stale(to uint32, epoch uint64) *Result {
	return &Result{id: id{to}, Code: StaleEpoch, Detail: binary.BigEndian.AppendUint64(nil, epoch)}
}

// ResultAbout makes the Result of a request that is refused because of a device.
func ResultAbout(to uint32, code Code, device [32]byte) *Result {
	return &Result{id: id{to}, Code: code, Detail: device[:]}
}

// About returns the device that a refusal is about; false if it names none.
func (r *Result) About() (device [32]byte, ok bool) {
	switch r.Code {
	case RecipientRefused, NotCleared, CeilingLowered, RemovalDue, MailboxFull:
		if len(r.Detail) == len(device) {
			return [32]byte(r.Detail), true
		}
	}
	return device, false
}

// NewResult makes the Result with which a request ends.
func NewResult(to uint32, code Code) *Result { return &Result{id: id{to}, Code: code} }

// KeyPackages answers GetKeyPackages: at most one for each device.
//
//	struct { opaque device[32]; uint8 last_resort; opaque package<1..2^16-1>; } Entry;
//	struct { uint32 id; Entry entries<0..2^24-1>; } KeyPackages;
type KeyPackages struct {
	id
	Entries []KeyPackageEntry
}

// A KeyPackageEntry is one device's KeyPackage.
type KeyPackageEntry struct {
	Device     [32]byte
	LastResort bool
	Package    []byte
}

// Type implements Frame.
func (*KeyPackages) Type() Type { return TypeKeyPackages }

// AnswerTo implements Answer.
func (k *KeyPackages) AnswerTo() uint32 { return k.ID }

func (k *KeyPackages) fields(f field) {
	f.u32(&k.ID)
	f.list(len(k.Entries), MaxDevices, func() { k.Entries = append(k.Entries, KeyPackageEntry{}) }, func(i int) {
		e := &k.Entries[i]
		f.fixed(e.Device[:])
		f.flag(&e.LastResort)
		f.opaque(&e.Package, 1, MaxKeyPackage)
	})
}

// Group answers GetGroup.
//
//	struct { uint32 id; uint64 epoch; opaque group_info<1..2^24-1>; opaque tree<1..2^24-1>; } Group;
type Group struct {
	id
	Epoch     uint64
	GroupInfo []byte
	Tree      []byte
}

// Type implements Frame.
func (*Group) Type() Type { return TypeGroup }

// AnswerTo implements Answer.
func (g *Group) AnswerTo() uint32 { return g.ID }

func (g *Group) fields(f field) {
	f.u32(&g.ID)
	f.u64(&g.Epoch)
	f.opaque(&g.GroupInfo, 1, MaxGroupInfo)
	f.opaque(&g.Tree, 1, MaxTree)
}

// Directory answers GetDirectory. Chains are the devices' own certificates,
// leaf first; the asker verifies them, the gateway is not believed.
//
//	struct { opaque certificate<1..2^16-1> chain<1..2^24-1>; } Entry;
//	struct { uint32 id; Entry entries<0..2^24-1>; } Directory;
type Directory struct {
	id
	Chains [][][]byte
}

// Type implements Frame.
func (*Directory) Type() Type { return TypeDirectory }

// AnswerTo implements Answer.
func (d *Directory) AnswerTo() uint32 { return d.ID }

func (d *Directory) fields(f field) {
	f.u32(&d.ID)
	f.list(len(d.Chains), MaxDirectory, func() { d.Chains = append(d.Chains, nil) }, func(i int) {
		opaqueList(f, &d.Chains[i], MaxChain, 1<<16-1)
		f.check(len(d.Chains[i]) > 0)
	})
}
