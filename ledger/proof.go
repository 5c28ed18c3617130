// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Errors of Prove and Grow.
var (
	// ErrUnknown: no leaf has this subject.
	ErrUnknown = errors.New("ledger: nothing with this hash is recorded")
	// ErrYoung: there is a leaf, and the tree that was asked about does not
	// reach it. Ask again in a moment.
	ErrYoung = errors.New("ledger: the tree does not cover this leaf yet")
	// ErrAhead: the asker knows a larger tree than there is here.
	ErrAhead = errors.New("ledger: the tree is smaller than the one asked about")
)

// A Source is a record that can be served: the authority's, a gateway's copy
// of it, or a copy on disk.
type Source interface {
	// Checkpoint returns the newest signed checkpoint.
	Checkpoint(ctx context.Context) ([]byte, error)
	// Hashes returns the stored hashes at these indexes (see Count), all of
	// them below the newest checkpoint.
	Hashes(ctx context.Context, indexes []int64) ([]tlog.Hash, error)
	// Leaves returns the leaves from index from up to, not including, to.
	Leaves(ctx context.Context, from, to int64) ([]Leaf, error)
}

// A Finder is a Source that finds the newest leaf with a subject; ErrUnknown if there is
// none.
type Finder interface {
	Source
	Find(ctx context.Context, subject [sha256.Size]byte) (int64, *Entry, error)
}

// An Inclusion proves that the record holds a leaf.
//
//	struct {
//	    opaque checkpoint<0..2^16-1>;  // of the tree; empty if the asker named a size
//	    uint64 size;                   // of the tree
//	    uint64 index;
//	    opaque entry<1..2^8-1>;
//	    opaque hash[32] proof<0..2^16-1>;
//	} Inclusion;
type Inclusion struct {
	Checkpoint string           `json:"checkpoint,omitempty"`
	Size       int64            `json:"size"`
	Index      int64            `json:"index"`
	Entry      *Entry           `json:"entry"`
	Proof      tlog.RecordProof `json:"proof"`
}

// A Growth proves that the tree of a checkpoint extends one of From leaves.
//
//	struct {
//	    opaque checkpoint<1..2^16-1>;
//	    uint64 from;
//	    opaque hash[32] proof<0..2^16-1>;
//	} Growth;
type Growth struct {
	Checkpoint string         `json:"checkpoint"`
	From       int64          `json:"from"`
	Proof      tlog.TreeProof `json:"proof"`
}

// Prove proves that what has this subject, for a certificate the SHA-256 of its
// TBSCertificate, is recorded: in the tree of size leaves, or, if size is 0,
// in that of the newest checkpoint, which then comes along.
func Prove(ctx context.Context, f Finder, subject [sha256.Size]byte, size int64) (*Inclusion, error) {
	index, entry, err := f.Find(ctx, subject)
	if err != nil {
		return nil, err
	}
	text, head, err := newest(ctx, f)
	if err != nil {
		return nil, err
	}
	switch {
	case size > head.N:
		return nil, ErrAhead
	case size > 0:
		text = nil
	default:
		size = head.N
	}
	if index >= size {
		return nil, ErrYoung
	}
	proof, err := ProveInclusion(size, index, reader{ctx, f})
	if err != nil {
		return nil, err
	}
	return &Inclusion{string(text), size, index, entry, proof}, nil
}

// Grow proves that the tree of the newest checkpoint extends that of from
// leaves.
func Grow(ctx context.Context, s Source, from int64) (*Growth, error) {
	text, head, err := newest(ctx, s)
	if err != nil {
		return nil, err
	}
	if from > head.N {
		return nil, ErrAhead
	}
	proof, err := ProveGrowth(from, head.N, reader{ctx, s})
	if err != nil {
		return nil, err
	}
	return &Growth{string(text), from, proof}, nil
}

func newest(ctx context.Context, s Source) (text []byte, h Head, err error) {
	if text, err = s.Checkpoint(ctx); err != nil {
		return nil, Head{}, err
	}
	_, h, err = ParseCheckpoint(text)
	return text, h, err
}

// reader makes a tlog.HashReader of a source.
type reader struct {
	ctx    context.Context
	source Source
}

func (r reader) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	return r.source.Hashes(r.ctx, indexes)
}

// Check checks the proof for what has this subject under the checkpoint that
// came along, and returns the tree that it stands in: the caller demands that
// it is the one that everybody sees, by growth to or from one that it knows.
func (i *Inclusion) Check(subject [sha256.Size]byte, verifiers ...note.Verifier) (Head, error) {
	head, err := OpenCheckpoint([]byte(i.Checkpoint), verifiers...)
	if err != nil {
		return Head{}, err
	}
	if err := i.CheckIn(head, subject); err != nil {
		return Head{}, err
	}
	return head, nil
}

