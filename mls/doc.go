// SPDX-License-Identifier: Apache-2.0

// Package mls implements the Messaging Layer Security protocol, RFC 9420, as a
// pure state machine: no network, no storage, no clock, and no goroutine that
// outlives the call that started it.
//
// # Who holds what
//
// An [Identity] is what a device brings into every group: its credential and a
// [crypto.Signer], which may be a smartcard. A [KeyPackage] lets others add the
// device while it is offline; its secrets are used once, in [Join]. A [Group]
// is one member's view with secrets. A [PublicGroup] is what a relay can know:
// it follows commits, checks signatures and lists members, and holds no secret.
//
// # First calls
//
// The founder:
//
//	g, err := mls.Create(cfg, alice, mls.CreateParams{GroupID: id, At: now})
//	save(g.State())                        // before anything is sent
//	info, err := g.GroupInfo()             // for the relay, with g.Tree()
//
// Adding a device. Nothing about g changes before Apply:
//
//	p, err := g.PrepareCommit(mls.CommitParams{
//		Proposals: []mls.Proposal{mls.AddProposal(bobKeyPackage)}, At: now})
//	save(p.Spent); save(pending, p.Commit, p.Delta) // then offer p.Commit, p.Welcome, p.GroupInfo to the relay
//	… the relay accepts it as the commit of this epoch:
//	save(p.Delta); g.Apply(p.Staged)       // or: it lost the race: forget p
//
// The device that was added:
//
//	h, err := mls.Join(cfg, bob, welcome, kp, secrets, mls.JoinParams{Tree: tree, At: now}) // tree: p.Tree, by way of the relay
//	save(h.State()); delete(secrets)       // a last-resort package's secrets stay
//
// Content:
//
//	s, err := g.Encrypt(plaintext, header) // header is authenticated, not secret
//	save(s.Delta, s.Message)               // then send s.Message, always these bytes
//
//	r, err := h.Receive(message, accepted) // when the relay accepted it
//	switch r.Kind {
//	case mls.ContentApplication: save(r.Delta, r.Plaintext) // then acknowledge
//	case mls.ContentProposal:    save(r.Delta)
//	case mls.ContentCommit:      inspect(r.Commit.Change); save(r.Commit.Delta); h.Apply(r.Commit)
//	}
//
// A device that lost its state, or missed a commit, replaces its own old leaf:
//
//	p, err := mls.PrepareExternalCommit(cfg, bob, groupInfo, mls.ExternalParams{Tree: tree, At: now})
//	… accepted: delete all records of the old group, save(p.Delta); h := p.Group()
//
// The relay:
//
//	pg, err := mls.NewPublicGroup(auth, groupInfo, tree, now)
//	st, err := pg.Check(commit, now)       // who commits, who is added and removed
//	if st.External && !mls.IsResync(st.Change, sameDevice) { refuse }
//	err = st.CheckGroupInfo(groupInfo)     // the one to hand to the next joiner
//	save(st.Delta); pg.Apply(st)
//	info, err := mls.ParseMessageInfo(m)   // group, epoch and header of a PrivateMessage
//
// A group that continues under other parameters (ReInit), or as a subgroup, is
// founded by Create and a first commit that holds a PSKProposal of
// [Group.Link], with CommitParams.Previous; its members Join with
// JoinParams.Previous.
//
// # What the caller persists, and when
//
// State is a set of small records, each under a key ([Record]). [Group.State]
// returns all of them; every change returns a [Delta], the records that differ:
// write those with a value, delete those without one. A message touches a
// handful of records however many members there are, and a commit those of the
// nodes it changed. [Load] takes all records back. Keep a group's records in
// one table keyed by (group, key); write a Delta in one transaction with what
// it belongs to (ciphertext, plaintext, cursor) before that is sent, shown or
// acknowledged.
//
// [Group.Encrypt] and [Group.Receive] of content and proposals step the Group
// in memory at once, so that no key is ever used twice. If writing their Delta
// fails, drop the *Group and Load it again from what is on disk. Commits change
// nothing until Apply; a pending commit survives a restart if its Delta and
// bytes were stored: once the relay confirms it, write the Delta and Load.
//
// # Time
//
// There is no clock here. Where a time is passed, lifetimes are checked at it;
// for a received message that is when the relay accepted it, because a device
// may read a commit weeks after the KeyPackages in it have expired.
//
// # Cores
//
// Calls that check or seal for many members (joins, commits, added
// KeyPackages) spread signatures and HPKE over as many goroutines as
// GOMAXPROCS allows, and return when all have ended. Results do not depend on
// that: of several faults, the first in the order of members is reported. The
// caller's own code (Authenticator, Signer, PSK) is called from the calling
// goroutine alone, one call at a time.
//
// The table in SECTIONS.md says where each section of the RFC is and what tests
// it.
//
// # Never
//
// Never restore an older state: it would encrypt under used keys. Never send a
// message whose Delta is not on disk. Never call a Group from two goroutines at
// once. Never take a member's name from anywhere but its [Credential] after the
// [Authenticator] has approved it.
package mls
