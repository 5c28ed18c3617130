// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

// memory is a hash storage.
type memory []tlog.Hash

func (m memory) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		if index < 0 || index >= int64(len(m)) {
			return nil, fmt.Errorf("no hash %d", index)
		}
		out[i] = m[index]
	}
	return out, nil
}

// grow builds a tree of n issuances, checking Count against what Append gives.
func grow(t testing.TB, n int64) (memory, []Leaf) {
	var m memory
	var leaves []Leaf
	for i := range n {
		entry, err := NewIssuance(fmt.Appendf(nil, "certificate %d", i))
		if err != nil {
			t.Fatal(err)
		}
		if Count(i) != int64(len(m)) {
			t.Fatalf("Count(%d) = %d, stored %d", i, Count(i), len(m))
		}
		hashes, err := Append(i, entry.Leaf(), m)
		if err != nil {
			t.Fatal(err)
		}
		m = append(m, hashes...)
		leaves = append(leaves, entry.Leaf())
	}
	return m, leaves
}

// mth is MTH of RFC 6962, Section 2.1, written down from there, to check
// against.
func mth(leaves []Leaf) tlog.Hash {
	if len(leaves) == 1 {
		return tlog.RecordHash(leaves[0][:])
	}
	k := 1
	for 2*k < len(leaves) {
		k *= 2
	}
	return tlog.NodeHash(mth(leaves[:k]), mth(leaves[k:]))
}

