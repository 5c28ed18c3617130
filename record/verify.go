// SPDX-License-Identifier: Apache-2.0

package record

import (
	"crypto/x509"
	"errors"
	"fmt"
	"iter"

	"valise/ledger"
)

// Verify replays a copied record for an auditor who pins the root, and lists
// everything that is wrong with it. head is the tree that a checkpoint signed names:
// whose signature that is, the caller has checked. A leaf that is wrong has no
// effect and is passed over, so what stood on it is found as well.
//
// The error is of items itself: the copy could not be read.
func Verify(root *x509.Certificate, items iter.Seq2[ledger.Item, error], head ledger.Head) ([]Finding, error) {
	s := New(root)
	var findings []Finding
	add := func(f *Finding) {
		if len(findings) < maxFindings {
			findings = append(findings, *f)
		}
	}
	if head.N == 0 && head.Hash != ledger.Empty.Hash {
		add(&Finding{Index: 0, Reason: Rewritten, Detail: "the signed head is not that of an empty record"})
	}
	for item, err := range items {
		if err != nil {
			return findings, fmt.Errorf("record: leaf %d: %w", s.Size(), err)
		}
		if item.Entry == nil {
			return findings, fmt.Errorf("record: leaf %d has no entry", s.Size())
		}
		at := s.Size()
		if err := s.Apply(item); err != nil {
			var f *Finding
			if !errors.As(err, &f) {
				return findings, err
			}
			add(&Finding{Index: at, Reason: f.Reason, Detail: f.Detail})
			s.pass(item)
		}
		if s.Size() == head.N && s.Head() != head {
			add(&Finding{Index: at, Reason: Rewritten, Detail: fmt.Sprintf("the first %d leaves make up another tree than the one that was signed", head.N)})
		}
	}
	switch n := s.Size(); {
	case n < head.N:
		add(&Finding{Index: n, Reason: Truncated, Detail: fmt.Sprintf("the signed tree has %d leaves, here are %d", head.N, n)})
	case n > head.N:
		add(&Finding{Index: head.N, Reason: Unsigned, Detail: fmt.Sprintf("the signed tree has %d leaves, here are %d", head.N, n)})
	}
	if s.founding == nil && head.N > 0 {
		add(&Finding{Index: 0, Reason: NoFounding, Detail: "nothing says how this authority was founded"})
	}
	return findings, nil
}

// pass counts a leaf without heeding it. Its time does not count either: a leaf that
// is dated far ahead must not make all that follow look wrong.
func (s *State) pass(i ledger.Item) {
	s.advance(i.Entry, s.last)
	s.undo = s.undo[:0]
}
