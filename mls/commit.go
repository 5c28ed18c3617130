// SPDX-License-Identifier: Apache-2.0

package mls

import "time"

// CommitParams says what a commit does.
type CommitParams struct {
	// Proposals are carried in the commit itself.
	Proposals []Proposal
	// IgnorePending leaves out the proposals that were received; without it
	// all valid ones are committed by reference.
	IgnorePending bool
	// NoPath leaves out the update path where RFC 9420, Section 12.4 allows
	// it (adds and PSKs only): cheaper, heals nothing.
	NoPath bool
	// Private sends the commit as a PrivateMessage.
	Private bool
	// TreeInWelcome puts the ratchet tree in the Welcome, at the price of one
	// more signature; otherwise joiners need it from elsewhere (Group.Tree).
	TreeInWelcome bool
	// NoGroupInfo makes no GroupInfo, which saves a signature where nobody is
	// added.
	NoGroupInfo bool
	// Credential replaces this member's credential, a renewed certificate of
	// the same key; nil keeps it. Needs a path.
	Credential *Credential
	// AuthenticatedData travels with the commit, signed, in clear.
	AuthenticatedData []byte
	// At checks lifetimes of added members; zero leaves them unchecked.
	At time.Time
}

// A PendingCommit is a commit of this member that has not been applied.
type PendingCommit struct {
	*Staged
	Commit    []byte // MLSMessage
	Welcome   []byte // MLSMessage; nil if nobody is added
	GroupInfo []byte // MLSMessage with external_pub, without the tree; nil under NoGroupInfo
	Tree      []byte // ratchet tree of the next epoch, for joiners
}

// PrepareCommit makes a commit, RFC 9420, Section 12.4.1, and leaves the group
// as it is.
func (g *Group) PrepareCommit(p CommitParams) (*PendingCommit, error) { return nil, errUnbuilt }

// A Change is what a commit does to a group.
type Change struct {
	GroupID   []byte
	Epoch     uint64 // the epoch that the commit leads to
	Committer Member // after the commit
	External  bool   // the committer joins by this commit
	Added     []Member
	Removed   []Member   // as they were; an external committer's old leaf included
	Updated   []Member   // by Update proposals; the committer's path is not listed
	Proposals []Proposal // all, resolved, in order
	ReInit    *ReInit    // the group is closed by this commit
	SelfGone  bool       // this member is removed; the Group ends with this commit
	// AuthenticatedData came with the commit.
	AuthenticatedData []byte
	// Path says whether the committer's keys were renewed.
	Path bool
}

// A Staged commit has been checked and not applied.
type Staged struct {
	Change
	Delta Delta // from the present state to the next
}

// Group returns the group as it will be after the commit; nil if SelfGone.
// It is how an external joiner obtains its group.
func (s *Staged) Group() *Group { return nil }

// Apply moves the group to the state after a commit. The caller has persisted
// the Delta before.
func (g *Group) Apply(s *Staged) error { return errUnbuilt }

// IsResync says whether a commit is an external commit that replaces exactly
// the joiner's own old leaf and does nothing else. same decides whether two
// leaves are one device; nil compares signature keys.
func IsResync(c Change, same func(old, new Member) bool) bool { return false }

// JoinParams helps to read a Welcome.
type JoinParams struct {
	Tree []byte    // ratchet tree, if the Welcome does not hold it
	At   time.Time // checks lifetimes of all members' leaves; zero does not
}

// Join enters a group by a Welcome, RFC 9420, Section 12.4.3.1.
func Join(cfg Config, id Identity, welcome []byte, kp *KeyPackage, secrets *KeyPackageSecrets, p JoinParams) (*Group, error) {
	return nil, errUnbuilt
}

// ExternalParams describes an external commit.
type ExternalParams struct {
	Tree []byte // ratchet tree, if the GroupInfo does not hold it
	// Replace says which member is this device's own old leaf, to be removed
	// in the same commit; nil compares signature keys.
	Replace           func(old Member) bool
	Capabilities      *Capabilities
	LeafExtensions    []Extension
	PSKs              []PSKID
	AuthenticatedData []byte
	At                time.Time
}

// PrepareExternalCommit makes an external commit, RFC 9420, Section 12.4.3.2.
// The Group of the result is the joined group, once the commit is accepted.
func PrepareExternalCommit(cfg Config, id Identity, groupInfo []byte, p ExternalParams) (*PendingCommit, error) {
	return nil, errUnbuilt
}
