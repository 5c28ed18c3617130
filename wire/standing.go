// SPDX-License-Identifier: Apache-2.0

package wire

// GetStandings asks for who is in good standing now, as far as the gateway knows it:
// the newest bulletin, and the officers' statements that it does not know yet.
//
//	struct { uint32 id; uint64 bulletin; } GetStandings;
type GetStandings struct {
	id
	Bulletin uint64 // number of the bulletin that the asker holds; 0: none
}

// Type implements Frame.
func (*GetStandings) Type() Type { return TypeGetStandings }

func (g *GetStandings) fields(f field) {
	f.u32(&g.ID)
	f.u64(&g.Bulletin)
}

// Unrecorded is the Leaf of an Order of which the gateway does not know whether, and
// where, the record holds it.
const Unrecorded = 1<<64 - 1

// An Order is an officer's statement that bears on standings.
type Order struct {
	Statement []byte // as the officer signed it
	Leaf      uint64 // its place in the record, or Unrecorded
}

// Standings answers GetStandings. Bulletin and statements are the authority's and its
// officers' word; the gateway is not believed.
//
//	struct { opaque statement<1..2^24-1>; uint64 leaf; } Order;
//	struct { uint32 id; opaque bulletin<0..2^24-1>; Order orders<0..2^24-1>; } Standings;
type Standings struct {
	id
	Bulletin []byte // compact JWS; empty: there is none that is newer than the asker's
	Orders   []Order
}

// Type implements Frame.
func (*Standings) Type() Type { return TypeStandings }

// AnswerTo implements Answer.
func (s *Standings) AnswerTo() uint32 { return s.ID }

func (s *Standings) fields(f field) {
	f.u32(&s.ID)
	f.opaque(&s.Bulletin, 0, MaxRecord)
	f.list(len(s.Orders), MaxOrders, func() { s.Orders = append(s.Orders, Order{}) }, func(i int) {
		o := &s.Orders[i]
		f.opaque(&o.Statement, 1, MaxOrder)
		f.u64(&o.Leaf)
		f.check(o.Leaf <= MaxRecordSize || o.Leaf == Unrecorded)
	})
}

// A Lease asks one member of a group to remove those of its members who are no longer
// in good standing, before the time is over: then another one is asked. Whom to remove
// the member finds out by itself, from Standings.
//
//	struct { opaque group<1..255>; uint64 epoch; uint32 milliseconds; } Lease;
type Lease struct {
	Group        []byte
	Epoch        uint64 // at which the group stands
	Milliseconds uint32 // for so long nobody else is asked
}

// Type implements Frame.
func (*Lease) Type() Type { return TypeLease }

func (l *Lease) fields(f field) {
	f.opaque(&l.Group, 1, 255)
	f.u64(&l.Epoch)
	f.u32(&l.Milliseconds)
	f.check(l.Milliseconds > 0)
}
