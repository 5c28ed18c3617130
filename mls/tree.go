// SPDX-License-Identifier: Apache-2.0

package mls

import (
	"fmt"
	"iter"
	"slices"
)

// A parentNode is never changed once it is in a tree, RFC 9420, Section 7.1:
//
//	struct {
//	    HPKEPublicKey encryption_key;
//	    opaque parent_hash<V>;
//	    uint32 unmerged_leaves<V>;
//	} ParentNode;
type parentNode struct {
	encryptionKey []byte
	parentHash    []byte
	unmerged      []LeafIndex // strictly increasing
}

func readParentNode(r *reader) *parentNode {
	p := &parentNode{encryptionKey: r.opaque(), parentHash: r.opaque()}
	p.unmerged = readVector(r, func(r *reader) LeafIndex { return LeafIndex(r.u32()) })
	for i := 1; i < len(p.unmerged); i++ {
		if p.unmerged[i] <= p.unmerged[i-1] {
			r.fail()
		}
	}
	return p
}

// room is about the encoded size.
func (p *parentNode) room() int {
	return 16 + len(p.encryptionKey) + len(p.parentHash) + 4*len(p.unmerged)
}

func (p *parentNode) append(b []byte) []byte {
	b = appendOpaque(appendOpaque(b, p.encryptionKey), p.parentHash)
	b = appendLength(b, 4*len(p.unmerged))
	for _, l := range p.unmerged {
		b = appendU32(b, uint32(l))
	}
	return b
}

// A node is a leaf or a parent; blank nodes are nil.
type node struct {
	leaf   *LeafNode
	parent *parentNode
}

func (n *node) encryptionKey() []byte {
	if n.leaf != nil {
		return n.leaf.EncryptionKey
	}
	return n.parent.encryptionKey
}

// A tree is the ratchet tree of RFC 9420, Section 7, as an array (Appendix C).
// Nodes are shared between clones and never change; slots do.
type tree struct {
	suite *suiteParams
	nodes []*node  // 2^(d+1)-1 slots
	hash  [][]byte // tree hashes; nil is to be computed, and then so are all above
	blank int      // no leaf below this index is blank
}

func (t *tree) clone() *tree {
	return &tree{t.suite, slices.Clone(t.nodes), slices.Clone(t.hash), t.blank}
}

func (t *tree) width() uint32           { return uint32(len(t.nodes)+1) / 2 }
func (t *tree) root() nodeIndex         { return rootOf(t.width()) }
func (t *tree) has(x nodeIndex) bool    { return int(x) < len(t.nodes) }
func (t *tree) at(x nodeIndex) *node    { return t.nodes[x] }
func (t *tree) isRoot(x nodeIndex) bool { return x == t.root() }

// leaf returns the leaf node at an index, or nil.
func (t *tree) leaf(l LeafIndex) *LeafNode {
	if uint32(l) >= t.width() || t.nodes[l.node()] == nil {
		return nil
	}
	return t.nodes[l.node()].leaf
}

// leaves yields the members' leaves in order.
func (t *tree) leaves() iter.Seq2[LeafIndex, *LeafNode] {
	return func(yield func(LeafIndex, *LeafNode) bool) {
		for i := 0; i < len(t.nodes); i += 2 {
			if n := t.nodes[i]; n != nil && !yield(LeafIndex(i/2), n.leaf) {
				return
			}
		}
	}
}

func (t *tree) members() []Member {
	var out []Member
	for i, l := range t.leaves() {
		out = append(out, l.member(i))
	}
	return out
}

// set fills or blanks a slot and forgets the hashes above it.
func (t *tree) set(x nodeIndex, n *node) {
	t.nodes[x] = n
	for t.hash[x] != nil {
		t.hash[x] = nil
		if t.isRoot(x) {
			return
		}
		x = x.parent()
	}
}

// directPath lists the ancestors of a leaf, from the bottom up.
func (t *tree) directPath(l LeafIndex) []nodeIndex {
	var path []nodeIndex
	for x := l.node(); !t.isRoot(x); {
		x = x.parent()
		path = append(path, x)
	}
	return path
}

// A step is a node of a filtered direct path with its child off the path.
type step struct{ node, copath nodeIndex }

// filteredPath is the filtered direct path of RFC 9420, Section 4.1.2: nodes
// whose child off the path has an empty resolution are left out.
func (t *tree) filteredPath(l LeafIndex) []step {
	var path []step
	for x := l.node(); !t.isRoot(x); x = x.parent() {
		if s := x.sibling(); !t.empty(s) {
			path = append(path, step{x.parent(), s})
		}
	}
	return path
}

// empty says whether a node's resolution is empty.
func (t *tree) empty(x nodeIndex) bool {
	if t.nodes[x] != nil {
		return false
	}
	return x.isLeaf() || t.empty(x.left()) && t.empty(x.right())
}

// resolution of a node, RFC 9420, Section 4.1.1.
func (t *tree) resolution(x nodeIndex) []nodeIndex { return t.appendResolution(nil, x) }

