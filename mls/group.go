// SPDX-License-Identifier: Apache-2.0

package mls

import (
	"bytes"
	"fmt"
	"slices"
	"time"
)

// Config is what a Group needs from its surroundings. It is not part of the
// encoded state.
type Config struct {
	// Authenticator approves credentials. Required.
	Authenticator Authenticator
	// PSK returns the secret of an external pre-shared key, or of a resumption
	// key of another group; nil knows none.
	PSK func(id PSKID) ([]byte, error)
	// Pad returns the padded size of content of n bytes, signature included;
	// results below n count as n. Nil means PadToClasses.
	Pad func(n int) int
	// PastEpochs is how many epochs back content can still be read, after a
	// commit overtook it: 0 means 3, negative means none. Each one kept is one
	// in which a stolen state still reads skipped messages.
	PastEpochs int
}

func (c *Config) pastEpochs() int {
	if c.PastEpochs == 0 {
		return defaultPastEpochs
	}
	return min(max(c.PastEpochs, 0), maxPastEpochs)
}

// An epochState is one member's view of an epoch without its message keys. It
// is never changed once made.
type epochState struct {
	*publicState
	own     LeafIndex
	secrets *epochSecrets
	privs   map[nodeIndex]*privKey // own leaf and nodes above it
	closed  *ReInit                // the epoch follows a ReInit: nothing more is sent
}

// A Group is one member's view of a group. Its methods must not be called from
// two goroutines at once.
type Group struct {
	cfg Config
	id  Identity
	*epochState
	keys      *secretTree     // of the present epoch
	past      []*pastEpoch    // newest first
	proposals []sentProposal  // received in the present epoch
	updates   []pendingUpdate // own Update proposals of the present epoch
	counter   uint32          // numbers records of proposals and updates
	garbage   Delta           // leftovers to be deleted with the next change
	removed   bool
}

// A pendingUpdate is the private key of an own Update proposal.
type pendingUpdate struct {
	key  string // of its record
	priv *privKey
}

