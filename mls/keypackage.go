// SPDX-License-Identifier: Apache-2.0

package mls

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"
)

const versionMLS10 uint16 = 1 // ProtocolVersion of RFC 9420, Section 6

// A Lifetime bounds the use of a KeyPackage, RFC 9420, Section 7.2, in seconds
// since 1970.
type Lifetime struct {
	NotBefore, NotAfter uint64
}

// NewLifetime returns the lifetime between two times.
func NewLifetime(notBefore, notAfter time.Time) Lifetime {
	return Lifetime{uint64(notBefore.Unix()), uint64(notAfter.Unix())}
}

// KeyPackageParams says what a new KeyPackage holds.
type KeyPackageParams struct {
	Suite Suite // 0 means DefaultSuite
	// Lifetime is required. RFC 9420, Section 7.2 wants it as short as the
	// application can live with; MaxLifetime is the most that is accepted.
	Lifetime Lifetime
	// LastResort marks a package that may be used more than once, when no
	// other is left.
	LastResort bool
	// Capabilities; nil means those of this package.
	Capabilities   *Capabilities
	LeafExtensions []Extension
	Extensions     []Extension
}

// A KeyPackage lets others add a device to a group while it is offline, RFC
// 9420, Section 10.
type KeyPackage struct {
	Version    uint16
	Suite      Suite
	InitKey    []byte
	Leaf       LeafNode
	Extensions []Extension
	Signature  []byte
}

// newLeaf fills in a leaf that is not signed yet.
func newLeaf(s *suiteParams, id Identity, pub []byte, caps *Capabilities, ext []Extension) (*LeafNode, error) {
	key, err := id.key(s)
	if err != nil {
		return nil, err
	}
	if err := checkExtensions(ext); err != nil {
		return nil, err
	}
	l := &LeafNode{EncryptionKey: pub, SignatureKey: key, Credential: id.Credential, Extensions: ext}
	if caps != nil {
		l.Capabilities = *caps
	} else {
		l.Capabilities = DefaultCapabilities()
	}
	return l, l.checkOwnCapabilities(s)
}

// NewKeyPackage makes a KeyPackage and its secrets. It signs twice: the leaf
// node and the package.
func NewKeyPackage(id Identity, p KeyPackageParams) (*KeyPackage, *KeyPackageSecrets, error) {
	if p.Suite == 0 {
		p.Suite = DefaultSuite
	}
	s, err := p.Suite.params()
	if err != nil {
		return nil, nil, err
	}
	if p.Lifetime.NotAfter <= p.Lifetime.NotBefore {
		return nil, nil, errors.New("mls: key package needs a lifetime")
	}
	initKey, err := s.generateKey()
	if err != nil {
		return nil, nil, err
	}
	encKey, err := s.generateKey()
	if err != nil {
		return nil, nil, err
	}
	leaf, err := newLeaf(s, id, encKey.public(), p.Capabilities, p.LeafExtensions)
	if err != nil {
		return nil, nil, err
	}
	leaf.Source, leaf.Lifetime = LeafKeyPackage, p.Lifetime
	if err := leaf.sign(s, id, nil, 0); err != nil {
		return nil, nil, err
	}
	kp := &KeyPackage{Version: versionMLS10, Suite: p.Suite, InitKey: initKey.public(), Leaf: *leaf, Extensions: p.Extensions}
	if p.LastResort && !kp.LastResort() {
		kp.Extensions = append(slices.Clone(p.Extensions), Extension{Type: ExtensionLastResort})
	}
	if err := checkExtensions(kp.Extensions); err != nil {
		return nil, nil, err
	}
	if kp.Signature, err = s.signWithLabel(id.Signer, "KeyPackageTBS", kp.appendBody(nil)); err != nil {
		return nil, nil, err
	}
	return kp, &KeyPackageSecrets{initKey.bytes, encKey.bytes}, nil
}