func (t *tree) appendResolution(out []nodeIndex, x nodeIndex) []nodeIndex {
	switch n := t.nodes[x]; {
	case n != nil && n.parent != nil:
		out = append(out, x)
		for _, l := range n.parent.unmerged {
			out = append(out, l.node())
		}
	case n != nil:
		out = append(out, x)
	case !x.isLeaf():
		out = t.appendResolution(t.appendResolution(out, x.left()), x.right())
	}
	return out
}

// resize extends or truncates to a number of leaves, a power of two, RFC 9420,
// Section 7.7.
func (t *tree) resize(leaves uint32) {
	n := int(nodeWidth(leaves))
	if n <= len(t.nodes) {
		t.nodes, t.hash = t.nodes[:n], t.hash[:n]
		return
	}
	t.nodes = append(t.nodes, make([]*node, n-len(t.nodes))...)
	t.hash = append(t.hash, make([][]byte, n-len(t.hash))...)
}

// add puts a leaf at the leftmost blank place, RFC 9420, Section 12.1.1. The
// new leaf is unmerged at every parent above it.
func (t *tree) add(leaf *LeafNode) LeafIndex {
	l := t.place(leaf)
	for _, x := range t.directPath(l) {
		if n := t.nodes[x]; n != nil {
			p := *n.parent
			at, _ := slices.BinarySearch(p.unmerged, l)
			p.unmerged = slices.Insert(slices.Clone(p.unmerged), at, l)
			t.set(x, &node{parent: &p})
		}
	}
	return l
}

// place fills the leftmost blank leaf, extending the tree if there is none.
func (t *tree) place(leaf *LeafNode) LeafIndex {
	for t.blank < int(t.width()) && t.nodes[2*t.blank] != nil {
		t.blank++
	}
	if t.blank >= int(t.width()) {
		t.blank = int(t.width())
		t.resize(max(1, 2*t.width()))
	}
	l := LeafIndex(t.blank)
	t.set(l.node(), &node{leaf: leaf})
	return l
}

// update replaces a leaf and blanks the nodes above, RFC 9420, Section 12.1.2.
func (t *tree) update(l LeafIndex, leaf *LeafNode) {
	t.set(l.node(), &node{leaf: leaf})
	t.blankPath(l)
}

func (t *tree) blankPath(l LeafIndex) {
	for _, x := range t.directPath(l) {
		t.set(x, nil)
	}
}

// remove blanks a leaf and the nodes above, RFC 9420, Section 12.1.3. The
// caller truncates after the last removal.
func (t *tree) remove(l LeafIndex) {
	t.set(l.node(), nil)
	t.blankPath(l)
	t.blank = min(t.blank, int(l))
}

// truncate drops right halves without members, RFC 9420, Section 7.7.
func (t *tree) truncate() {
	last := len(t.nodes) - 1
	for last > 0 && (last&1 == 1 || t.nodes[last] == nil) {
		last--
	}
	if last < 0 {
		return
	}
	t.resize(fullWidth(uint32(last/2) + 1))
}

// readTree decodes a ratchet tree, RFC 9420, Section 12.4.3.3.
//
//	struct {
//	    NodeType node_type;
//	    select (Node.node_type) {
//	        case leaf:   LeafNode leaf_node;
//	        case parent: ParentNode parent_node;
//	    };
//	} Node;
//	optional<Node> ratchet_tree<V>;
func readTree(s *suiteParams, r *reader) *tree {
	nodes := readVector(r, func(r *reader) *node {
		if !r.optional() {
			return nil
		}
		return readNode(r)
	})
	if len(nodes) == 0 || nodes[len(nodes)-1] == nil || len(nodes) > 2*maxLeaves {
		r.fail()
		return nil
	}
	for i, n := range nodes {
		if n != nil && (n.leaf != nil) != nodeIndex(i).isLeaf() {
			r.fail()
			return nil
		}
	}
	t := &tree{suite: s, nodes: nodes, hash: make([][]byte, len(nodes))}
	t.resize(fullWidth(uint32(len(nodes)+2) / 2))
	return t
}

func readNode(r *reader) *node {
	switch r.u8() {
	case 1:
		return &node{leaf: readLeafNode(r)}
	case 2:
		return &node{parent: readParentNode(r)}
	}
	r.fail()
	return nil
}

func (n *node) room() int {
	if n.leaf != nil {
		return 1 + n.leaf.room()
	}
	return 1 + n.parent.room()
}

func (n *node) append(b []byte) []byte {
	if n.leaf != nil {
		return n.leaf.append(append(b, 1))
	}
	return n.parent.append(append(b, 2))
}

// appendTree encodes without the blank nodes at the end.
func (t *tree) append(b []byte) []byte {
	last := len(t.nodes)
	for last > 0 && t.nodes[last-1] == nil {
		last--
	}
	room := 8
	for _, n := range t.nodes[:last] {
		if room++; n != nil {
			room += n.room()
		}
	}
	return appendVector(slices.Grow(b, room), t.nodes[:last], func(b []byte, n *node) []byte {
		if b = appendOptional(b, n != nil); n == nil {
			return b
		}
		return n.append(b)
	})
}

func parseTree(s *suiteParams, data []byte) (*tree, error) {
	t, err := decode(data, func(r *reader) *tree { return readTree(s, r) })
	if err != nil {
		return nil, fmt.Errorf("%w: ratchet tree", err)
	}
	return t, nil
}