// CheckIn checks the proof for what has this subject in a tree that the caller
// knows.
func (i *Inclusion) CheckIn(head Head, subject [sha256.Size]byte) error {
	if i.Entry == nil || i.Entry.Subject != subject {
		return fmt.Errorf("%w: leaf %d is of something else", ErrProof, i.Index)
	}
	if i.Size != head.N {
		return fmt.Errorf("%w: leaf %d in a tree of %d leaves instead of %d", ErrProof, i.Index, i.Size, head.N)
	}
	return CheckInclusion(head, i.Index, i.Entry.Leaf(), i.Proof)
}

// Check checks that the checkpoint's tree extends older, and returns its head.
func (g *Growth) Check(older Head, verifiers ...note.Verifier) (Head, error) {
	head, err := OpenCheckpoint([]byte(g.Checkpoint), verifiers...)
	if err != nil {
		return Head{}, err
	}
	if g.From != older.N {
		return Head{}, fmt.Errorf("%w: growth from %d leaves instead of %d", ErrProof, g.From, older.N)
	}
	if err := CheckGrowth(older, head, g.Proof); err != nil {
		return Head{}, err
	}
	return head, nil
}

// Marshal returns the inclusion's encoding.
func (i *Inclusion) Marshal() []byte {
	var b cryptobyte.Builder
	addCheckpoint(&b, i.Checkpoint)
	b.AddUint64(uint64(i.Size))
	b.AddUint64(uint64(i.Index))
	b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(i.Entry.Marshal()) })
	addHashes(&b, i.Proof)
	return b.BytesOrPanic()
}

// ParseInclusion reads what Marshal writes, and nothing else.
func ParseInclusion(data []byte) (*Inclusion, error) {
	var (
		s     = cryptobyte.String(data)
		i     Inclusion
		entry cryptobyte.String
		err   error
	)
	if !readCheckpoint(&s, &i.Checkpoint) || !readIndex(&s, &i.Size) || !readIndex(&s, &i.Index) || !s.ReadUint8LengthPrefixed(&entry) ||
		!readHashes(&s, (*[]tlog.Hash)(&i.Proof)) || !s.Empty() {
		return nil, errors.New("ledger: malformed proof of inclusion")
	}
	if i.Entry, err = ParseEntry(entry); err != nil {
		return nil, err
	}
	return &i, nil
}

// Marshal returns the growth's encoding.
func (g *Growth) Marshal() []byte {
	var b cryptobyte.Builder
	addCheckpoint(&b, g.Checkpoint)
	b.AddUint64(uint64(g.From))
	addHashes(&b, g.Proof)
	return b.BytesOrPanic()
}

// ParseGrowth reads what Marshal writes, and nothing else.
func ParseGrowth(data []byte) (*Growth, error) {
	s, g := cryptobyte.String(data), new(Growth)
	if !readCheckpoint(&s, &g.Checkpoint) || g.Checkpoint == "" || !readIndex(&s, &g.From) ||
		!readHashes(&s, (*[]tlog.Hash)(&g.Proof)) || !s.Empty() {
		return nil, errors.New("ledger: malformed proof of growth")
	}
	return g, nil
}

func addCheckpoint(b *cryptobyte.Builder, text string) {
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes([]byte(text)) })
}

func readCheckpoint(s *cryptobyte.String, out *string) bool {
	var text cryptobyte.String
	if !s.ReadUint16LengthPrefixed(&text) || len(text) > MaxCheckpoint {
		return false
	}
	*out = string(text)
	return true
}

func readIndex(s *cryptobyte.String, out *int64) bool {
	var n uint64
	if !s.ReadUint64(&n) || n > MaxSize {
		return false
	}
	*out = int64(n)
	return true
}

func addHashes(b *cryptobyte.Builder, hashes []tlog.Hash) {
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
		for _, h := range hashes {
			b.AddBytes(h[:])
		}
	})
}

func readHashes(s *cryptobyte.String, out *[]tlog.Hash) bool {
	var list cryptobyte.String
	if !s.ReadUint16LengthPrefixed(&list) || len(list)%tlog.HashSize != 0 || len(list) > maxProof*tlog.HashSize {
		return false
	}
	for !list.Empty() {
		var h tlog.Hash
		if !list.CopyBytes(h[:]) {
			return false
		}
		*out = append(*out, h)
	}
	return true
}
