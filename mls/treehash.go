// SPDX-License-Identifier: Apache-2.0

package mls

import "slices"

// treeHash is the tree hash of a subtree, RFC 9420, Section 7.8. Hashes are
// cached per node; set forgets those that a change touches.
//
//	struct {
//	    NodeType node_type;
//	    select (TreeHashInput.node_type) {
//	        case leaf:   uint32 leaf_index; optional<LeafNode> leaf_node;
//	        case parent: optional<ParentNode> parent_node;
//	                     opaque left_hash<V>; opaque right_hash<V>;
//	    };
//	} TreeHashInput;
func (t *tree) treeHash(x nodeIndex) []byte {
	if t.hash[x] == nil {
		t.hash[x] = t.computeHash(x, nil)
	}
	return t.hash[x]
}

// originalHash is the tree hash of a subtree as it was before the given leaves
// were added: they are blank, and in nobody's unmerged leaves. RFC 9420,
// Section 7.9.
func (t *tree) originalHash(x nodeIndex, without []LeafIndex) []byte {
	without = within(without, x)
	if len(without) == 0 {
		return t.treeHash(x)
	}
	return t.computeHash(x, without)
}

// within returns the part of a sorted list of leaves that lies under a node.
func within(leaves []LeafIndex, x nodeIndex) []LeafIndex {
	span := nodeIndex(1)<<x.level() - 1
	lo, _ := slices.BinarySearch(leaves, (x - span).leaf())
	hi, _ := slices.BinarySearch(leaves, (x+span).leaf()+1)
	return leaves[lo:hi]
}

// computeHash hashes one node; without is what lies under it of the leaves to
// be left out.
func (t *tree) computeHash(x nodeIndex, without []LeafIndex) []byte {
	n := t.nodes[x]
	if x.isLeaf() {
		present := n != nil && len(without) == 0
		room := 8
		if present {
			room += n.leaf.room()
		}
		b := appendOptional(appendU32(append(make([]byte, 0, room), 1), uint32(x.leaf())), present)
		if present {
			b = n.leaf.append(b)
		}
		return t.suite.sum(b)
	}
	room := 16 + 2*t.suite.nh()
	if n != nil {
		room += n.parent.room()
	}
	b := appendOptional(append(make([]byte, 0, room), 2), n != nil)
	if n != nil {
		p := *n.parent
		if len(without) > 0 {
			p.unmerged = subtract(p.unmerged, without)
		}
		b = p.append(b)
	}
	b = appendOpaque(b, t.originalHash(x.left(), without))
	b = appendOpaque(b, t.originalHash(x.right(), without))
	return t.suite.sum(b)
}

// subtract returns a without the elements of b, both sorted.
func subtract(a, b []LeafIndex) []LeafIndex {
	var out []LeafIndex
	for _, l := range a {
		if _, found := slices.BinarySearch(b, l); !found {
			out = append(out, l)
		}
	}
	return out
}

func (t *tree) rootHash() []byte { return t.treeHash(t.root()) }

// parentHash hashes ParentHashInput of RFC 9420, Section 7.9.
//
//	struct {
//	    HPKEPublicKey encryption_key;
//	    opaque parent_hash<V>;
//	    opaque original_sibling_tree_hash<V>;
//	} ParentHashInput;
func (t *tree) parentHash(p *parentNode, sibling nodeIndex) []byte {
	b := appendOpaque(make([]byte, 0, 16+len(p.encryptionKey)+len(p.parentHash)+t.suite.nh()), p.encryptionKey)
	b = appendOpaque(b, p.parentHash)
	b = appendOpaque(b, t.originalHash(sibling, p.unmerged))
	return t.suite.sum(b)
}