// A pastEpoch is what is kept of an epoch that is over: keys of late content,
// and the resumption secret.
type pastEpoch struct {
	epoch      uint64
	context    []byte
	senderData []byte
	keys       *secretTree
	leaves     map[LeafIndex]*LeafNode // those that the next epoch changed; nil was blank
	resumption []byte
	readable   bool // keys are kept
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
func Create(cfg Config, id Identity, p CreateParams) (*Group, error) {
	if p.Suite == 0 {
		p.Suite = DefaultSuite
	}
	s, err := p.Suite.params()
	if err != nil {
		return nil, err
	}
	if err := checkExtensions(p.Extensions); err != nil {
		return nil, err
	}
	if len(p.GroupID) == 0 {
		p.GroupID = random(32)
	}
	if p.Lifetime == (Lifetime{}) && !p.At.IsZero() {
		p.Lifetime = NewLifetime(p.At.Add(-24*time.Hour), p.At.Add(24*time.Hour))
	}
	priv, err := s.generateKey()
	if err != nil {
		return nil, err
	}
	leaf, err := newLeaf(s, id, priv.public(), p.Capabilities, p.LeafExtensions)
	if err != nil {
		return nil, err
	}
	leaf.Source, leaf.Lifetime = LeafKeyPackage, p.Lifetime
	if err := leaf.sign(s, id, nil, 0); err != nil {
		return nil, err
	}
	t := &tree{suite: s}
	t.add(leaf)
	ctx := groupContext{suite: p.Suite, groupID: bytes.Clone(p.GroupID), treeHash: t.rootHash(), extensions: p.Extensions}
	secrets, encryption := s.epochFrom(random(s.nh()))
	ps, err := newPublicState(s, ctx, t, secrets.confirmationTag(s, nil))
	if err != nil {
		return nil, err
	}
	if err := t.check(&ctx, cfg.Authenticator, p.At); err != nil {
		return nil, err
	}
	ep := &epochState{publicState: ps, secrets: secrets, privs: map[nodeIndex]*privKey{0: priv}}
	return &Group{cfg: cfg, id: id, epochState: ep, keys: newSecretTree(s, 0, t.width(), encryption)}, nil
}

// ID returns the group's identifier.
func (g *Group) ID() []byte { return bytes.Clone(g.ctx.groupID) }

// Epoch returns the present epoch.
func (g *Group) Epoch() uint64 { return g.ctx.epoch }

// Suite returns the cipher suite.
func (g *Group) Suite() Suite { return g.suite.id }

// OwnLeaf returns this member's leaf index.
func (g *Group) OwnLeaf() LeafIndex { return g.own }

// Members lists the members by leaf index.
func (g *Group) Members() []Member { return g.tree.members() }

// Member returns the member at a leaf.
func (g *Group) Member(leaf LeafIndex) (Member, bool) {
	if l := g.tree.leaf(leaf); l != nil {
		return l.member(leaf), true
	}
	return Member{}, false
}

// Extensions returns the group context's extensions.
func (g *Group) Extensions() []Extension { return slices.Clone(g.ctx.extensions) }

// Tree returns the encoded ratchet tree, for joiners, RFC 9420, Section 12.4.3.3.
func (g *Group) Tree() []byte { return g.tree.append(nil) }

// Closed returns the ReInit that closed the group, or nil.
func (g *Group) Closed() *ReInit { return g.closed }

// GroupInfo signs a GroupInfo of the present epoch with external_pub and
// without the ratchet tree, as an MLSMessage.
func (g *Group) GroupInfo() ([]byte, error) {
	info, err := g.groupInfo(g.id, false)
	if err != nil {
		return nil, err
	}
	return info.message(), nil
}

// groupInfo makes and signs a GroupInfo with external_pub, RFC 9420, Section
// 12.4.3.
func (e *epochState) groupInfo(id Identity, withTree bool) (*groupInfo, error) {
	info := &groupInfo{context: e.ctx, confirmationTag: e.confirmationTag, signer: e.own}
	pub, err := e.secrets.externalPub(e.suite)
	if err != nil {
		return nil, err
	}
	info.extensions = append(info.extensions, Extension{ExtensionExternalPub, appendOpaque(nil, pub)})
	if withTree {
		info.extensions = append(info.extensions, Extension{ExtensionRatchetTree, e.tree.append(nil)})
	}
	info.signature, err = e.suite.signWithLabel(id.Signer, "GroupInfoTBS", info.appendBody(nil))
	return info, err
}

// Export derives a secret for the application, RFC 9420, Section 8.5.
func (g *Group) Export(label string, context []byte, n int) ([]byte, error) {
	if n < 1 || n > 255*g.suite.nh() {
		return nil, fmt.Errorf("mls: exported secret of %d bytes; 1 to %d are possible", n, 255*g.suite.nh())
	}
	return g.secrets.export(g.suite, label, context, n), nil
}

// EpochAuthenticator lets members compare that they share an epoch, RFC 9420,
// Section 8.7.
func (g *Group) EpochAuthenticator() []byte { return bytes.Clone(g.secrets.authenticator) }

// psk looks up a pre-shared key: resumption keys of this group itself, all
// others with the caller.
func (g *Group) psk(id PSKID) ([]byte, error) {
	if id.Type != PSKResumption || !bytes.Equal(id.GroupID, g.ctx.groupID) {
		return g.cfg.psk(id)
	}
	if id.Epoch == g.ctx.epoch && g.secrets != nil {
		return g.secrets.resumption, nil
	}
	for _, p := range g.past {
		if p.epoch == id.Epoch {
			return p.resumption, nil
		}
	}
	return nil, nil
}

// usable says whether anything can still be sent.
func (g *Group) usable() error {
	if g.removed {
		return ErrRemoved
	}
	if g.closed != nil {
		return ErrReInit
	}
	return nil
}
