// SPDX-License-Identifier: Apache-2.0

package mls

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"
)

// RFC 9420, Section 9.2: state written after a decryption cannot decrypt the
// message again; the state before it can, which shows that the test can fail.
func TestStateAfterDecryptionCannotDecryptAgain(t *testing.T) {
	all := group(t, quick, 2)
	a, b := all[0], all[1]
	before := b.disk.Merge(nil)
	m := a.encrypt("secret")
	b.reads(m, "secret")
	after := b.disk
	b.restart()
	b.refuses(m, ErrUsedKey)
	second := a.encrypt("second")
	b.reads(second, "second")
	b.restart()
	b.refuses(second, ErrUsedKey)
	b.refuses(m, ErrUsedKey)
	b.disk = before
	b.restart()
	b.reads(m, "secret")
	b.reads(second, "second")
	// No record holds what would derive the key again.
	u, err := func() (*use, error) {
		g, err := Load(b.cfg, b.id, before)
		must(t, err)
		return g.keys.take(ratchetFor(0, ContentApplication), 0)
	}()
	must(t, err)
	for _, r := range after {
		if bytes.Contains(r.Value, u.key) || strings.HasPrefix(r.Key, "m/1/s/1") {
			t.Fatalf("record %s still holds the key, or what it derives from", r.Key)
		}
	}
}

// The sender's own state does not decrypt what it sent.
func TestSenderForgetsItsKeys(t *testing.T) {
	a := group(t, quick, 2)[0]
	m := a.encrypt("x")
	a.restart()
	a.refuses(m, ErrOwnMessage)
	if _, err := a.g.keys.take(ratchetFor(0, ContentApplication), 0); !errors.Is(err, ErrUsedKey) {
		t.Fatalf("own key is still there: %v", err)
	}
}

// RFC 9420, Section 12.1.3: a removed member cannot read the next epoch, not
// even by processing the commit on its old state; the others can.
func TestRemovedMemberCannotReadNextEpoch(t *testing.T) {
	all := group(t, quick, 4)
	a, b, c := all[0], all[1], all[2]
	// Full paths first, so that c holds keys of many nodes.
	for _, from := range all {
		p := from.commit(CommitParams{})
		for _, to := range all {
			if to != from {
				to.receive(p.Commit)
			}
		}
	}
	old := c.disk.Merge(nil)
	p := a.commit(CommitParams{Proposals: []Proposal{RemoveProposal(c.g.OwnLeaf())}})
	b.receive(p.Commit)
	m := a.encrypt("without c")
	b.reads(m, "without c")
	g, err := Load(c.cfg, c.id, old)
	must(t, err)
	if _, err := g.Receive(m, now); !errors.Is(err, ErrFutureEpoch) {
		t.Fatalf("old state reads the next epoch: %v", err)
	}
	// c ignores that it is removed and tries every key it has on the path.
	msg, err := parseMessage(p.Commit)
	must(t, err)
	st, err := g.stageCommit(&msg.public.authContent, nil, &commitFrame{auth: trustAll{}})
	must(t, err)
	opened := 0
	for i, n := range msg.public.content.commit.path.nodes {
		for _, ct := range n.secrets {
			for _, k := range g.privs {
				if _, err := g.suite.decryptWithLabel(k.key, "UpdatePathNode", st.context.marshal(), ct); err == nil {
					opened++
					t.Errorf("removed member opens a secret of path node %d", i)
				}
			}
		}
	}
}

// A state that was copied before its owner committed is useless afterwards.
func TestCopiedStateIsUselessAfterCommit(t *testing.T) {
	all := group(t, quick, 3)
	a, b, c := all[0], all[1], all[2]
	stolen := b.disk.Merge(nil)
	p := b.commit(CommitParams{})
	a.receive(p.Commit)
	c.receive(p.Commit)
	thief, err := Load(b.cfg, b.id, stolen)
	must(t, err)
	m := a.encrypt("healed")
	b.reads(m, "healed")
	if _, err := thief.Receive(m, now); !errors.Is(err, ErrFutureEpoch) {
		t.Fatalf("stolen state: %v", err)
	}
	if _, err := thief.Receive(p.Commit, now); !errors.Is(err, ErrOwnMessage) {
		t.Fatalf("stolen state follows: %v", err)
	}
	msg, err := parseMessage(p.Commit)
	must(t, err)
	st, err := thief.stageCommit(&msg.public.authContent, nil, &commitFrame{auth: trustAll{}})
	must(t, err)
	for _, n := range msg.public.content.commit.path.nodes {
		for _, ct := range n.secrets {
			for _, k := range thief.privs {
				if _, err := thief.suite.decryptWithLabel(k.key, "UpdatePathNode", st.context.marshal(), ct); err == nil {
					t.Fatal("stolen state opens a path secret of its owner's commit")
				}
			}
		}
	}
}

// A failed open consumes nothing: the right message still opens.
func TestFailedOpenConsumesNothing(t *testing.T) {
	all := group(t, quick, 2)
	a, b := all[0], all[1]
	m := a.encrypt("right")
	for _, at := range []int{len(m) - 1, len(m) - 20, len(m) / 2} {
		bad := bytes.Clone(m)
		bad[at] ^= 1
		b.refuses(bad, ErrDecrypt)
	}
	b.reads(m, "right")
}

