// SPDX-License-Identifier: Apache-2.0

// Package manifest reads and writes the two documents that an authority's root
// key signs beside certificates. Everybody pins the root and nothing else; what
// else speaks for the authority follows from these.
//
// The [Founding] is signed once, in the ceremony that founds an authority, and
// is the first leaf of its record: who the first officers are, and the rules
// that hold until officers change them. An authority that was founded without
// officers is [Founding.Lone], and says so under its root's signature.
//
// A [Manifest] names the keys in use: issuing certificates, the keys that sign
// bulletins, the keys that sign the ledger's checkpoints. Its number only goes
// up and each names its predecessor, so a lost token is replaced by signing the
// next one; whoever holds number n takes no lower one again.
//
//	m, err := manifest.ParseManifest(raw, root)  // root: the pinned certificate
//	err = m.Follows(older)                       // nil older: the first that is seen
//
// Both are JWS with the root's certificate in x5c; spec/bulletin.md, Sections 2
// and 3, fix them byte by byte. The root key is offline: sign only in a ceremony
// or when a key is replaced.
package manifest
