// SPDX-License-Identifier: Apache-2.0

package wire

// A Hello is the first frame on the control stream. See spec/wire.md, Section 4.1.
//
//	struct {
//	    uint8 version = 1;
//	    opaque incarnation[16];
//	    uint8 begin;
//	    uint64 counter;
//	    uint64 cursor;
//	    opaque agent<0..64>;
//	} Hello;
type Hello struct {
	Version     uint8
	Incarnation [16]byte // names one life of this device's state
	Begin       bool     // this incarnation is new; it replaces the one before
	Counter     uint64   // the last submission counter that this state has assigned
	Cursor      uint64   // the last delivery that this state has persisted
	Agent       string   // the software's name and version, for operators
}

// Type implements Frame.
func (*Hello) Type() Type { return TypeHello }

func (h *Hello) fields(f field) {
	f.u8(&h.Version)
	f.fixed(h.Incarnation[:])
	f.flag(&h.Begin)
	f.u64(&h.Counter)
	f.u64(&h.Cursor)
	f.text(&h.Agent, 0, 64)
}

// A Welcome answers Hello. Before it arrives the device believes nothing: a
// QUIC dial can succeed although the gateway never accepts it.
// See spec/wire.md, Section 4.2.
//
//	struct {
//	    uint8 version = 1;
//	    uint64 time;
//	    opaque device[32];
//	    opaque incarnation[16];
//	    uint64 counter;
//	    uint64 acknowledged;
//	    uint32 key_packages;
//	} Welcome;
type Welcome struct {
	Version      uint8
	Time         uint64   // the gateway's clock, milliseconds since 1970
	Device       [32]byte // the device id that the gateway saw in the certificate
	Incarnation  [16]byte // the one on record; all zero when there is none
	Counter      uint64   // the last submission done for that incarnation
	Acknowledged uint64   // the last delivery that this device acknowledged
	KeyPackages  uint32   // one-time KeyPackages left
}

// Type implements Frame.
func (*Welcome) Type() Type { return TypeWelcome }

func (w *Welcome) fields(f field) {
	f.u8(&w.Version)
	f.u64(&w.Time)
	f.fixed(w.Device[:])
	f.fixed(w.Incarnation[:])
	f.u64(&w.Counter)
	f.u64(&w.Acknowledged)
	f.u32(&w.KeyPackages)
}

// Behind says whether a device that said h holds an older state than the one
// that the gateway has dealt with: a copied-back directory. Such a state must
// send nothing; it drops its group secrets, begins a new incarnation and
// resyncs. See spec/wire.md, Section 5.3.
func (w *Welcome) Behind(h *Hello) bool {
	switch {
	case w.Acknowledged > h.Cursor:
		return true
	case h.Begin || w.Incarnation == [16]byte{}:
		return false
	case w.Incarnation != h.Incarnation:
		return true
	}
	return w.Counter > h.Counter
}
