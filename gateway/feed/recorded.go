// SPDX-License-Identifier: Apache-2.0

package feed

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"valise/bulletin"
	"valise/identity"
	"valise/ledger"
	"valise/statement"
)

// ErrUnrecorded is wrapped when a statement does not stand in the record that the
// newest bulletin was made from.
var ErrUnrecorded = errors.New("feed: the statement is not in the authority's record")

// VerifyRecorded verifies a statement as of its leaf: it stands in the record that
// the newest bulletin was made from, its signature and chain hold at the leaf's
// time, and no leaf before it puts its officer out.
//
// A gateway that has no copy, to which everything comes by hand, takes the bulletin's
// word for the officers instead, and the statement's own time: the bulletin names what
// is in force.
func (f *Feed) VerifyRecorded(ctx context.Context, raw []byte) (*statement.Statement, error) {
	leaf, err := f.copy.leafOf(ctx, raw)
	if err != nil {
		return nil, err
	}
	b := f.Set().Bulletin()
	if b == nil {
		return nil, ErrUnrecorded
	}
	if size, _, err := f.copy.sizes(ctx); err != nil || size == 0 {
		return f.verifyByHand(raw, err)
	}
	if leaf == bulletin.Unrecorded || leaf >= b.LedgerSize {
		return nil, ErrUnrecorded
	}
	data, err := f.copy.leaf(ctx, leaf)
	if err != nil {
		return nil, err
	}
	entry, err := ledger.ParseEntry(data)
	if err != nil {
		return nil, err
	}
	if entry.Kind != ledger.KindStatement || !entry.Records(raw) {
		return nil, ErrUnrecorded
	}
	st, err := statement.Verify(raw, f.trust, f.root, entry.Time)
	if err != nil {
		return nil, err
	}
	in, err := f.inOffice(ctx, st.Signer, leaf)
	if err != nil {
		return nil, err
	}
	if !in {
		return nil, fmt.Errorf("%w: %s was out of office when it was recorded", ErrRefused, st.Signer.Address)
	}
	return st, nil
}

// BundleStatements returns what the record holds about a policy bundle, the newest
// first, as many as a signed bundle has room for.
func (f *Feed) BundleStatements(ctx context.Context, hash [32]byte) (all [][]byte, err error) {
	err = f.copy.eachStatement(ctx, 0, func(i ledger.Item) {
		st, err := statement.Parse(i.Payload)
		if err != nil {
			return
		}
		if b, ok := st.Body.(*statement.Bundle); ok && b.Hash == hash {
			all = append(all, i.Payload)
		}
	})
	slices.Reverse(all)
	return all[:min(len(all), maxBundleStatements)], err
}

// verifyByHand verifies a statement without a record to look it up in.
func (f *Feed) verifyByHand(raw []byte, err error) (*statement.Statement, error) {
	if err != nil {
		return nil, err
	}
	st, err := statement.Parse(raw)
	if err != nil {
		return nil, err
	}
	if st, err = statement.Verify(raw, f.trust, f.root, st.Head.Time); err != nil {
		return nil, err
	}
	if o := st.Signer; f.Set().Officer(o.Address, o.Key, o.Role) != bulletin.Active {
		return nil, fmt.Errorf("%w: the bulletin has no officer %s in office with this key", ErrRefused, o.Address)
	}
	return st, nil
}

// inOffice reports whether no leaf before one puts an officer out whom a later one
// has not brought back.
func (f *Feed) inOffice(ctx context.Context, o *identity.Officer, leaf int64) (bool, error) {
	in, back := true, make(map[identity.DeviceID]bool)
	err := f.copy.eachStatement(ctx, 0, func(i ledger.Item) {
		if i.Index >= leaf {
			return
		}
		st, err := statement.Parse(i.Payload)
		if err != nil {
			return
		}
		switch b := st.Body.(type) {
		case *statement.Suspension:
			in = in && !concerns(o, &b.Target)
		case *statement.Revocation:
			in = in && !concerns(o, &b.Target)
		case *statement.Dismissal:
			in = in && b.Address != o.Address
		case *statement.Removal:
			in = in && b.Address != o.Address
		case *statement.Resumption:
			if concerns(o, &b.Target) && f.resumes(i, back) {
				in = true
			}
		}
		if in {
			clear(back)
		}
	})
	return in, err
}

func concerns(o *identity.Officer, t *statement.Target) bool {
	return t.Address == o.Address || slices.Contains(t.All(), o.Key)
}

// resumes counts a resumption that holds; two officers' bring somebody back.
func (f *Feed) resumes(i ledger.Item, back map[identity.DeviceID]bool) bool {
	st, err := statement.Verify(i.Payload, f.trust, f.root, i.Entry.Time)
	if err != nil {
		return false
	}
	back[st.Signer.Key] = true
	return len(back) >= statement.Needs(statement.KindResumption, true)
}
