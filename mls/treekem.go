// SPDX-License-Identifier: Apache-2.0

package mls

import (
	"bytes"
	"fmt"
	"slices"
)

// A freshPath is what a committer generates, RFC 9420, Section 7.4.
type freshPath struct {
	steps   []step
	secrets [][]byte // path_secret[i]
	keys    []*privKey
	leaf    *LeafNode
	leafKey *privKey
	commit  []byte // commit_secret
}

// renewPath gives a sender fresh keys along its filtered direct path and a new
// leaf, signed, RFC 9420, Section 7.5. leaf holds the fields that the sender
// chooses.
func (t *tree) renewPath(from LeafIndex, leaf LeafNode, id Identity, groupID []byte) (*freshPath, error) {
	s := t.suite
	p := &freshPath{steps: t.filteredPath(from)}
	t.blankPath(from)
	secret := random(s.nh())
	for _, st := range p.steps {
		k, err := s.deriveKeyPair(s.deriveSecret(secret, "node"))
		if err != nil {
			return nil, err
		}
		p.secrets, p.keys = append(p.secrets, secret), append(p.keys, k)
		t.set(st.node, &node{parent: &parentNode{encryptionKey: k.public()}})
		secret = s.deriveSecret(secret, "path")
	}
	p.commit = secret
	var err error
	if p.leafKey, err = s.generateKey(); err != nil {
		return nil, err
	}
	leaf.EncryptionKey, leaf.Source, leaf.Lifetime = p.leafKey.public(), LeafCommit, Lifetime{}
	leaf.ParentHash = t.chain(p.steps)
	if err := leaf.sign(s, id, groupID, from); err != nil {
		return nil, err
	}
	p.leaf = &leaf
	t.set(from.node(), &node{leaf: p.leaf})
	return p, nil
}

// chain computes parent hashes from the root down and returns the leaf's, RFC
// 9420, Section 7.9.
func (t *tree) chain(path []step) []byte {
	var above []byte
	for _, st := range slices.Backward(path) {
		p := &parentNode{encryptionKey: t.nodes[st.node].parent.encryptionKey, parentHash: above}
		t.set(st.node, &node{parent: p})
		above = t.parentHash(p, st.copath)
	}
	return above
}

// seal encrypts the path secrets to the resolutions off the path, RFC 9420,
// Section 7.6. Leaves that the same commit adds are left out: they get theirs
// in the Welcome.
func (p *freshPath) seal(t *tree, added []LeafIndex, context []byte) (*updatePath, error) {
	up := &updatePath{leaf: p.leaf}
	for i, st := range p.steps {
		n := updatePathNode{encryptionKey: p.keys[i].public()}
		for _, x := range t.recipients(st.copath, added) {
			c, err := t.suite.encryptWithLabel(t.nodes[x].encryptionKey(), "UpdatePathNode", context, p.secrets[i])
			if err != nil {
				return nil, fmt.Errorf("node %d: %w", x, err)
			}
			n.secrets = append(n.secrets, c)
		}
		up.nodes = append(up.nodes, n)
	}
	return up, nil
}

// recipients is the resolution of a node without the added leaves.
func (t *tree) recipients(x nodeIndex, added []LeafIndex) []nodeIndex {
	return slices.DeleteFunc(t.resolution(x), func(y nodeIndex) bool {
		if !y.isLeaf() {
			return false
		}
		_, found := slices.BinarySearch(added, y.leaf())
		return found
	})
}

// mergePath puts a received path into the tree, RFC 9420, Section 7.5, and
// checks its shape and the leaf's parent hash.
func (t *tree) mergePath(from LeafIndex, up *updatePath, added []LeafIndex) ([]step, error) {
	path := t.filteredPath(from)
	if len(path) != len(up.nodes) {
		return nil, fmt.Errorf("%w: path has %d nodes, must have %d", ErrInvalidCommit, len(up.nodes), len(path))
	}
	t.blankPath(from)
	for i, st := range path {
		n := &up.nodes[i]
		if want := len(t.recipients(st.copath, added)); len(n.secrets) != want {
			return nil, fmt.Errorf("%w: path node %d has %d secrets, must have %d", ErrInvalidCommit, i, len(n.secrets), want)
		}
		if err := t.suite.checkHPKEKey(n.encryptionKey); err != nil {
			return nil, fmt.Errorf("%w: path node %d: %w", ErrInvalidCommit, i, err)
		}
		t.set(st.node, &node{parent: &parentNode{encryptionKey: n.encryptionKey}})
	}
	if !bytes.Equal(t.chain(path), up.leaf.ParentHash) {
		return nil, fmt.Errorf("%w: parent hash of the committer's leaf", ErrInvalidCommit)
	}
	t.set(from.node(), &node{leaf: up.leaf})
	return path, nil
}

// openPath decrypts the path secret that is meant for a member, checks that
// it leads to the public keys in the path, and adds the private keys to privs,
// RFC 9420, Section 7.5. It returns the commit secret.
func (t *tree) openPath(own LeafIndex, path []step, up *updatePath, added []LeafIndex, context []byte, privs map[nodeIndex]*privKey) ([]byte, error) {
	i := slices.IndexFunc(path, func(st step) bool { return st.copath.covers(own.node()) })
	if i < 0 {
		return nil, fmt.Errorf("%w: path does not reach this member", ErrInvalidCommit)
	}
	for j, x := range t.recipients(path[i].copath, added) {
		if privs[x] == nil {
			continue
		}
		secret, err := t.suite.decryptWithLabel(privs[x].key, "UpdatePathNode", context, up.nodes[i].secrets[j])
		if err != nil {
			return nil, fmt.Errorf("%w: path secret: %w", ErrInvalidCommit, err)
		}
		return t.climb(secret, path[i:], privs)
	}
	return nil, fmt.Errorf("%w: no key for any path secret", ErrInvalidCommit)
}

// climb derives the private keys of path nodes from a path secret, compares
// them with the tree and returns the secret after the last.
func (t *tree) climb(secret []byte, path []step, privs map[nodeIndex]*privKey) ([]byte, error) {
	s := t.suite
	for _, st := range path {
		k, err := s.deriveKeyPair(s.deriveSecret(secret, "node"))
		if err != nil {
			return nil, err
		}
		if !bytes.Equal(k.public(), t.nodes[st.node].encryptionKey()) {
			return nil, fmt.Errorf("%w: path secret does not fit the key of node %d", ErrInvalidCommit, st.node)
		}
		privs[st.node] = k
		secret = s.deriveSecret(secret, "path")
	}
	return secret, nil
}

// setNodes lists the non-blank nodes of a leaf's direct path from x upwards.
// Right after a commit, they are the committer's filtered path.
func (t *tree) setNodes(x nodeIndex) []step {
	var path []step
	for ; ; x = x.parent() {
		if t.nodes[x] != nil {
			path = append(path, step{node: x})
		}
		if t.isRoot(x) {
			return path
		}
	}
}
