// SPDX-License-Identifier: Apache-2.0

package wire

// ExpiredMail is the payload of a Deliver of kind DeliverExpired or DeliverWithheld: the deliveries
// First up to the Deliver's own number were messages of this sender in this group
// and waited too long. The Deliver's time is that of the newest of them.
//
//	struct { uint64 first; uint64 since; } ExpiredMail;
type ExpiredMail struct {
	First uint64 // number of the first one
	Since uint64 // when the gateway took it, milliseconds since 1970
}

func (m *ExpiredMail) fields(f field) {
	f.u64(&m.First)
	f.check(m.First > 0)
	f.u64(&m.Since)
}

// ParseExpiredMail parses the payload of a DeliverExpired.
func ParseExpiredMail(data []byte) (*ExpiredMail, error) {
	m := new(ExpiredMail)
	if err := parse(data, m, "notice of expired mail"); err != nil {
		return nil, err
	}
	return m, nil
}

// Marshal encodes m.
func (m *ExpiredMail) Marshal() ([]byte, error) { return marshal(m, "notice of expired mail") }

// UndeliveredMail is the payload of a Deliver of kind DeliverUndelivered or DeliverForbidden: these
// submissions of the device itself were not fetched in time by the device that the
// Deliver names as its sender.
//
//	struct { opaque incarnation[16]; uint64 counters<8..2^24-1>; } UndeliveredMail;
type UndeliveredMail struct {
	Incarnation [16]byte // in which they were numbered
	Counters    []uint64 // rising, at most MaxUndelivered
}

func (m *UndeliveredMail) fields(f field) {
	f.fixed(m.Incarnation[:])
	f.list(len(m.Counters), MaxUndelivered, func() { m.Counters = append(m.Counters, 0) }, func(i int) {
		f.u64(&m.Counters[i])
		f.check(m.Counters[i] > 0 && (i == 0 || m.Counters[i-1] < m.Counters[i]))
	})
	f.check(len(m.Counters) > 0)
}

// ParseUndeliveredMail parses the payload of a DeliverUndelivered.
func ParseUndeliveredMail(data []byte) (*UndeliveredMail, error) {
	m := new(UndeliveredMail)
	if err := parse(data, m, "notice of undelivered mail"); err != nil {
		return nil, err
	}
	return m, nil
}

// Marshal encodes m.
func (m *UndeliveredMail) Marshal() ([]byte, error) { return marshal(m, "notice of undelivered mail") }