// RFC 9420, Section 6.1: a member cannot speak for another, though all share
// the message keys.
func TestMemberCannotSpeakForAnother(t *testing.T) {
	all := group(t, quick, 3)
	a, b, c := all[0], all[1], all[2]
	forge := func(as LeafIndex) []byte {
		ac := &authContent{wire: WirePrivateMessage, content: a.g.frame([]byte("header"), body{typ: ContentApplication, application: []byte("x")})}
		ac.content.sender.index = uint32(as)
		must(t, ac.sign(a.g.suite, a.id, a.g.context)) // with a's own key
		u, err := a.g.keys.take(ratchetFor(as, ContentApplication), 0)
		must(t, err)
		return protectPrivate(a.g.suite, ac, a.g.secrets.senderData, u, 0)
	}
	b.refuses(forge(c.g.OwnLeaf()), ErrSignature)
	b.reads(forge(a.g.OwnLeaf()), "x") // the honest control
}

// RFC 9420, Section 15.3: messages in any order, each once, gaps within bounds.
func TestOutOfOrder(t *testing.T) {
	all := group(t, quick, 2)
	a, b := all[0], all[1]
	var ms [][]byte
	for range 8 {
		ms = append(ms, a.encrypt("m"))
	}
	for _, i := range []int{3, 0, 7, 5, 1} {
		b.reads(ms[i], "m")
		b.restart()
	}
	for _, i := range []int{3, 0, 7, 5, 1} {
		b.refuses(ms[i], ErrUsedKey)
	}
	b.reads(ms[2], "m")
}

// RFC 9420, Section 15.3: skipping is bounded, and so is what is kept.
func TestSkipBound(t *testing.T) {
	s, _ := quick.params()
	id := ratchetFor(0, ContentApplication)
	fresh := func() *secretTree { return newSecretTree(s, 0, 1, random(s.nh())) }
	if _, err := fresh().take(id, maxSkip); err != nil {
		t.Fatalf("at the bound: %v", err)
	}
	for _, g := range []uint32{maxSkip + 1, math.MaxUint32} {
		if _, err := fresh().take(id, g); !errors.Is(err, ErrTooFarAhead) {
			t.Fatalf("generation %d: %v", g, err)
		}
	}
	tr := fresh()
	u, err := tr.take(id, maxSkip)
	must(t, err)
	u.consume()
	if n := len(tr.ratchets[id].kept); n != maxKept {
		t.Fatalf("%d keys are kept", n)
	}
	if _, err := tr.take(id, 0); !errors.Is(err, ErrUsedKey) {
		t.Fatalf("the oldest key was kept: %v", err)
	}
	if _, err := tr.take(id, maxSkip-1); err != nil {
		t.Fatalf("the youngest skipped key is gone: %v", err)
	}
}

// RFC 9420, Section 9.1: the last generation is used once and the ratchet ends.
func TestLastGeneration(t *testing.T) {
	s, _ := quick.params()
	id := ratchetFor(0, ContentApplication)
	tr := newSecretTree(s, 0, 1, random(s.nh()))
	tr.ratchets[id] = &ratchet{secret: random(s.nh()), next: math.MaxUint32}
	u, err := tr.takeNext(id)
	must(t, err)
	u.consume()
	for _, g := range []uint32{0, math.MaxUint32} {
		if _, err := tr.take(id, g); !errors.Is(err, ErrUsedKey) {
			t.Fatalf("generation %d after the last: %v", g, err)
		}
	}
}

// Each message of a sender has a key of its own, also across restarts.
func TestKeysNeverRepeat(t *testing.T) {
	all := group(t, quick, 2)
	a, b := all[0], all[1]
	seen := map[uint32]bool{}
	for i := range 10 {
		if i == 5 {
			a.restart()
		}
		m, err := parseMessage(a.encrypt("x"))
		must(t, err)
		d, err := m.private.openSenderData(b.g.suite, b.g.secrets.senderData)
		must(t, err)
		if seen[d.generation] {
			t.Fatalf("generation %d is used twice", d.generation)
		}
		seen[d.generation] = true
	}
}

// RFC 9420, Section 6.3.1: padding must be zero.
func TestPaddingMustBeZero(t *testing.T) {
	all := group(t, quick, 2)
	a, b := all[0], all[1]
	craft := func(last byte) []byte {
		ac := &authContent{wire: WirePrivateMessage, content: a.g.frame([]byte("header"), body{typ: ContentApplication, application: []byte("x")})}
		must(t, ac.sign(a.g.suite, a.id, a.g.context))
		u, err := a.g.keys.takeNext(ratchetFor(0, ContentApplication))
		must(t, err)
		m := &privateMessage{groupID: ac.content.groupID, epoch: ac.content.epoch, typ: ContentApplication, authData: ac.content.authData}
		plain := append(ac.appendAuth(ac.content.appendBody(nil)), 0, 0, last)
		m.ciphertext = a.g.suite.gcm(u.key).Seal(nil, u.nonce, plain, m.contentAAD(nil))
		k := a.g.suite.senderDataKey(a.g.secrets.senderData, m.ciphertext)
		data := append(appendU32(appendU32(nil, 0), u.generation), 0, 0, 0, 0)
		m.senderData = a.g.suite.gcm(k.key).Seal(nil, k.nonce, data, m.senderAAD(nil))
		return (&mlsMessage{wire: WirePrivateMessage, private: m}).marshal()
	}
	b.refuses(craft(1), ErrMalformed)
	b.reads(craft(0), "x")
}
