// SPDX-License-Identifier: Apache-2.0

package mls

import (
	"bytes"
	"fmt"
	"slices"
	"time"
)

// check validates a whole tree on joining, RFC 9420, Section 12.4.3.1: leaves,
// parent hashes, unmerged leaves, and that no key appears twice.
func (t *tree) check(ctx *groupContext, auth Authenticator, at time.Time) error {
	params, err := readParameters(ctx.extensions)
	if err != nil {
		return err
	}
	if err := t.checkStructure(); err != nil {
		return err
	}
	if err := t.checkLeaves(ctx, &params, auth, at); err != nil {
		return err
	}
	return t.checkCredentialTypes()
}

// checkLeaves validates every leaf, RFC 9420, Section 7.3, the signatures side
// by side, and reports the first that fails.
func (t *tree) checkLeaves(ctx *groupContext, params *parameters, auth Authenticator, at time.Time) error {
	var members []LeafIndex
	for i := range t.leaves() {
		members = append(members, i)
	}
	bad, alone := each(len(members), func(k int) error {
		return t.suite.checkLeafAlone(t.leaf(members[k]), 0, ctx.groupID, members[k], at)
	})
	for k, i := range members {
		if k == bad {
			return fmt.Errorf("leaf %d: %w", i, alone)
		}
		l := t.leaf(i)
		if err := authenticate(auth, l.Credential, l.SignatureKey); err != nil {
			return fmt.Errorf("leaf %d: %w", i, err)
		}
		if err := l.checkParameters(ctx.extensions, params); err != nil {
			return fmt.Errorf("leaf %d: %w", i, err)
		}
	}
	return nil
}

// checkStructure is the part of check that needs neither group nor caller.
func (t *tree) checkStructure() error {
	if err := t.checkUnmerged(); err != nil {
		return err
	}
	if err := t.checkUnique(); err != nil {
		return err
	}
	_, err := each(len(t.nodes), func(i int) error {
		n := t.nodes[i]
		if n == nil || n.parent == nil {
			return nil
		}
		if err := t.suite.checkHPKEKey(n.parent.encryptionKey); err != nil {
			return fmt.Errorf("%w: node %d: %w", ErrInvalidTree, i, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return t.checkParentHashes()
}

// checkUnmerged: an unmerged leaf is a member below the node, and unmerged at
// every node between.
func (t *tree) checkUnmerged() error {
	for i, n := range t.nodes {
		if n == nil || n.parent == nil {
			continue
		}
		x := nodeIndex(i)
		for _, l := range n.parent.unmerged {
			if uint32(l) >= t.width() || !x.covers(l.node()) || t.leaf(l) == nil {
				return fmt.Errorf("%w: unmerged leaf %d of node %d is no member below it", ErrInvalidTree, l, i)
			}
			for y := l.node().parent(); y != x; y = y.parent() {
				m := t.nodes[y]
				if m == nil {
					continue
				}
				if _, ok := slices.BinarySearch(m.parent.unmerged, l); !ok {
					return fmt.Errorf("%w: leaf %d is unmerged at node %d but not at node %d", ErrInvalidTree, l, i, y)
				}
			}
		}
	}
	return nil
}

// checkUnique: encryption keys are unique among all nodes, signature keys
// among leaves, RFC 9420, Sections 7.3 and 12.4.3.1.
func (t *tree) checkUnique() error {
	enc := make(map[string]struct{}, len(t.nodes))
	sig := make(map[string]struct{}, len(t.nodes)/2)
	for i, n := range t.nodes {
		if n == nil {
			continue
		}
		if _, dup := enc[string(n.encryptionKey())]; dup {
			return fmt.Errorf("%w: encryption key of node %d appears twice", ErrInvalidTree, i)
		}
		enc[string(n.encryptionKey())] = struct{}{}
		if n.leaf == nil {
			continue
		}
		if _, dup := sig[string(n.leaf.SignatureKey)]; dup {
			return fmt.Errorf("%w: signature key of node %d appears twice", ErrInvalidTree, i)
		}
		sig[string(n.leaf.SignatureKey)] = struct{}{}
	}
	return nil
}

// checkParentHashes verifies that each parent node is parent-hash valid, RFC
// 9420, Section 7.9.2: exactly one node below it was set in the same path.
func (t *tree) checkParentHashes() error {
	t.rootHash() // fills the cache, which is then only read
	_, err := each(len(t.nodes), func(i int) error {
		n := t.nodes[i]
		if n == nil || n.parent == nil {
			return nil
		}
		x, count := nodeIndex(i), 0
		for _, c := range [2]nodeIndex{x.left(), x.right()} {
			if t.linked(n.parent, c, c.sibling()) {
				count++
			}
		}
		if count != 1 {
			return fmt.Errorf("%w: node %d is not parent-hash valid", ErrInvalidTree, i)
		}
		return nil
	})
	return err
}

// linked says whether the child c of p holds the node D that was set together
// with p: D is in the resolution of c, the rest of that resolution is exactly
// what of p's unmerged leaves lies under c, and D has p's parent hash.
func (t *tree) linked(p *parentNode, c, sibling nodeIndex) bool {
	unmerged := within(p.unmerged, c)
	d, found := nodeIndex(0), false
	rest := 0
	for _, x := range t.resolution(c) {
		if x.isLeaf() {
			if _, ok := slices.BinarySearch(unmerged, x.leaf()); ok {
				rest++
				continue
			}
		}
		if found {
			return false
		}
		d, found = x, true
	}
	if !found || rest != len(unmerged) {
		return false
	}
	var have []byte
	if n := t.nodes[d]; n.parent != nil {
		have = n.parent.parentHash
	} else if n.leaf.Source == LeafCommit {
		have = n.leaf.ParentHash
	} else {
		return false
	}
	return bytes.Equal(have, t.parentHash(p, sibling))
}
