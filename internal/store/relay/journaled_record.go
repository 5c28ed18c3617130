// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"encoding/binary"
	"errors"
	"math"
	"slices"

	"valise/gateway/mailbox"
)

// A batch in the journal is
//
//	uint8 version = 1; Item items<0..*>;
//
// and an item is one of those below. Integers are as short as encoding/binary's
// Uvarint and Varint make them, and byte strings carry their length in front.
// A step, a message and a KeyPackage belong to the submission before them. What
// a state says holds after the batch: a batch can be read again although the
// database has a part of it already.
const recordVersion = 1

// itemTag says what follows.
type itemTag uint8

const (
	tagArrival    itemTag = 1 // id, device[32], address, chain, time, began, incarnation[16]
	tagSubmission itemTag = 2 // device id, counter, hash[32], time, incarnation[16]
	tagStep       itemTag = 3 // create, row, group, from, to, info, count, {key, present, value}
	tagMessage    itemTag = 4 // kind + 16 * urgent precedence, group, epoch, count, {device id, number}, payload
	tagPackage    itemTag = 5 // suite, last resort, expires, package
	tagState      itemTag = 6 // device id, counter, last, acked, held, bytes
	tagHold       itemTag = 7 // device id, hold
	tagMembers    itemTag = 8 // as tagStep, then count, {device[32]} that joined, count, {device[32]} that left
)

// errRecord is returned for a batch that this program did not write.
var errRecord = errors.New("a batch is malformed")

func appendBytes[T string | []byte](b []byte, data T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(data))), data...)
}

func appendFlag(b []byte, flag bool) []byte {
	if flag {
		return append(b, 1)
	}
	return append(b, 0)
}

// arrivalItem is a device that came for the first time, with another certificate,
// or with a new incarnation.
type arrivalItem struct {
	id          int64
	device      mailbox.Device
	address     string
	chain       []byte
	time        int64
	began       bool
	incarnation [16]byte
	first       bool // of a device that was not known; not kept in the journal
}

func (a *arrivalItem) append(b []byte) []byte {
	b = binary.AppendUvarint(append(b, byte(tagArrival)), uint64(a.id))
	b = append(b, a.device[:]...)
	b = appendBytes(appendBytes(b, a.address), a.chain)
	b = appendFlag(binary.AppendVarint(b, a.time), a.began)
	return append(b, a.incarnation[:]...)
}

// submissionItem is what a submission leaves behind in any case.
type submissionItem struct {
	device  int64
	counter uint64
	hash    [32]byte
	time    int64 // milliseconds since 1970

	incarnation [16]byte
}

func (s *submissionItem) append(b []byte) []byte {
	b = binary.AppendUvarint(append(b, byte(tagSubmission)), uint64(s.device))
	b = append(binary.AppendUvarint(b, s.counter), s.hash[:]...)
	return append(binary.AppendVarint(b, s.time), s.incarnation[:]...)
}

// stepItem founds a group, with the row that it gets in the database, or moves it on.
type stepItem struct {
	row   int64
	step  mailbox.Step
	lists bool // it says who joined and who left; journals did not always
}

func (s *stepItem) append(b []byte) []byte {
	tag := tagStep
	if s.lists {
		tag = tagMembers
	}
	b = appendFlag(append(b, byte(tag)), s.step.Create)
	b = binary.AppendUvarint(b, uint64(s.row))
	b = appendBytes(b, s.step.Group)
	b = binary.AppendUvarint(binary.AppendUvarint(b, s.step.From), s.step.To)
	b = appendBytes(b, s.step.Info)
	b = binary.AppendUvarint(b, uint64(len(s.step.Records)))
	for _, r := range s.step.Records {
		b = appendFlag(appendBytes(b, r.Key), r.Value != nil)
		b = appendBytes(b, r.Value)
	}
	if !s.lists {
		return b
	}
	return appendDevices(appendDevices(b, s.step.Joined), s.step.Left)
}

func appendDevices(b []byte, list []mailbox.Device) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for i := range list {
		b = append(b, list[i][:]...)
	}
	return b
}