// readKeyPackage decodes, RFC 9420, Section 10:
//
//	struct {
//	    ProtocolVersion version;
//	    CipherSuite cipher_suite;
//	    HPKEPublicKey init_key;
//	    LeafNode leaf_node;
//	    Extension extensions<V>;
//	    opaque signature<V>;
//	} KeyPackage;
func readKeyPackage(r *reader) *KeyPackage {
	kp := &KeyPackage{Version: r.u16(), Suite: Suite(r.u16()), InitKey: r.opaque(), Leaf: *readLeafNode(r)}
	kp.Extensions = readExtensions(r)
	kp.Signature = r.opaque()
	return kp
}

func (kp *KeyPackage) appendBody(b []byte) []byte {
	b = appendU16(appendU16(b, kp.Version), uint16(kp.Suite))
	b = appendOpaque(b, kp.InitKey)
	return appendExtensions(kp.Leaf.append(b), kp.Extensions)
}

func (kp *KeyPackage) append(b []byte) []byte { return appendOpaque(kp.appendBody(b), kp.Signature) }

// ParseKeyPackage decodes an MLSMessage that holds a KeyPackage. It does not
// verify it.
func ParseKeyPackage(message []byte) (*KeyPackage, error) {
	m, err := parseMessage(message)
	if err != nil {
		return nil, err
	}
	if m.keyPackage == nil {
		return nil, fmt.Errorf("%w: message is not a key package", ErrMalformed)
	}
	return m.keyPackage, nil
}

// Message encodes the package as an MLSMessage, the form in which packages are
// published.
func (kp *KeyPackage) Message() []byte {
	return (&mlsMessage{wire: WireKeyPackage, keyPackage: kp}).marshal()
}

// Ref returns the KeyPackageRef, RFC 9420, Section 5.2.
func (kp *KeyPackage) Ref() ([]byte, error) {
	s, err := kp.Suite.params()
	if err != nil {
		return nil, err
	}
	return s.refHash("MLS 1.0 KeyPackage Reference", kp.append(nil)), nil
}

// LastResort says whether the package carries the last-resort marker.
func (kp *KeyPackage) LastResort() bool {
	_, ok := findExtension(kp.Extensions, ExtensionLastResort)
	return ok
}

// Verify checks the package, RFC 9420, Section 10.1: its suite, both
// signatures, its keys, the credential with auth and, unless at is zero, the
// lifetime.
func (kp *KeyPackage) Verify(auth Authenticator, at time.Time) error {
	if err := kp.verifyAlone(at); err != nil {
		return err
	}
	return authenticate(auth, kp.Leaf.Credential, kp.Leaf.SignatureKey)
}

// verifyAlone is Verify without asking the caller about the credential.
func (kp *KeyPackage) verifyAlone(at time.Time) error {
	s, err := kp.Suite.params()
	if err != nil {
		return err
	}
	if kp.Version != versionMLS10 {
		return fmt.Errorf("%w: key package of version %d", ErrSuite, kp.Version)
	}
	if err := s.checkHPKEKey(kp.InitKey); err != nil {
		return err
	}
	if bytes.Equal(kp.InitKey, kp.Leaf.EncryptionKey) {
		return fmt.Errorf("%w: init key is also the encryption key", ErrInvalidLeaf)
	}
	if err := s.checkLeafAlone(&kp.Leaf, LeafKeyPackage, nil, 0, at); err != nil {
		return err
	}
	return s.verifyWithLabel(kp.Leaf.SignatureKey, "KeyPackageTBS", kp.appendBody(nil), kp.Signature)
}

// KeyPackageSecrets are the private keys of a KeyPackage. Delete them after
// Join, unless the package is a last resort.
type KeyPackageSecrets struct {
	initKey, encryptionKey []byte
}

// Marshal encodes the secrets for the caller's sealed store.
func (s *KeyPackageSecrets) Marshal() []byte {
	return appendOpaque(appendOpaque([]byte{stateVersion}, s.initKey), s.encryptionKey)
}

// ParseKeyPackageSecrets decodes what Marshal wrote.
func ParseKeyPackageSecrets(data []byte) (*KeyPackageSecrets, error) {
	return decode(data, func(r *reader) *KeyPackageSecrets {
		if r.u8() != stateVersion {
			r.fail()
		}
		return &KeyPackageSecrets{r.opaque(), r.opaque()}
	})
}
