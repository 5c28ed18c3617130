// SPDX-License-Identifier: Apache-2.0

package wire

// A RecordPart says which part of an authority's public record is asked for.
type RecordPart uint8

// The parts. See spec/wire.md, Section 9.
const (
	PartManifest   RecordPart = 1 // the newest manifest
	PartBulletin   RecordPart = 2 // the newest bulletin
	PartCheckpoint RecordPart = 3 // the newest signed checkpoint
	PartInclusion  RecordPart = 4 // the proof that something is recorded
	PartGrowth     RecordPart = 5 // the proof that the newest checkpoint extends an older tree
)

// GetRecord asks for a part of the authority's public record, as the gateway
// holds it.
//
//	struct {
//	    uint32 id;
//	    uint8 part;                         // 1 manifest, 2 bulletin, 3 checkpoint
//	    select (part) {
//	        case 4: opaque subject[32];     // SHA-256 of a TBSCertificate
//	                uint64 size;            // of the tree; 0 for that of the newest checkpoint
//	        case 5: uint64 size;            // of the older tree
//	    };
//	} GetRecord;
type GetRecord struct {
	id
	Part    RecordPart
	Subject [32]byte
	Size    uint64
}

// Type implements Frame.
func (*GetRecord) Type() Type { return TypeGetRecord }

func (g *GetRecord) fields(f field) {
	f.u32(&g.ID)
	f.u8((*uint8)(&g.Part))
	f.check(g.Part >= PartManifest && g.Part <= PartGrowth)
	if g.Part == PartInclusion {
		f.fixed(g.Subject[:])
	}
	if g.Part >= PartInclusion {
		f.u64(&g.Size)
		f.check(g.Size <= MaxRecordSize)
	}
	f.check(g.Part == PartInclusion || g.Subject == [32]byte{})
	f.check(g.Part >= PartInclusion || g.Size == 0)
}

// Record answers GetRecord. The data is what the authority signed, or a proof;
// the gateway is not believed.
//
//	struct { uint32 id; uint8 part; opaque data<1..2^24-1>; } Record;
type Record struct {
	id
	Part RecordPart
	Data []byte
}

// Type implements Frame.
func (*Record) Type() Type { return TypeRecord }

// AnswerTo implements Answer.
func (r *Record) AnswerTo() uint32 { return r.ID }

func (r *Record) fields(f field) {
	f.u32(&r.ID)
	f.u8((*uint8)(&r.Part))
	f.check(r.Part >= PartManifest && r.Part <= PartGrowth)
	f.opaque(&r.Data, 1, MaxRecord)
}
