// SPDX-License-Identifier: Apache-2.0

package mls

import (
	"errors"
	"time"
)

var errUnbuilt = errors.New("mls: being built")

// Config is what a Group needs from its surroundings. It is not part of the
// encoded state.
type Config struct {
	// Authenticator approves credentials. Required.
	Authenticator Authenticator
	// PSK returns the secret of an external pre-shared key, or of a resumption
	// key of another group; nil knows none.
	PSK func(id PSKID) ([]byte, error)
	// Pad returns the padded size of a plaintext of n bytes; results below n
	// count as n. Nil means PadToClasses.
	Pad func(n int) int
	// PastEpochs is how many epochs back content can still be read, after a
	// commit overtook it: 0 means 3, negative means none. Each one kept is one
	// in which a stolen state still reads skipped messages.
	PastEpochs int
}

// CreateParams describes a new group.
type CreateParams struct {
	Suite          Suite  // 0 means DefaultSuite
	GroupID        []byte // empty means 32 random bytes
	Extensions     []Extension
	Lifetime       Lifetime // of the founder's leaf; zero value means one day around At
	Capabilities   *Capabilities
	LeafExtensions []Extension
	At             time.Time
}

// Create founds a group of one member, RFC 9420, Section 11. It signs once.
func Create(cfg Config, id Identity, p CreateParams) (*Group, error) { return nil, errUnbuilt }

// A Group is one member's view of a group. Its methods must not be called from
// two goroutines at once.
type Group struct{}

// ID returns the group's identifier.
func (g *Group) ID() []byte { return nil }

// Epoch returns the present epoch.
func (g *Group) Epoch() uint64 { return 0 }

// Suite returns the cipher suite.
func (g *Group) Suite() Suite { return 0 }

// OwnLeaf returns this member's leaf index.
func (g *Group) OwnLeaf() LeafIndex { return 0 }

// Members lists the members by leaf index.
func (g *Group) Members() []Member { return nil }

// Member returns the member at a leaf.
func (g *Group) Member(leaf LeafIndex) (Member, bool) { return Member{}, false }

// Extensions returns the group context's extensions.
func (g *Group) Extensions() []Extension { return nil }

// Tree returns the encoded ratchet tree, for joiners, RFC 9420, Section 12.4.3.3.
func (g *Group) Tree() []byte { return nil }

// GroupInfo signs a GroupInfo of the present epoch with external_pub and
// without the ratchet tree, as an MLSMessage.
func (g *Group) GroupInfo() ([]byte, error) { return nil, errUnbuilt }

// Export derives a secret for the application, RFC 9420, Section 8.5.
func (g *Group) Export(label string, context []byte, n int) ([]byte, error) { return nil, errUnbuilt }

// EpochAuthenticator lets members compare that they share an epoch, RFC 9420,
// Section 8.7.
func (g *Group) EpochAuthenticator() []byte { return nil }

// State returns all records of the group.
func (g *Group) State() Delta { return nil }

// Load restores a Group from all of its records. The identity must be the one
// that is in the group.
func Load(cfg Config, id Identity, records Delta) (*Group, error) { return nil, errUnbuilt }
