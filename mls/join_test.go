// SPDX-License-Identifier: Apache-2.0

package mls

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"testing"
	"time"
)

// certificate makes a self-signed chain for a device's key, or for another.
func certificate(t *testing.T, d *device, other bool) Credential {
	t.Helper()
	tpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}, NotAfter: now.Add(time.Hour)}
	pub := d.id.Signer.Public()
	if other {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		must(t, err)
		pub = k.Public()
	}
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, pub, d.sign.Signer)
	must(t, err)
	return X509Credential([][]byte{der})
}

// RFC 9420, Section 5.3: the certificate's key is the leaf's.
func TestX509Credential(t *testing.T) {
	a, b := newDevice(t, quick, "a"), newDevice(t, quick, "b")
	a.create(quick)
	b.id.Credential = certificate(t, b, false)
	kp, ks := b.keyPackage(quick)
	must(t, kp.Verify(trustAll{}, now))
	p := a.commit(CommitParams{Proposals: []Proposal{AddProposal(kp)}})
	b.join(p.Welcome, kp, ks, p.Tree)
	b.reads(a.encrypt("x"), "x")
	for name, c := range map[string]Credential{
		"another key": certificate(t, b, true), "no certificate": X509Credential(nil), "garbage": X509Credential([][]byte{{1}}),
	} {
		b.id.Credential = c
		kp, _, err := NewKeyPackage(b.id, KeyPackageParams{Suite: quick, Lifetime: NewLifetime(now, now.Add(time.Hour))})
		must(t, err)
		if err := kp.Verify(trustAll{}, now); !errors.Is(err, ErrCredential) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The caller's Authenticator decides, at every door.
func TestAuthenticatorIsAsked(t *testing.T) {
	all := group(t, quick, 2)
	a, b := all[0], all[1]
	kp, _ := newDevice(t, quick, "mallory").keyPackage(quick)
	p, err := a.g.PrepareCommit(CommitParams{Proposals: []Proposal{AddProposal(kp)}, At: now})
	must(t, err)
	b.cfg.Authenticator = picky("mallory")
	b.restart()
	b.refuses(p.Commit, ErrCredential)
	a.cfg.Authenticator = picky("mallory")
	a.restart()
	if _, err := a.g.PrepareCommit(CommitParams{Proposals: []Proposal{AddProposal(kp)}}); !errors.Is(err, ErrCredential) {
		t.Errorf("committer adds: %v", err)
	}
	c := BasicCredential([]byte("mallory"))
	if _, err := a.g.PrepareCommit(CommitParams{Credential: &c}); !errors.Is(err, ErrCredential) {
		t.Errorf("committer renames itself: %v", err)
	}
	d := newDevice(t, quick, "d")
	kp, ks := d.keyPackage(quick)
	p = a.commit(CommitParams{Proposals: []Proposal{AddProposal(kp)}})
	_, err = Join(Config{Authenticator: picky("a")}, d.id, p.Welcome, kp, ks, JoinParams{Tree: p.Tree, At: now})
	if !errors.Is(err, ErrCredential) {
		t.Errorf("joiner: %v", err)
	}
	d.join(p.Welcome, kp, ks, p.Tree)
	if err := kp.Verify(nil, now); !errors.Is(err, ErrCredential) {
		t.Errorf("no Authenticator: %v", err)
	}
}

// RFC 9420, Section 10.1: what makes a KeyPackage invalid.
func TestKeyPackageRules(t *testing.T) {
	d := newDevice(t, quick, "d")
	s := mustSuite(quick)
	sign := func(kp *KeyPackage) {
		var err error
		kp.Signature, err = s.signWithLabel(d.id.Signer, "KeyPackageTBS", kp.appendBody(nil))
		must(t, err)
	}
	resign := func(kp *KeyPackage) { must(t, kp.Leaf.sign(s, d.id, nil, 0)); sign(kp) }
	for _, r := range []struct {
		name   string
		want   error
		change func(*KeyPackage)
	}{
		{"control", nil, resign},
		{"signature", ErrSignature, func(kp *KeyPackage) { kp.Signature[10] ^= 1 }},
		{"leaf signature", ErrSignature, func(kp *KeyPackage) { kp.Leaf.Signature[10] ^= 1; sign(kp) }},
		{"init key is the leaf's", ErrInvalidLeaf, func(kp *KeyPackage) { kp.InitKey = kp.Leaf.EncryptionKey; sign(kp) }},
		{"init key is no point", ErrInvalidLeaf, func(kp *KeyPackage) { kp.InitKey = random(65); sign(kp) }},
		{"source", ErrInvalidLeaf, func(kp *KeyPackage) { kp.Leaf.Source = LeafUpdate; resign(kp) }},
		{"version", ErrSuite, func(kp *KeyPackage) { kp.Version = 2; sign(kp) }},
		{"suite", ErrSuite, func(kp *KeyPackage) { kp.Suite = 0x1234; sign(kp) }},
		{"leaf extension", ErrInvalidLeaf, func(kp *KeyPackage) {
			kp.Leaf.Extensions = []Extension{{Type: 0x4242}}
			resign(kp)
		}},
		{"unknown package extension", nil, func(kp *KeyPackage) {
			kp.Extensions = []Extension{{Type: 0x4242}}
			sign(kp)
		}},
		{"suite not among the capabilities", ErrInvalidLeaf, func(kp *KeyPackage) {
			kp.Leaf.Capabilities.Suites = []Suite{SuiteP384}
			resign(kp)
		}},
		{"signature key is no point", ErrInvalidLeaf, func(kp *KeyPackage) { kp.Leaf.SignatureKey = random(65) }},
	} {
		kp, _ := d.keyPackage(quick)
		r.change(kp)
		if err := kp.Verify(trustAll{}, now); !errors.Is(err, r.want) {
			t.Errorf("%s: %v, want %v", r.name, err, r.want)
		}
	}
}

// A KeyPackage and its secrets survive the disk; the last-resort marker shows.
func TestKeyPackageEncoding(t *testing.T) {
	d := newDevice(t, quick, "d")
	kp, ks, err := NewKeyPackage(d.id, KeyPackageParams{Suite: quick, LastResort: true, Lifetime: NewLifetime(now, now.Add(time.Hour))})
	must(t, err)
	again, err := ParseKeyPackage(kp.Message())
	must(t, err)
	must(t, again.Verify(trustAll{}, now))
	if !again.LastResort() {
		t.Error("marker is lost")
	}
	if plain, _ := d.keyPackage(quick); plain.LastResort() {
		t.Error("every package is a last resort")
	}
	same, err := ParseKeyPackageSecrets(ks.Marshal())
	must(t, err)
	if !bytes.Equal(same.initKey, ks.initKey) || !bytes.Equal(same.encryptionKey, ks.encryptionKey) {
		t.Error("secrets changed")
	}
	if _, err := ParseKeyPackageSecrets(append(ks.Marshal(), 0)); !errors.Is(err, ErrMalformed) {
		t.Errorf("trailing byte: %v", err)
	}
}

// RFC 9420, Section 12.4.3.1: what a joiner refuses.
func TestJoinRefuses(t *testing.T) {
	a := newDevice(t, quick, "a").create(quick)
	b, c := newDevice(t, quick, "b"), newDevice(t, quick, "c")
	kp, ks := b.keyPackage(quick)
	other, otherKS := c.keyPackage(quick)
	p := a.commit(CommitParams{Proposals: []Proposal{AddProposal(kp)}})
	join := func(id Identity, m []byte, kp *KeyPackage, ks *KeyPackageSecrets, tree []byte) error {
		_, err := Join(a.cfg, id, m, kp, ks, JoinParams{Tree: tree, At: now})
		return err
	}
	must(t, join(b.id, p.Welcome, kp, ks, p.Tree))
	for name, r := range map[string]struct{ got, want error }{
		"no tree":         {join(b.id, p.Welcome, kp, ks, nil), ErrNeedTree},
		"old tree":        {join(b.id, p.Welcome, kp, ks, (&tree{suite: a.g.suite, nodes: a.g.tree.nodes[:1]}).append(nil)), ErrInvalidTree},
		"other package":   {join(c.id, p.Welcome, other, otherKS, p.Tree), ErrNotForUs},
		"other secrets":   {join(b.id, p.Welcome, kp, otherKS, p.Tree), ErrNotForUs},
		"other signer":    {join(c.id, p.Welcome, kp, ks, p.Tree), ErrNotForUs},
		"not a welcome":   {join(b.id, p.Commit, kp, ks, p.Tree), ErrMalformed},
		"altered welcome": {join(b.id, flip(p.Welcome), kp, ks, p.Tree), ErrDecrypt},
	} {
		if !errors.Is(r.got, r.want) {
			t.Errorf("%s: %v, want %v", name, r.got, r.want)
		}
	}
	// A confirmation tag that the joiner's own key schedule does not yield.
	bad := a.welcomeWith(t, kp, func(info *groupInfo) { info.confirmationTag = random(32) })
	if err := join(b.id, bad, kp, ks, p.Tree); !errors.Is(err, ErrInvalidTree) {
		t.Errorf("confirmation tag: %v", err)
	}
	must(t, join(b.id, a.welcomeWith(t, kp, func(*groupInfo) {}), kp, ks, p.Tree))
	// A group extension that the joiner does not know.
	bad = a.welcomeWith(t, kp, func(info *groupInfo) { info.context.extensions = []Extension{{Type: 0x4242}} })
	if err := join(b.id, bad, kp, ks, p.Tree); !errors.Is(err, ErrInvalidLeaf) {
		t.Errorf("unknown extension: %v", err)
	}
}

// A relay reads from a Welcome whom it is for.
func TestWelcomeRecipients(t *testing.T) {
	a := newDevice(t, quick, "a").create(quick)
	kp, _ := newDevice(t, quick, "b").keyPackage(quick)
	kp2, _ := newDevice(t, quick, "c").keyPackage(quick)
	p := a.commit(CommitParams{Proposals: []Proposal{AddProposal(kp), AddProposal(kp2)}})
	refs, err := WelcomeRecipients(p.Welcome)
	must(t, err)
	one, _ := kp.Ref()
	two, _ := kp2.Ref()
	if len(refs) != 2 || !bytes.Equal(refs[0], one) || !bytes.Equal(refs[1], two) {
		t.Fatalf("got %x", refs)
	}
	if _, err := WelcomeRecipients(p.Commit); !errors.Is(err, ErrMalformed) {
		t.Errorf("commit: %v", err)
	}
}

func flip(m []byte) []byte {
	m = bytes.Clone(m)
	m[len(m)-1] ^= 1
	return m
}

// welcomeWith makes a Welcome to the present epoch of d with a changed
// GroupInfo, signed and sealed anew under a joiner secret of its own.
func (d *device) welcomeWith(t *testing.T, kp *KeyPackage, change func(*groupInfo)) []byte {
	t.Helper()
	g := d.g
	info := &groupInfo{context: g.ctx, confirmationTag: g.confirmationTag, signer: g.own}
	j := g.suite.joinerFrom(random(32), g.suite.zero())
	e, _ := j.epoch(g.context)
	info.confirmationTag = e.confirmationTag(g.suite, g.ctx.confirmed)
	change(info)
	var err error
	info.signature, err = g.suite.signWithLabel(d.id.Signer, "GroupInfoTBS", info.appendBody(nil))
	must(t, err)
	w := &welcome{suite: g.suite.id, groupInfo: j.sealGroupInfo(info)}
	es, err := g.secretsFor(kp, &groupSecrets{joiner: j.secret}, w.groupInfo)
	must(t, err)
	w.secrets = append(w.secrets, es)
	return (&mlsMessage{wire: WireWelcome, welcome: w}).marshal()
}

// A signer of another suite, or none, is refused before anything is made.
func TestWrongSigner(t *testing.T) {
	d := newDevice(t, SuiteP384, "d")
	if _, err := Create(d.cfg, d.id, CreateParams{Suite: quick, At: now}); !errors.Is(err, ErrSuite) {
		t.Errorf("P-384 key for a P-256 suite: %v", err)
	}
	if _, err := Create(d.cfg, Identity{}, CreateParams{Suite: quick, At: now}); !errors.Is(err, ErrCredential) {
		t.Errorf("no signer: %v", err)
	}
	all := group(t, quick, 2)
	if _, err := Load(all[0].cfg, all[1].id, all[0].disk); !errors.Is(err, ErrCredential) {
		t.Errorf("state loaded under another identity: %v", err)
	}
}

// A damaged state is refused.
func TestLoadRefuses(t *testing.T) {
	a := group(t, quick, 3)[0]
	for i := range a.disk {
		d := Delta{a.disk[i]}.Merge(a.disk)
		for j := range d {
			d[j].Value = bytes.Clone(d[j].Value)
		}
		if d[i].Key[0] == 'n' || d[i].Key == "epoch" || d[i].Key[0] == 'k' && len(d[i].Key) > 2 {
			d[i].Value = d[i].Value[:len(d[i].Value)-1]
			if _, err := Load(a.cfg, a.id, d); !errors.Is(err, ErrMalformed) {
				t.Errorf("short record %s: %v", d[i].Key, err)
			}
		}
	}
	future := a.disk.Merge(nil)
	for j := range future {
		if future[j].Key == "epoch" {
			future[j].Value = append([]byte{99}, future[j].Value[1:]...)
		}
	}
	if _, err := Load(a.cfg, a.id, future); !errors.Is(err, ErrMalformed) {
		t.Errorf("a later version: %v", err)
	}
}
