// SPDX-License-Identifier: Apache-2.0

package wire

// GetBundle asks for a part of the signed policy bundle in force (spec/bundle.md,
// Section 3). See spec/wire.md, Section 10.
//
//	struct { uint32 id; opaque hash[32]; uint32 offset; } GetBundle;
type GetBundle struct {
	id
	// Hash is at offset 0 that of the bundle which the device holds, zero for
	// none; beyond it, that of the bundle whose rest is asked for.
	Hash   [32]byte
	Offset uint32
}

// Type implements Frame.
func (*GetBundle) Type() Type { return TypeGetBundle }

func (g *GetBundle) fields(f field) {
	f.u32(&g.ID)
	f.fixed(g.Hash[:])
	f.u32(&g.Offset)
	f.check(g.Offset < MaxBundle)
	f.check(g.Offset == 0 || g.Hash != [32]byte{})
}

// BundlePart answers GetBundle with what begins at the offset. The officers'
// signatures are in it; the gateway is not believed.
//
//	struct {
//	    uint32 id;
//	    opaque hash[32];   // of the bundle, as message headers carry it
//	    uint32 size;       // of the whole, signatures and all
//	    uint32 offset;
//	    opaque data<1..2^20>;
//	} BundlePart;
type BundlePart struct {
	id
	Hash   [32]byte
	Size   uint32
	Offset uint32
	Data   []byte
}

// Type implements Frame.
func (*BundlePart) Type() Type { return TypeBundlePart }

// AnswerTo implements Answer.
func (b *BundlePart) AnswerTo() uint32 { return b.ID }

func (b *BundlePart) fields(f field) {
	f.u32(&b.ID)
	f.fixed(b.Hash[:])
	f.u32(&b.Size)
	f.u32(&b.Offset)
	f.opaque(&b.Data, 1, MaxBundlePart)
	f.check(b.Hash != [32]byte{} && b.Size <= MaxBundle)
	f.check(uint64(b.Offset)+uint64(len(b.Data)) <= uint64(b.Size))
}
