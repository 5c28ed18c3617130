// SPDX-License-Identifier: Apache-2.0

package wire

// Resume is the first frame on the delivery stream.
//
//	struct {
//	    uint64 cursor;
//	    select (what follows) {
//	        case nothing: struct {};
//	        case more:    uint64 taken<0..384>;
//	    };
//	} Resume;
type Resume struct {
	Cursor uint64   // deliver what comes after this number
	Ahead  bool     // this device knows DeliverAhead
	Taken  []uint64 // of Ahead: numbers beyond Cursor that it has taken ahead, rising
}

// Type implements Frame.
func (*Resume) Type() Type { return TypeResume }

func (r *Resume) fields(f field) {
	f.u64(&r.Cursor)
	f.more(&r.Ahead)
	if !r.Ahead {
		f.check(len(r.Taken) == 0)
		return
	}
	last := r.Cursor
	f.list(len(r.Taken), MaxAhead, func() { r.Taken = append(r.Taken, 0) }, func(i int) {
		f.u64(&r.Taken[i])
		f.check(r.Taken[i] > last)
		last = r.Taken[i]
	})
}

// A DeliveryKind says what a Deliver carries.
type DeliveryKind uint8

// What a delivery carries.
const (
	DeliverContent DeliveryKind = 1 // a PrivateMessage
	DeliverCommit  DeliveryKind = 2 // a PublicMessage with a commit
	DeliverWelcome DeliveryKind = 3 // a Welcome

	DeliverExpired     DeliveryKind = 4 // ExpiredMail: what this device did not fetch in time
	DeliverUndelivered DeliveryKind = 5 // UndeliveredMail: what another did not fetch of this one's
	DeliverRestored    DeliveryKind = 6 // RestoredMail: the gateway was put back into an earlier state
	DeliverWithheld    DeliveryKind = 7 // ExpiredMail: what this device may not have any more
	DeliverForbidden   DeliveryKind = 8 // UndeliveredMail: what another may not have of this one's

	DeliverAhead DeliveryKind = 9 // a PrivateMessage that comes again, as DeliverContent, in its place
)

// A Deliver carries one message to one device. Numbers are the device's own,
// rise by one and begin at 1; a DeliverExpired, a DeliverWithheld and a
// DeliverRestored have several. A DeliverAhead stands outside that order, under the
// number that it has in it.
//
//	struct {
//	    uint64 number;
//	    uint8 kind;
//	    opaque group<1..255>;
//	    uint64 epoch;
//	    opaque sender[32];
//	    uint64 time;
//	    opaque payload<1..2^24-1>;
//	} Deliver;
type Deliver struct {
	Number  uint64
	Kind    DeliveryKind
	Group   []byte
	Epoch   uint64   // the epoch that the payload belongs to
	Sender  [32]byte // of a DeliverUndelivered or DeliverForbidden: who did not get it
	Time    uint64   // when the gateway took it, milliseconds since 1970
	Payload []byte
}

// Type implements Frame.
func (*Deliver) Type() Type { return TypeDeliver }

func (d *Deliver) fields(f field) {
	f.u64(&d.Number)
	f.u8((*uint8)(&d.Kind))
	f.check(d.Kind >= DeliverContent && d.Kind <= DeliverAhead && d.Number > 0)
	f.opaque(&d.Group, 1, 255)
	f.u64(&d.Epoch)
	f.fixed(d.Sender[:])
	f.u64(&d.Time)
	f.opaque(&d.Payload, 1, MaxWelcome)
}

// An Ack says that everything up to a number is persisted at the device.
//
//	struct { uint64 number; } Ack;
type Ack struct{ Number uint64 }

// Type implements Frame.
func (*Ack) Type() Type { return TypeAck }

func (a *Ack) fields(f field) { f.u64(&a.Number) }

// A NoticeCode says what a Notice is about.
type NoticeCode uint8

// The notices.
const (
	NoticeKeyPackagesLow NoticeCode = 1 // publish more one-time KeyPackages
	NoticeDrained        NoticeCode = 2 // everything stored before Resume has been delivered
	NoticeBundle         NoticeCode = 3 // another policy bundle is in force: fetch it
	NoticeFiles          NoticeCode = 4 // something became of a file that this device brought: ask
)

// A Notice tells a device something that is not stored and needs no Ack.
//
//	struct { uint8 code; } Notice;
type Notice struct{ Code NoticeCode }

// Type implements Frame.
func (*Notice) Type() Type { return TypeNotice }

func (n *Notice) fields(f field) {
	f.u8((*uint8)(&n.Code))
	f.check(n.Code >= NoticeKeyPackagesLow && n.Code <= NoticeFiles)
}
