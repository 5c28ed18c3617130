// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"bytes"
	"errors"
	"reflect"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

// sampleProofs are proofs over a tree of 300 leaves.
func sampleProofs(t testing.TB) (found, *Inclusion, *Inclusion, *Growth) {
	t.Helper()
	src := source(t, 300)
	newest, err := Prove(t.Context(), src, src.list[7].Entry.Subject, 0)
	if err != nil {
		t.Fatal(err)
	}
	sized, err := Prove(t.Context(), src, src.list[7].Entry.Subject, 100)
	if err != nil {
		t.Fatal(err)
	}
	growth, err := Grow(t.Context(), src, 100)
	if err != nil {
		t.Fatal(err)
	}
	return src, newest, sized, growth
}

func TestProve(t *testing.T) {
	dir, list, key, v := writeCopy(t, 300)
	c, err := OpenCopy(dir)
	if err != nil {
		t.Fatal(err)
	}
	src := found{c, list, nil}
	subject := list[7].Entry.Subject
	newest, err := Prove(t.Context(), src, subject, 0)
	if err != nil {
		t.Fatal(err)
	}
	if h, err := newest.Check(subject, v); err != nil || h != c.Claimed() {
		t.Errorf("newest: %v, %v", h, err)
	}
	sized, err := Prove(t.Context(), src, subject, 100)
	if err != nil {
		t.Fatal(err)
	}
	h100 := headOf(t, list[:100])
	if err := sized.CheckIn(h100, subject); err != nil || sized.Checkpoint != "" || sized.Size != 100 {
		t.Errorf("in 100: %+v, %v", sized, err)
	}
	growth, err := Grow(t.Context(), src, 100)
	if err != nil {
		t.Fatal(err)
	}
	if h, err := growth.Check(h100, v); err != nil || h != c.Claimed() {
		t.Errorf("growth: %v, %v", h, err)
	}

	for name, err := range map[string]error{
		"ahead":         errorOf(Prove(t.Context(), src, subject, 301)),
		"growth beyond": errorOf(Grow(t.Context(), src, 301)),
	} {
		if !errors.Is(err, ErrAhead) {
			t.Errorf("%s: %v, want ErrAhead", name, err)
		}
	}
	if _, err := Prove(t.Context(), src, subject, 7); !errors.Is(err, ErrYoung) {
		t.Errorf("leaf 7 in a tree of 7: %v, want ErrYoung", err)
	}
	if _, err := Prove(t.Context(), src, [32]byte{1}, 0); !errors.Is(err, ErrUnknown) {
		t.Errorf("a stranger: %v, want ErrUnknown", err)
	}

	// Each refusal is one change away from what passed above.
	otherSubject, otherEntry, otherSize := *newest, *newest, *sized
	otherSubject.Entry = list[8].Entry
	changed := *newest.Entry
	changed.Salt[0] ^= 1
	otherEntry.Entry = &changed
	otherSize.Size = 101
	refused(t, "another's entry", errorOf(otherSubject.Check(subject, v)))
	refused(t, "an altered entry", errorOf(otherEntry.Check(subject, v)))
	refused(t, "no entry", (&Inclusion{Size: 100, Proof: sized.Proof}).CheckIn(h100, subject))
	refused(t, "another size", otherSize.CheckIn(h100, subject))
	refused(t, "another tree", sized.CheckIn(Head{N: 100, Hash: h100.Hash}, list[8].Entry.Subject))
	refused(t, "growth of another tree", errorOf(growth.Check(Head{N: 100, Hash: Empty.Hash}, v)))
	refused(t, "growth of another size", errorOf(growth.Check(headOf(t, list[:99]), v)))
	forked := *growth
	forked.Checkpoint = string(checkpoint(t, key, Head{N: 300, Hash: h100.Hash}))
	refused(t, "a fork", errorOf(forked.Check(h100, v)))
}

func errorOf[T any](_ T, err error) error { return err }

func TestProofEncodings(t *testing.T) {
	_, newest, sized, growth := sampleProofs(t)
	for _, i := range []*Inclusion{newest, sized} {
		got, err := ParseInclusion(i.Marshal())
		if err != nil || !reflect.DeepEqual(got, i) {
			t.Errorf("%+v comes back as %+v: %v", i, got, err)
		}
	}
	if got, err := ParseGrowth(growth.Marshal()); err != nil || !reflect.DeepEqual(got, growth) {
		t.Errorf("%+v comes back as %+v: %v", growth, got, err)
	}
	long := *sized
	long.Proof = make(tlog.RecordProof, maxProof+1)
	huge := *sized
	huge.Index = MaxSize + 1
	endless := *growth
	endless.From = -1
	for name, bad := range map[string]func() error{
		"cut":           func() error { return errorOf(ParseInclusion(sized.Marshal()[:40])) },
		"left over":     func() error { return errorOf(ParseInclusion(append(sized.Marshal(), 0))) },
		"long proof":    func() error { return errorOf(ParseInclusion(long.Marshal())) },
		"huge index":    func() error { return errorOf(ParseInclusion(huge.Marshal())) },
		"no checkpoint": func() error { return errorOf(ParseGrowth((&Growth{From: 1}).Marshal())) },
		"negative size": func() error { return errorOf(ParseGrowth(endless.Marshal())) },
	} {
		if bad() == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func FuzzParseInclusion(f *testing.F) {
	_, newest, sized, _ := sampleProofs(f)
	f.Add(newest.Marshal())
	f.Add(sized.Marshal())
	f.Fuzz(func(t *testing.T, data []byte) {
		i, err := ParseInclusion(data)
		if err == nil && !bytes.Equal(i.Marshal(), data) {
			t.Errorf("%x comes back as %x", data, i.Marshal())
		}
	})
}

func FuzzParseGrowth(f *testing.F) {
	_, _, _, growth := sampleProofs(f)
	f.Add(growth.Marshal())
	f.Add([]byte{0, 1, 'a', 0, 0, 0, 0, 0, 0, 0, 9, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		g, err := ParseGrowth(data)
		if err == nil && !bytes.Equal(g.Marshal(), data) {
			t.Errorf("%x comes back as %x", data, g.Marshal())
		}
	})
}
