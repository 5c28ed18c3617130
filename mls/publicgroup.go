// SPDX-License-Identifier: Apache-2.0

package mls

import "time"

// A PublicGroup follows a group from outside, without secrets: a relay's view.
// Its methods must not be called from two goroutines at once.
type PublicGroup struct{}

// NewPublicGroup verifies a GroupInfo and its ratchet tree: signatures, tree
// hash, parent hashes, every leaf, every credential. tree may be nil if the
// GroupInfo holds it.
func NewPublicGroup(auth Authenticator, groupInfo, tree []byte, at time.Time) (*PublicGroup, error) {
	return nil, errUnbuilt
}

// LoadPublicGroup restores a PublicGroup from all of its records.
func LoadPublicGroup(auth Authenticator, records Delta) (*PublicGroup, error) { return nil, errUnbuilt }

// ID returns the group's identifier.
func (p *PublicGroup) ID() []byte { return nil }

// Epoch returns the present epoch.
func (p *PublicGroup) Epoch() uint64 { return 0 }

// Suite returns the cipher suite.
func (p *PublicGroup) Suite() Suite { return 0 }

// Members lists the members by leaf index.
func (p *PublicGroup) Members() []Member { return nil }

// Extensions returns the group context's extensions.
func (p *PublicGroup) Extensions() []Extension { return nil }

// Tree returns the encoded ratchet tree, for joiners.
func (p *PublicGroup) Tree() []byte { return nil }

// State returns all records.
func (p *PublicGroup) State() Delta { return nil }

// A PublicStaged commit has been checked and not applied.
type PublicStaged struct {
	Change
	Delta Delta
}

// Check verifies a PublicMessage commit and stages it: epoch, membership and
// signature of the sender, proposals, path, leaves. An observer cannot check
// the confirmation tag.
func (p *PublicGroup) Check(commit []byte, at time.Time) (*PublicStaged, error) {
	return nil, errUnbuilt
}

// CheckGroupInfo verifies that a GroupInfo describes the epoch after the
// commit and is signed by a member of it.
func (s *PublicStaged) CheckGroupInfo(groupInfo []byte) error { return errUnbuilt }

// Members lists the members after the commit.
func (s *PublicStaged) Members() []Member { return nil }

// Tree returns the encoded ratchet tree after the commit.
func (s *PublicStaged) Tree() []byte { return nil }

// See verifies a PublicMessage proposal and keeps it until the epoch ends, so
// that commits can refer to it.
func (p *PublicGroup) See(proposal []byte, at time.Time) (*Proposal, Delta, error) {
	return nil, nil, errUnbuilt
}

// Apply moves to the state after a commit. The caller has persisted the Delta
// before.
func (p *PublicGroup) Apply(s *PublicStaged) error { return errUnbuilt }