// messageItem is a message with the numbers that it got.
type messageItem struct {
	kind    mailbox.Kind
	urgent  uint8
	group   []byte
	epoch   uint64
	to      []numbered
	payload []byte
	offset  int // of the payload in the batch
}

// numbered is a place in one device's mailbox.
type numbered struct {
	device int64
	number uint64
}

// appendMessage begins a message; recipients and payload follow.
func appendMessage(b []byte, kind mailbox.Kind, urgent uint8, group []byte, epoch uint64, to int) []byte {
	b = appendBytes(append(b, byte(tagMessage), byte(kind)|urgent<<4), group)
	return binary.AppendUvarint(binary.AppendUvarint(b, epoch), uint64(to))
}

func appendPackage(b []byte, kp *mailbox.KeyPackage) []byte {
	b = binary.AppendUvarint(append(b, byte(tagPackage)), uint64(kp.Suite))
	b = binary.AppendVarint(appendFlag(b, kp.LastResort), kp.Expires)
	return appendBytes(b, kp.Package)
}

func appendState(b []byte, st *state) []byte {
	b = binary.AppendUvarint(append(b, byte(tagState)), uint64(st.id))
	b = binary.AppendUvarint(binary.AppendUvarint(b, st.counter), st.last)
	b = binary.AppendUvarint(b, st.acked)
	return binary.AppendUvarint(binary.AppendUvarint(b, uint64(st.held)), uint64(st.bytes))
}

func appendHold(b []byte, device int64, hold mailbox.Hold) []byte {
	return append(binary.AppendUvarint(append(b, byte(tagHold)), uint64(device)), byte(hold))
}

// cursor reads a batch; after the first error it reads zeros.
type cursor struct {
	data []byte
	at   int
	bad  bool
}

func (c *cursor) take(n uint64) []byte {
	if c.bad || n > uint64(len(c.data)-c.at) {
		c.bad = true
		return nil
	}
	c.at += int(n)
	return c.data[c.at-int(n) : c.at : c.at]
}

