// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"bytes"
	"fmt"
	"time"

	"valise/mls"
)

// A goMember is a device on package mls.
type goMember struct {
	device
	group   *mls.Group
	kp      *mls.KeyPackage
	secrets *mls.KeyPackageSecrets
}

func (m *goMember) config() mls.Config {
	return mls.Config{Authenticator: m.root, PSK: func(id mls.PSKID) ([]byte, error) { return m.psks[string(id.ID)], nil }}
}

func (m *goMember) identity() mls.Identity {
	return mls.Identity{Credential: m.cred, Signer: m.signer}
}

func (m *goMember) keyPackage() []byte {
	m.t.Helper()
	now := time.Now()
	kp, secrets, err := mls.NewKeyPackage(m.identity(), mls.KeyPackageParams{
		Suite: m.suite, Lifetime: mls.NewLifetime(now.Add(-time.Hour), now.Add(time.Hour)),
	})
	ok(m.t, err)
	m.kp, m.secrets = kp, secrets
	return kp.Message()
}

func (m *goMember) found(group []byte) {
	m.t.Helper()
	g, err := mls.Create(m.config(), m.identity(), mls.CreateParams{
		Suite: m.suite, GroupID: group, At: time.Now(),
		Extensions: []mls.Extension{mls.RequiredCapabilities{Credentials: []mls.CredentialType{m.cred.Type}}.Extension()},
	})
	ok(m.t, err)
	m.group = g
}

func (m *goMember) join(welcome, tree []byte) error {
	g, err := mls.Join(m.config(), m.identity(), welcome, m.kp, m.secrets, mls.JoinParams{Tree: tree, At: time.Now()})
	if err == nil {
		m.group = g
	}
	return err
}

func (m *goMember) info(bool) (info, tree []byte) {
	m.t.Helper()
	info, err := m.group.GroupInfo()
	ok(m.t, err)
	return info, m.group.Tree()
}

func (m *goMember) external(info, tree []byte, resync bool) ([]byte, error) {
	m.t.Helper()
	p, err := mls.PrepareExternalCommit(m.config(), m.identity(), info, mls.ExternalParams{
		Tree: tree, At: time.Now(), AuthenticatedData: []byte("from outside"),
	})
	if err != nil {
		return nil, err
	}
	if got := mls.IsResync(p.Change, nil); got != resync {
		m.t.Fatalf("external commit of %s: resync %v, want %v", m.name, got, resync)
	}
	m.group = p.Group()
	return p.Commit, nil
}

func (m *goMember) proposals(c change) (list []mls.Proposal, err error) {
	for _, data := range c.add {
		kp, err := mls.ParseKeyPackage(data)
		if err != nil {
			return nil, err
		}
		list = append(list, mls.AddProposal(kp))
	}
	for _, leaf := range c.remove {
		list = append(list, mls.RemoveProposal(mls.LeafIndex(leaf)))
	}
	for _, id := range c.psk {
		list = append(list, mls.PSKProposal(mls.PSKID{Type: mls.PSKExternal, ID: id}))
	}
	return list, nil
}

func (m *goMember) commit(c change) (committed, error) {
	list, err := m.proposals(c)
	if err != nil {
		return committed{}, err
	}
	p, err := m.group.PrepareCommit(mls.CommitParams{
		Proposals: list, Private: c.private, TreeInWelcome: c.tree, AuthenticatedData: c.data, At: time.Now(),
	})
	if err != nil {
		return committed{}, err
	}
	return committed{p.Commit, p.Welcome, p.Tree}, m.group.Apply(p.Staged)
}

// propose proposes an Update where the change asks for nothing.
func (m *goMember) propose(c change) []byte {
	m.t.Helper()
	list, err := m.proposals(c)
	ok(m.t, err)
	var s *mls.Sealed
	if len(list) > 0 {
		s, err = m.group.Propose(list[0], nil)
	} else {
		s, err = m.group.ProposeUpdate(nil)
	}
	ok(m.t, err)
	return s.Message
}

func (m *goMember) encrypt(text, data []byte) []byte {
	m.t.Helper()
	s, err := m.group.Encrypt(text, data)
	ok(m.t, err)
	return s.Message
}

func (m *goMember) receive(message []byte) (received, error) {
	r, err := m.group.Receive(message, time.Now())
	if err != nil {
		return received{}, err
	}
	if r.Kind != mls.ContentCommit {
		return received{r.Kind, r.Plaintext}, nil
	}
	if r.Commit.SelfGone {
		m.group = nil
		return received{kind: r.Kind}, nil
	}
	return received{kind: r.Kind}, m.group.Apply(r.Commit)
}

func (m *goMember) status() status {
	m.t.Helper()
	if m.group == nil {
		return status{}
	}
	exported, err := m.group.Export(exportLabel, exportContext, 32)
	ok(m.t, err)
	var keys [][]byte
	for _, other := range m.group.Members() {
		keys = append(keys, other.SignatureKey)
	}
	return status{
		epoch: m.group.Epoch(), authenticator: fmt.Sprintf("%x", m.group.EpochAuthenticator()),
		exported: fmt.Sprintf("%x", exported), keys: keyList(keys),
		leaf: uint32(m.group.OwnLeaf()), active: true,
	}
}

func keyList(keys [][]byte) string {
	return fmt.Sprintf("%d: %x", len(keys), bytes.Join(keys, []byte{}))
}
