// SPDX-License-Identifier: Apache-2.0

package wire

// id is the number that ties an answer to its request.
type id struct{ ID uint32 }

// RequestID implements Request.
func (i *id) RequestID() uint32 { return i.ID }

// SetRequestID implements Request.
func (i *id) SetRequestID(n uint32) { i.ID = n }

// submission heads every request that changes something.
//
//	struct { uint32 id; uint64 counter; } Submission;
type submission struct {
	id
	Counter uint64
}

// SubmissionCounter implements Submission.
func (s *submission) SubmissionCounter() uint64 { return s.Counter }

// SetSubmissionCounter implements Submission.
func (s *submission) SetSubmissionCounter(n uint64) { s.Counter = n }

func (s *submission) head(f field) {
	f.u32(&s.ID)
	f.u64(&s.Counter)
	f.check(s.Counter > 0)
}

// PutKeyPackages publishes KeyPackages of the sending device (RFC 9420, Section
// 10). A last-resort one replaces the one before it; one-time ones are added.
//
//	struct { Submission head; uint8 last_resort; opaque package<1..2^16-1> packages<1..2^24-1>; } PutKeyPackages;
type PutKeyPackages struct {
	submission
	LastResort bool
	Packages   [][]byte
}

// Type implements Frame.
func (*PutKeyPackages) Type() Type { return TypePutKeyPackages }

func (p *PutKeyPackages) fields(f field) {
	p.head(f)
	f.flag(&p.LastResort)
	opaqueList(f, &p.Packages, MaxKeyPackages, MaxKeyPackage)
	f.check(len(p.Packages) > 0)
}

// GetKeyPackages asks for one KeyPackage of each of a person's devices, or of
// those named.
//
//	struct { uint32 id; uint16 suite; opaque address<1..255>; Device devices<0..2^24-1>; } GetKeyPackages;
type GetKeyPackages struct {
	id
	Suite   uint16
	Address string
	Devices [][32]byte
}

// Type implements Frame.
func (*GetKeyPackages) Type() Type { return TypeGetKeyPackages }

func (g *GetKeyPackages) fields(f field) {
	f.u32(&g.ID)
	f.u16(&g.Suite)
	f.text(&g.Address, 1, 255)
	f.list(len(g.Devices), MaxDevices, func() { g.Devices = append(g.Devices, [32]byte{}) }, func(i int) { f.fixed(g.Devices[i][:]) })
}

// CreateGroup registers a new group of one member, the sending device, at
// epoch 0. The tree is a ratchet_tree (RFC 9420, Section 12.4.3.3).
//
//	struct { Submission head; opaque group_info<1..2^24-1>; opaque tree<1..2^24-1>; } CreateGroup;
type CreateGroup struct {
	submission
	GroupInfo []byte
	Tree      []byte
}

// Type implements Frame.
func (*CreateGroup) Type() Type { return TypeCreateGroup }

func (c *CreateGroup) fields(f field) {
	c.head(f)
	f.opaque(&c.GroupInfo, 1, MaxGroupInfo)
	f.opaque(&c.Tree, 1, MaxTree)
}

// Commit moves a group to its next epoch: first come, first served. The commit
// is a PublicMessage; group_info is that of the new epoch, for resync.
//
//	struct {
//	    Submission head;
//	    opaque group<1..255>;
//	    uint64 epoch;
//	    opaque commit<1..2^24-1>;
//	    opaque welcome<0..2^24-1>;
//	    opaque group_info<1..2^24-1>;
//	} Commit;
type Commit struct {
	submission
	Group     []byte
	Epoch     uint64 // the epoch that the commit ends
	Commit    []byte
	Welcome   []byte // empty when nobody is added
	GroupInfo []byte
}

// Type implements Frame.
func (*Commit) Type() Type { return TypeCommit }

func (c *Commit) fields(f field) {
	c.head(f)
	f.opaque(&c.Group, 1, 255)
	f.u64(&c.Epoch)
	f.opaque(&c.Commit, 1, MaxCommit)
	f.opaque(&c.Welcome, 0, MaxWelcome)
	f.opaque(&c.GroupInfo, 1, MaxGroupInfo)
}

// Send relays one PrivateMessage to every other member of its group.
//
//	struct { Submission head; opaque group<1..255>; uint64 epoch; opaque message<1..2^24-1>; } Send;
type Send struct {
	submission
	Group   []byte
	Epoch   uint64
	Message []byte
}

// Type implements Frame.
func (*Send) Type() Type { return TypeSend }

func (s *Send) fields(f field) {
	s.head(f)
	f.opaque(&s.Group, 1, 255)
	f.u64(&s.Epoch)
	f.opaque(&s.Message, 1, MaxMessage)
}

// GetGroup asks for what a member needs to resync by external commit.
//
//	struct { uint32 id; opaque group<1..255>; } GetGroup;
type GetGroup struct {
	id
	Group []byte
}

// Type implements Frame.
func (*GetGroup) Type() Type { return TypeGetGroup }

func (g *GetGroup) fields(f field) {
	f.u32(&g.ID)
	f.opaque(&g.Group, 1, 255)
}

// GetDirectory asks who can be written to.
//
//	struct { uint32 id; opaque prefix<0..255>; } GetDirectory;
type GetDirectory struct {
	id
	Prefix string // addresses that begin with it; empty for all
}

// Type implements Frame.
func (*GetDirectory) Type() Type { return TypeGetDirectory }

func (g *GetDirectory) fields(f field) {
	f.u32(&g.ID)
	f.text(&g.Prefix, 0, 255)
}

// Report tells the gateway that a delivery could not be accepted, so that it
// stands in the audit stream: altered in the store, forged, mislabelled.
//
//	struct { uint32 id; uint64 delivery; opaque group<1..255>; opaque sender[32]; opaque reason<1..64>; } Report;
type Report struct {
	id
	Delivery uint64
	Group    []byte
	Sender   [32]byte
	Reason   string // a reason code, snake_case
}

// Type implements Frame.
func (*Report) Type() Type { return TypeReport }

func (r *Report) fields(f field) {
	f.u32(&r.ID)
	f.u64(&r.Delivery)
	f.opaque(&r.Group, 1, 255)
	f.fixed(r.Sender[:])
	f.text(&r.Reason, 1, 64)
}

// Ping asks for an OK.
//
//	struct { uint32 id; } Ping;
type Ping struct{ id }

// Type implements Frame.
func (*Ping) Type() Type { return TypePing }

func (p *Ping) fields(f field) { f.u32(&p.ID) }

func opaqueList(f field, v *[][]byte, count, size int) {
	f.list(len(*v), count, func() { *v = append(*v, nil) }, func(i int) { f.opaque(&(*v)[i], 1, size) })
}