func head(t testing.TB, size int64, m memory) Head {
	h, err := HeadOf(size, m)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// RFC 6962, Section 2.1: the root of every tree up to 40 leaves.
func TestHeadIsMerkleTreeHash(t *testing.T) {
	m, leaves := grow(t, 40)
	for n := int64(1); n <= 40; n++ {
		if got, want := head(t, n, m).Hash, mth(leaves[:n]); got != want {
			t.Errorf("root of %d leaves = %v, want %v", n, got, want)
		}
	}
}

// RFC 6962, Section 2.1.1: every leaf of every tree is proved, and the same
// proof serves for no other leaf, index, head or size.
func TestInclusion(t *testing.T) {
	m, leaves := grow(t, 21)
	other, _ := grow(t, 21)
	for size := int64(1); size <= 21; size++ {
		for index := range size {
			proof, err := ProveInclusion(size, index, m)
			if err != nil {
				t.Fatal(err)
			}
			h := head(t, size, m)
			if err := CheckInclusion(h, index, leaves[index], proof); err != nil {
				t.Fatalf("honest proof of %d in %d: %v", index, size, err)
			}
			lie := leaves[index]
			lie[7] ^= 1
			refused(t, "another leaf", CheckInclusion(h, index, lie, proof))
			refused(t, "another head", CheckInclusion(head(t, size, other), index, leaves[index], proof))
			refused(t, "a hash too many", CheckInclusion(h, index, leaves[index], append(slices.Clone(proof), tlog.Hash{})))
			refused(t, "an index outside", CheckInclusion(h, size, leaves[index], proof))
			if size > 1 {
				refused(t, "another index", CheckInclusion(h, (index+1)%size, leaves[index], proof))
				refused(t, "a hash too few", CheckInclusion(h, index, leaves[index], proof[1:]))
			}
		}
	}
}

// RFC 6962, Section 2.1.2: growth is proved between all pairs of sizes; a tree
// in which an old leaf was replaced does not extend the old one.
func TestGrowth(t *testing.T) {
	m, _ := grow(t, 18)
	rewritten, _ := grow(t, 18)
	for newSize := range int64(19) {
		for oldSize := range newSize + 1 {
			proof, err := ProveGrowth(oldSize, newSize, m)
			if err != nil {
				t.Fatal(err)
			}
			older, newer := head(t, oldSize, m), head(t, newSize, m)
			if err := CheckGrowth(older, newer, proof); err != nil {
				t.Fatalf("honest growth %d to %d: %v", oldSize, newSize, err)
			}
			if oldSize == 0 {
				continue
			}
			lie, err := ProveGrowth(oldSize, newSize, rewritten)
			if err != nil {
				t.Fatal(err)
			}
			refused(t, "a rewritten tree", CheckGrowth(older, head(t, newSize, rewritten), lie))
			if oldSize < newSize {
				refused(t, "a shrunk tree", CheckGrowth(newer, older, proof))
			}
		}
	}
}

// The empty tree has one hash, and a head that claims another is refused.
func TestEmptyTree(t *testing.T) {
	m, _ := grow(t, 3)
	empty, full := head(t, 0, nil), head(t, 3, m)
	if err := CheckGrowth(empty, full, nil); err != nil {
		t.Errorf("honest growth from nothing: %v", err)
	}
	refused(t, "an empty tree with another hash", CheckGrowth(Head{N: 0, Hash: full.Hash}, full, nil))
	refused(t, "growth to an empty tree with another hash", CheckGrowth(empty, Head{N: 0, Hash: full.Hash}, nil))
}

// A head near 2^63 would keep tlog counting for ever.
func TestHugeHeads(t *testing.T) {
	for _, n := range []int64{MaxSize + 1, 1 << 62, 1<<63 - 1, -1} {
		refused(t, "a huge tree", CheckInclusion(Head{N: n}, 0, Leaf{}, make(tlog.RecordProof, 62)))
		refused(t, "a huge tree", CheckGrowth(Head{N: 1}, Head{N: n}, make(tlog.TreeProof, 62)))
		if _, err := ProveInclusion(n, 0, memory{}); err == nil {
			t.Errorf("ProveInclusion of %d leaves: no error", n)
		}
		if _, err := HeadOf(n, memory{}); err == nil {
			t.Errorf("HeadOf %d leaves: no error", n)
		}
	}
}

// A tree whose storage lost a hash is an error, not another tree.
func TestMissingHash(t *testing.T) {
	m, leaves := grow(t, 7)
	if _, err := Append(7, leaves[0], m[:len(m)-1]); err == nil {
		t.Error("Append over a storage with a hole: no error")
	}
	if _, err := HeadOf(7, m[:len(m)-1]); err == nil {
		t.Error("HeadOf over a storage with a hole: no error")
	}
}

// Two entries for the same certificate have unrelated leaves, and the entry is
// what opens the leaf.
func TestSalted(t *testing.T) {
	tbs := []byte("a certificate")
	a, errA := NewIssuance(tbs)
	b, errB := NewIssuance(tbs)
	if errA != nil || errB != nil {
		t.Fatal(errA, errB)
	}
	if a.Subject != b.Subject || a.Leaf() == b.Leaf() {
		t.Error("leaves of one certificate are linkable without the salt")
	}
	if !a.Records(tbs) || a.Records([]byte("another")) {
		t.Error("Records is wrong")
	}
	if _, err := NewIssuance(nil); err == nil {
		t.Error("NewIssuance(nil): no error")
	}
}

// The leaf of one entry, computed by another program from the comments in
// entry.go: it must never change.
func TestLeafBytes(t *testing.T) {
	e := &Entry{Kind: KindIssuance, Subject: sha256.Sum256([]byte("a certificate"))}
	for i := range e.Salt {
		e.Salt[i] = byte(i)
	}
	want := "0103cdf951212a7aa0cce6d726ca34cb4af8e50eed194ae88a13bf2de74a7cd651"
	if got := fmt.Sprintf("%x", e.Leaf()); got != want {
		t.Errorf("leaf %s, want %s", got, want)
	}
}

func FuzzParseEntry(f *testing.F) {
	f.Add((&Entry{Kind: KindIssuance, Salt: [32]byte{1}, Subject: [32]byte{2}}).Marshal())
	f.Add((&Entry{Kind: KindFounding, Time: noon, Salt: [32]byte{1}, Subject: [32]byte{2}}).Marshal())
	f.Add([]byte{1, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		entry, err := ParseEntry(data)
		if err == nil && !bytes.Equal(entry.Marshal(), data) {
			t.Errorf("%x comes back as %x", data, entry.Marshal())
		}
	})
}

func refused(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, ErrProof) {
		t.Errorf("%s: error %v, want ErrProof", what, err)
	}
}
