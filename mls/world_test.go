// SPDX-License-Identifier: Apache-2.0

package mls

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"testing"
	"time"
)

// now is the time of all tests.
var now = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// quick is the suite of tests that are not about suites.
const quick = SuiteP256

// A countingSigner is a software key that counts its signatures.
type countingSigner struct {
	crypto.Signer
	n int
}

func (c *countingSigner) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	c.n++
	return c.Signer.Sign(r, digest, opts)
}

// A device of the tests: an identity, and a disk that holds what it persisted.
type device struct {
	t    testing.TB
	id   Identity
	sign *countingSigner
	cfg  Config
	g    *Group
	disk Delta
}

func newDevice(t testing.TB, suite Suite, name string) *device {
	t.Helper()
	s, err := suite.params()
	must(t, err)
	var key crypto.Signer
	if s.curve == nil {
		_, key, err = ed25519.GenerateKey(rand.Reader)
	} else {
		key, err = ecdsa.GenerateKey(s.curve, rand.Reader)
	}
	must(t, err)
	c := &countingSigner{Signer: key}
	return &device{t: t, id: Identity{BasicCredential([]byte(name)), c}, sign: c, cfg: Config{Authenticator: trustAll{}}}
}

func (d *device) create(suite Suite) *device {
	d.t.Helper()
	g, err := Create(d.cfg, d.id, CreateParams{Suite: suite, At: now})
	must(d.t, err)
	d.g, d.disk = g, g.State()
	return d
}

func (d *device) keyPackage(suite Suite) (*KeyPackage, *KeyPackageSecrets) {
	d.t.Helper()
	kp, ks, err := NewKeyPackage(d.id, KeyPackageParams{Suite: suite, Lifetime: NewLifetime(now.Add(-time.Hour), now.Add(time.Hour))})
	must(d.t, err)
	return kp, ks
}

func (d *device) save(delta Delta) { d.disk = delta.Merge(d.disk) }

// commit prepares, persists and applies.
func (d *device) commit(p CommitParams) *PendingCommit {
	d.t.Helper()
	p.At = now
	c, err := d.g.PrepareCommit(p)
	must(d.t, err)
	d.save(c.Spent)
	d.save(c.Delta)
	must(d.t, d.g.Apply(c.Staged))
	return c
}

func (d *device) receive(message []byte) *Received {
	d.t.Helper()
	r, err := d.g.Receive(message, now)
	must(d.t, err)
	if r.Kind == ContentCommit {
		d.save(r.Commit.Delta)
		must(d.t, d.g.Apply(r.Commit))
	} else {
		d.save(r.Delta)
	}
	return r
}

func (d *device) refuses(message []byte, want error) {
	d.t.Helper()
	before := string(d.g.State().Marshal())
	if r, err := d.g.Receive(message, now); !errors.Is(err, want) {
		d.t.Fatalf("got %+v, %v, want %v", r, err, want)
	}
	if string(d.g.State().Marshal()) != before {
		d.t.Fatal("a refused message changed the state")
	}
}

func (d *device) encrypt(text string) []byte {
	d.t.Helper()
	s, err := d.g.Encrypt([]byte(text), []byte("header"))
	must(d.t, err)
	d.save(s.Delta)
	return s.Message
}

func (d *device) reads(message []byte, text string) *Received {
	d.t.Helper()
	r := d.receive(message)
	if string(r.Plaintext) != text || string(r.AuthenticatedData) != "header" {
		d.t.Fatalf("got %q under %q, want %q", r.Plaintext, r.AuthenticatedData, text)
	}
	return r
}

// restart loads the group from the disk.
func (d *device) restart() {
	d.t.Helper()
	g, err := Load(d.cfg, d.id, d.disk)
	must(d.t, err)
	d.g = g
}

func (d *device) join(welcome []byte, kp *KeyPackage, ks *KeyPackageSecrets, tree []byte) {
	d.t.Helper()
	g, err := Join(d.cfg, d.id, welcome, kp, ks, JoinParams{Tree: tree, At: now})
	must(d.t, err)
	d.g, d.disk = g, g.State()
}

// group makes a group of n devices, added in one commit and then given full
// paths; the first is the founder.
func group(t testing.TB, suite Suite, n int) []*device {
	t.Helper()
	var all []*device
	for i := range n {
		all = append(all, newDevice(t, suite, string(rune('a'+i%26))))
	}
	all[0].create(suite)
	var adds []Proposal
	var kps []*KeyPackage
	var kss []*KeyPackageSecrets
	for _, d := range all[1:] {
		kp, ks := d.keyPackage(suite)
		kps, kss, adds = append(kps, kp), append(kss, ks), append(adds, AddProposal(kp))
	}
	if n == 1 {
		return all
	}
	p := all[0].commit(CommitParams{Proposals: adds})
	for i, d := range all[1:] {
		d.join(p.Welcome, kps[i], kss[i], p.Tree)
	}
	return all
}

// agree fails unless all devices share the epoch's secrets.
func agree(t testing.TB, all ...*device) {
	t.Helper()
	for _, d := range all[1:] {
		equalT(t, all[0].g.EpochAuthenticator(), d.g.EpochAuthenticator())
		equalT(t, all[0].g.Tree(), d.g.Tree())
	}
}

func equalT(t testing.TB, a, b []byte) {
	t.Helper()
	if string(a) != string(b) {
		t.Fatal("devices do not agree")
	}
}

// observer follows a group from outside.
func observer(t testing.TB, d *device) *PublicGroup {
	t.Helper()
	info, err := d.g.GroupInfo()
	must(t, err)
	p, err := NewPublicGroup(trustAll{}, info, d.g.Tree(), now)
	must(t, err)
	return p
}

// follow checks, persists and applies a commit, and then reads the state back.
func follow(t testing.TB, p *PublicGroup, commit []byte) (*PublicGroup, Change) {
	t.Helper()
	disk := p.State()
	s, err := p.Check(commit, now)
	must(t, err)
	disk = s.Delta.Merge(disk)
	must(t, p.Apply(s))
	again, err := LoadPublicGroup(trustAll{}, disk)
	must(t, err)
	equalT(t, p.State().Marshal(), again.State().Marshal())
	return again, s.Change
}
