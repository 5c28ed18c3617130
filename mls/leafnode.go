// SPDX-License-Identifier: Apache-2.0

package mls

// A LeafIndex is a member's place in the ratchet tree, counted from the left.
// It names a member within one epoch and may be used again after a removal.
type LeafIndex uint32

// A LeafSource says how a leaf node came about, RFC 9420, Section 7.2.
type LeafSource uint8

const (
	LeafKeyPackage LeafSource = 1
	LeafUpdate     LeafSource = 2
	LeafCommit     LeafSource = 3
)

// A LeafNode describes one member, RFC 9420, Section 7.2.
type LeafNode struct {
	EncryptionKey []byte
	SignatureKey  []byte
	Credential    Credential
	Capabilities  Capabilities
	Source        LeafSource
	Lifetime      Lifetime // LeafKeyPackage
	ParentHash    []byte   // LeafCommit
	Extensions    []Extension
	Signature     []byte
}

// A Member is one leaf of a group.
type Member struct {
	Leaf         LeafIndex
	Credential   Credential
	SignatureKey []byte // as in the leaf: an uncompressed point, or Ed25519
}