func (c *cursor) byte() byte {
	if b := c.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (c *cursor) flag() bool {
	b := c.byte()
	c.bad = c.bad || b > 1
	return b == 1
}

// uvarint refuses what could have been written shorter.
func (c *cursor) uvarint() uint64 {
	v, n := binary.Uvarint(c.data[min(c.at, len(c.data)):])
	if c.bad || n <= 0 || n > 1 && c.data[c.at+n-1] == 0 {
		c.bad = true
		return 0
	}
	c.at += n
	return v
}

func (c *cursor) varint() int64 {
	v := c.uvarint()
	return int64(v>>1) ^ -int64(v&1)
}

// id reads a row's key or an amount, which are never negative.
func (c *cursor) id() int64 {
	v := c.uvarint()
	c.bad = c.bad || v > math.MaxInt64
	return int64(v)
}

func (c *cursor) bytes() []byte { return c.take(c.uvarint()) }

func (c *cursor) array16() (a [16]byte) {
	copy(a[:], c.take(16))
	return a
}

func (c *cursor) array32() (a [32]byte) {
	copy(a[:], c.take(32))
	return a
}

// items is told what a batch consists of, in order. Bytes are its own only until
// the call returns.
type items interface {
	arrival(*arrivalItem) error
	submission(*submissionItem) error
	step(*stepItem) error
	message(*messageItem) error
	keyPackage(*mailbox.KeyPackage) error
	after(*state) error
	hold(device int64, hold mailbox.Hold) error
}

// parseRecord reads a batch.
func parseRecord(data []byte, to items) error {
	c := &cursor{data: data}
	if c.byte() != recordVersion {
		return errRecord
	}
	submitted := false
	for c.at < len(c.data) && !c.bad {
		tag := itemTag(c.byte())
		belongs := tag >= tagStep && tag <= tagPackage || tag == tagMembers
		submitted = tag == tagSubmission || submitted && belongs
		if belongs && !submitted {
			return errRecord
		}
		if err := c.item(tag, to); err != nil {
			return err
		}
	}
	if c.bad {
		return errRecord
	}
	return nil
}

func (c *cursor) item(tag itemTag, to items) error {
	switch tag {
	case tagArrival:
		a := arrivalItem{id: c.id(), device: c.array32(), address: string(c.bytes()), chain: c.bytes(), time: c.varint(), began: c.flag(), incarnation: c.array16()}
		return c.pass(func() error { return to.arrival(&a) })
	case tagSubmission:
		s := submissionItem{device: c.id(), counter: c.uvarint(), hash: c.array32(), time: c.varint(), incarnation: c.array16()}
		return c.pass(func() error { return to.submission(&s) })
	case tagStep, tagMembers:
		s := c.stepItem(tag == tagMembers)
		return c.pass(func() error { return to.step(s) })
	case tagMessage:
		m := c.messageItem()
		return c.pass(func() error { return to.message(m) })
	case tagPackage:
		kp := mailbox.KeyPackage{Suite: c.suite(), LastResort: c.flag(), Expires: c.varint(), Package: c.bytes()}
		return c.pass(func() error { return to.keyPackage(&kp) })
	case tagState:
		st := state{id: c.id(), counter: c.uvarint(), last: c.uvarint(), acked: c.uvarint(), held: c.id(), bytes: c.id()}
		return c.pass(func() error { return to.after(&st) })
	case tagHold:
		device, hold := c.id(), mailbox.Hold(c.byte())
		c.bad = c.bad || hold > mailbox.Quarantined
		return c.pass(func() error { return to.hold(device, hold) })
	}
	return errRecord
}

// pass hands an item on that was read whole.
func (c *cursor) pass(f func() error) error {
	if c.bad {
		return errRecord
	}
	return f()
}

func (c *cursor) suite() uint16 {
	v := c.uvarint()
	c.bad = c.bad || v > math.MaxUint16
	return uint16(v)
}

func (c *cursor) stepItem(lists bool) *stepItem {
	s := &stepItem{lists: lists}
	s.step.Create = c.flag()
	s.row = c.id()
	s.step.Group = c.bytes()
	s.step.From, s.step.To = c.uvarint(), c.uvarint()
	s.step.Info = c.bytes()
	for range c.count(3) {
		r := mailbox.Record{Key: string(c.bytes())}
		present, value := c.flag(), c.bytes()
		if present {
			r.Value = append([]byte{}, value...)
		}
		c.bad = c.bad || !present && len(value) > 0
		s.step.Records = append(s.step.Records, r)
	}
	if lists {
		s.step.Joined, s.step.Left = c.devices(), c.devices()
	}
	return s
}

func (c *cursor) devices() (list []mailbox.Device) {
	for range c.count(len(mailbox.Device{})) {
		list = append(list, c.array32())
	}
	return list
}

func (c *cursor) messageItem() *messageItem {
	kind := c.byte()
	m := &messageItem{kind: mailbox.Kind(kind & 15), urgent: kind >> 4, group: c.bytes(), epoch: c.uvarint()}
	c.bad = c.bad || m.urgent > mailbox.Flash || m.urgent != 0 && (m.urgent < mailbox.Immediate || m.kind != mailbox.Content)
	for range c.count(2) {
		m.to = append(m.to, numbered{c.id(), c.uvarint()})
	}
	m.payload = c.bytes()
	m.offset = c.at - len(m.payload)
	return m
}

// count reads how many things follow, each of at least so many bytes: a number
// that the rest of the batch cannot hold is refused before anything is made.
func (c *cursor) count(least int) int {
	n := c.uvarint()
	if c.bad || n > uint64((len(c.data)-c.at)/least) {
		c.bad = true
		return 0
	}
	return int(n)
}

// kept returns a step whose bytes are its own.
func (s *stepItem) kept() *stepItem {
	k := *s
	k.step.Group, k.step.Info = slices.Clone(s.step.Group), append([]byte{}, s.step.Info...)
	k.step.Joined, k.step.Left = slices.Clone(s.step.Joined), slices.Clone(s.step.Left)
	return &k
}
