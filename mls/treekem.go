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
	p.secrets, p.commit = s.pathSecrets(random(s.nh()), len(p.steps))
	p.keys = make([]*privKey, len(p.steps))
	_, err := each(len(p.steps)+1, func(i int) (err error) {
		if i == len(p.steps) {
			p.leafKey, err = s.generateKey()
			return err
		}
		p.keys[i], err = s.deriveKeyPair(s.deriveSecret(p.secrets[i], "node"))
		return err
	})
	if err != nil {
		return nil, err
	}
	for i, st := range p.steps {
		t.set(st.node, &node{parent: &parentNode{encryptionKey: p.keys[i].public()}})
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

// pathSecrets are n path secrets from the first, and the secret after the last,
// RFC 9420, Section 7.4.
func (s *suiteParams) pathSecrets(secret []byte, n int) ([][]byte, []byte) {
	list := make([][]byte, n)
	for i := range list {
		list[i] = secret
		secret = s.deriveSecret(secret, "path")
	}
	return list, secret
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
	up := &updatePath{leaf: p.leaf, nodes: make([]updatePathNode, len(p.steps))}
	type parcel struct {
		step, place int
		to          nodeIndex
	}
	var parcels []parcel
	for i, st := range p.steps {
		to := t.recipients(st.copath, added)
		up.nodes[i] = updatePathNode{p.keys[i].public(), make([]hpkeCiphertext, len(to))}
		for j, x := range to {
			parcels = append(parcels, parcel{i, j, x})
		}
	}
	_, err := each(len(parcels), func(k int) error {
		q := parcels[k]
		c, err := t.suite.encryptWithLabel(t.nodes[q.to].encryptionKey(), "UpdatePathNode", context, p.secrets[q.step])
		if err != nil {
			return fmt.Errorf("node %d: %w", q.to, err)
		}
		up.nodes[q.step].secrets[q.place] = c
		return nil
	})
	return up, err
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
	secrets, after := s.pathSecrets(secret, len(path))
	keys := make([]*privKey, len(path))
	_, err := each(len(path), func(i int) error {
		k, err := s.deriveKeyPair(s.deriveSecret(secrets[i], "node"))
		if err != nil {
			return err
		}
		if x := path[i].node; !bytes.Equal(k.public(), t.nodes[x].encryptionKey()) {
			return fmt.Errorf("%w: path secret does not fit the key of node %d", ErrInvalidCommit, x)
		}
		keys[i] = k
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i, st := range path {
		privs[st.node] = keys[i]
	}
	return after, nil
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
