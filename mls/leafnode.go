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

// A LeafNode describes one member, RFC 9420, Section 7.2. It is never changed
// once it is in a tree.
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

// readLeafNode decodes, RFC 9420, Section 7.2:
//
//	struct {
//	    HPKEPublicKey encryption_key;
//	    SignaturePublicKey signature_key;
//	    Credential credential;
//	    Capabilities capabilities;
//	    LeafNodeSource leaf_node_source;
//	    select (LeafNode.leaf_node_source) {
//	        case key_package: Lifetime lifetime;
//	        case update:      struct{};
//	        case commit:      opaque parent_hash<V>;
//	    };
//	    Extension extensions<V>;
//	    opaque signature<V>;
//	} LeafNode;
func readLeafNode(r *reader) *LeafNode {
	l := &LeafNode{
		EncryptionKey: r.opaque(),
		SignatureKey:  r.opaque(),
		Credential:    readCredential(r),
		Capabilities:  readCapabilities(r),
		Source:        LeafSource(r.u8()),
	}
	switch l.Source {
	case LeafKeyPackage:
		l.Lifetime = readLifetime(r)
	case LeafUpdate:
	case LeafCommit:
		l.ParentHash = r.opaque()
	default:
		r.fail()
	}
	l.Extensions = readExtensions(r)
	l.Signature = r.opaque()
	return l
}

func readLifetime(r *reader) Lifetime { return Lifetime{r.u64(), r.u64()} }

// appendBody writes all fields but the signature.
func (l *LeafNode) appendBody(b []byte) []byte {
	b = appendOpaque(b, l.EncryptionKey)
	b = appendOpaque(b, l.SignatureKey)
	b = l.Credential.append(b)
	b = l.Capabilities.append(b)
	b = append(b, byte(l.Source))
	switch l.Source {
	case LeafKeyPackage:
		b = appendU64(appendU64(b, l.Lifetime.NotBefore), l.Lifetime.NotAfter)
	case LeafCommit:
		b = appendOpaque(b, l.ParentHash)
	}
	return appendExtensions(b, l.Extensions)
}

// room is about the encoded size, so that encoding allocates once.
func (l *LeafNode) room() int {
	n := 256 + len(l.EncryptionKey) + len(l.SignatureKey) + len(l.Credential.Identity) + len(l.Signature)
	for _, c := range l.Credential.Certificates {
		n += len(c) + 4
	}
	return n
}

func (l *LeafNode) append(b []byte) []byte { return appendOpaque(l.appendBody(b), l.Signature) }

// tbs is LeafNodeTBS of RFC 9420, Section 7.2: outside of KeyPackages the
// signature is bound to the group and the leaf's place in it.
func (l *LeafNode) tbs(groupID []byte, leaf LeafIndex) []byte {
	b := l.appendBody(make([]byte, 0, l.room()))
	if l.Source != LeafKeyPackage {
		b = appendU32(appendOpaque(b, groupID), uint32(leaf))
	}
	return b
}

func (l *LeafNode) sign(s *suiteParams, id Identity, groupID []byte, leaf LeafIndex) (err error) {
	l.Signature, err = s.signWithLabel(id.Signer, "LeafNodeTBS", l.tbs(groupID, leaf))
	return err
}

func (l *LeafNode) verify(s *suiteParams, groupID []byte, leaf LeafIndex) error {
	return s.verifyWithLabel(l.SignatureKey, "LeafNodeTBS", l.tbs(groupID, leaf), l.Signature)
}

// A Member is one leaf of a group.
type Member struct {
	Leaf         LeafIndex
	Credential   Credential
	SignatureKey []byte // as in the leaf: an uncompressed point, or Ed25519
}

func (l *LeafNode) member(i LeafIndex) Member {
	return Member{Leaf: i, Credential: l.Credential, SignatureKey: l.SignatureKey}
}
