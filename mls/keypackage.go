// SPDX-License-Identifier: Apache-2.0

package mls

import "time"

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
	// application can live with.
	Lifetime Lifetime
	// LastResort marks a package that may be used more than once, when no
	// other is left.
	LastResort bool
	// Capabilities; nil means those of this package.
	Capabilities   *Capabilities
	LeafExtensions []Extension
	Extensions     []Extension
}

// NewKeyPackage makes a KeyPackage and its secrets. It signs twice: the leaf
// node and the package.
func NewKeyPackage(id Identity, p KeyPackageParams) (*KeyPackage, *KeyPackageSecrets, error) {
	return nil, nil, errUnbuilt
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

// ParseKeyPackage decodes an MLSMessage that holds a KeyPackage. It does not
// verify it.
func ParseKeyPackage(message []byte) (*KeyPackage, error) { return nil, errUnbuilt }

// Message encodes the package as an MLSMessage, the form in which packages are
// published.
func (kp *KeyPackage) Message() []byte { return nil }

// Ref returns the KeyPackageRef, RFC 9420, Section 5.2.
func (kp *KeyPackage) Ref() ([]byte, error) { return nil, errUnbuilt }

// LastResort says whether the package carries the last-resort marker.
func (kp *KeyPackage) LastResort() bool { return false }

// Verify checks the package, RFC 9420, Section 10.1: its suite, both
// signatures, its keys, the credential with auth and, unless at is zero, the
// lifetime.
func (kp *KeyPackage) Verify(auth Authenticator, at time.Time) error { return errUnbuilt }

// KeyPackageSecrets are the private keys of a KeyPackage. Delete them after
// Join, unless the package is a last resort.
type KeyPackageSecrets struct {
	initKey, encryptionKey []byte
}

// Marshal encodes the secrets for the caller's sealed store.
func (s *KeyPackageSecrets) Marshal() []byte { return nil }

// ParseKeyPackageSecrets decodes what Marshal wrote.
func ParseKeyPackageSecrets(data []byte) (*KeyPackageSecrets, error) { return nil, errUnbuilt }
