// SPDX-License-Identifier: Apache-2.0

package mls

import (
	"bytes"
	"reflect"
	"runtime"
	"testing"
)

// seeds are real messages of a small group, of every kind.
func seeds(t testing.TB) [][]byte {
	a := newDevice(t, quick, "a").create(quick)
	kp, ks := newDevice(t, quick, "b").keyPackage(quick)
	b := newDevice(t, quick, "b")
	kp2, _ := b.keyPackage(quick)
	p := a.commit(CommitParams{Proposals: []Proposal{
		AddProposal(kp), AddProposal(kp2),
		ExtensionsProposal([]Extension{RequiredCapabilities{Credentials: []CredentialType{1}}.Extension()}),
	}, TreeInWelcome: true})
	_ = ks
	m := a.encrypt("content")
	q := a.commit(CommitParams{Private: true})
	s, err := a.g.Propose(RemoveProposal(2), []byte("aad"))
	must(t, err)
	u, err := a.g.ProposeUpdate(nil)
	must(t, err)
	return [][]byte{kp.Message(), p.Commit, p.Welcome, p.GroupInfo, m, q.Commit, s.Message, u.Message}
}

// identityFuzz checks one decoder: what it accepts encodes to the same bytes,
// it does not panic, and what it allocates is bounded by the input.
func identityFuzz[T any](f *testing.F, corpus [][]byte, read func(*reader) T, write func(T) []byte) {
	for _, s := range corpus {
		f.Add(s)
		f.Add(s[:len(s)/2])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		v, err := decode(data, read)
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > uint64(400*len(data)+64<<10) {
			t.Fatalf("%d bytes make %d bytes of memory", len(data), n)
		}
		if err == nil && !bytes.Equal(write(v), data) {
			t.Fatalf("%x encodes as %x", data, write(v))
		}
	})
}

func FuzzMessage(f *testing.F) {
	identityFuzz(f, seeds(f), readMessage, (*mlsMessage).marshal)
}

// The lean reader of a PrivateMessage's clear fields agrees with the whole parser.
func FuzzPrivateMessageInfo(f *testing.F) {
	for _, s := range seeds(f) {
		f.Add(s)
		f.Add(s[:len(s)/2])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		lean, err1 := ParsePrivateMessageInfo(data)
		whole, err2 := ParseMessageInfo(data)
		private := err2 == nil && whole.Wire == WirePrivateMessage
		if (err1 == nil) != private {
			t.Fatalf("lean %v, whole %v", err1, err2)
		}
		if private && !reflect.DeepEqual(lean, whole) {
			t.Fatalf("lean %+v, whole %+v", lean, whole)
		}
	})
}

func FuzzTree(f *testing.F) {
	all := group(f, quick, 3)
	identityFuzz(f, [][]byte{all[0].g.Tree(), populatedTree(f)},
		func(r *reader) *tree { return readTree(mustSuite(quick), r) }, func(t *tree) []byte { return t.append(nil) })
}

func populatedTree(f *testing.F) []byte {
	x, _ := populated(f, quick, 5)
	return x.g.Tree()
}

func FuzzGroupSecrets(f *testing.F) {
	g := &groupSecrets{joiner: random(32), hasPath: true, path: random(32), psks: []PSKID{
		{Type: PSKExternal, ID: []byte("x"), Nonce: random(32)}, {Type: PSKResumption, Usage: 1, GroupID: []byte("g"), Epoch: 3},
	}}
	identityFuzz(f, [][]byte{g.marshal()}, readGroupSecrets, (*groupSecrets).marshal)
}

func FuzzAuthContent(f *testing.F) {
	var corpus [][]byte
	for _, s := range seeds(f) {
		if m, err := parseMessage(s); err == nil && m.public != nil {
			corpus = append(corpus, m.public.authContent.marshal())
		}
	}
	identityFuzz(f, corpus, readAuthContent, (*authContent).marshal)
}

func FuzzDelta(f *testing.F) {
	a := newDevice(f, quick, "a").create(quick)
	f.Add(a.disk.Marshal())
	f.Add(Delta{{"k/1", nil}, {"n/0", []byte{}}}.Marshal())
	f.Fuzz(func(t *testing.T, data []byte) {
		if d, err := ParseDelta(data); err == nil && !bytes.Equal(d.Marshal(), data) {
			t.Fatalf("%x encodes as %x", data, d.Marshal())
		}
	})
}

// FuzzParameters decodes extensions that this package reads.
func FuzzParameters(f *testing.F) {
	f.Add(RequiredCapabilities{Credentials: []CredentialType{1}}.Extension().Data, []byte(nil))
	f.Add([]byte(nil), ExternalSendersExtension([]ExternalSender{{[]byte("k"), BasicCredential([]byte("x"))}}).Data)
	f.Fuzz(func(t *testing.T, required, senders []byte) {
		_, _ = readParameters([]Extension{{ExtensionRequiredCapabilities, required}, {ExtensionExternalSenders, senders}})
	})
}

// FuzzReceive gives a member and an observer mutated real messages. Whatever
// is refused must leave the state as it was.
func FuzzReceive(f *testing.F) {
	all := group(f, quick, 3)
	a, b := all[0], all[1]
	pub := observer(f, a)
	state, observed := b.disk, pub.State()
	add := func(m []byte) { f.Add(m, uint16(0), byte(0), false); f.Add(m, uint16(len(m)/2), byte(1), true) }
	s, err := a.g.Encrypt([]byte("content"), []byte("header"))
	must(f, err)
	add(s.Message)
	for _, p := range []CommitParams{{}, {Private: true}, {Proposals: []Proposal{RemoveProposal(2)}}, {Proposals: []Proposal{RemoveProposal(1)}}} {
		c, err := a.g.PrepareCommit(p)
		must(f, err)
		add(c.Commit)
	}
	info, err := a.g.GroupInfo()
	must(f, err)
	ext, err := PrepareExternalCommit(all[2].cfg, all[2].id, info, ExternalParams{Tree: a.g.Tree(), At: now})
	must(f, err)
	add(ext.Commit)
	prop, err := a.g.Propose(RemoveProposal(2), nil)
	must(f, err)
	add(prop.Message)
	f.Fuzz(func(t *testing.T, m []byte, at uint16, with byte, sign bool) {
		m = bytes.Clone(m)
		if len(m) > 0 {
			m[int(at)%len(m)] ^= with
		}
		if sign { // a member that misbehaves: signature and membership tag are right
			if msg, err := parseMessage(m); err == nil && msg.public != nil {
				ac := &msg.public.authContent
				must(t, ac.sign(a.g.suite, a.id, a.g.context))
				m = protectPublic(a.g.suite, ac, a.g.secrets.membershipKey, a.g.context)
			}
		}
		g, err := Load(b.cfg, b.id, state)
		must(t, err)
		r, err := g.Receive(m, now)
		if err != nil && !bytes.Equal(g.State().Marshal(), state.Marshal()) {
			t.Fatalf("refused (%v), and the state changed", err)
		}
		if err == nil && r.Commit != nil {
			must(t, g.Apply(r.Commit))
		}
		p, err := LoadPublicGroup(trustAll{}, observed)
		must(t, err)
		if st, err := p.Check(m, now); err == nil {
			must(t, p.Apply(st))
		}
		if _, _, err := p.See(m, now); err != nil {
			return
		}
	})
}

// FuzzJoin gives a joiner mutated Welcomes, GroupInfos and trees.
func FuzzJoin(f *testing.F) {
	a := newDevice(f, quick, "a").create(quick)
	b := newDevice(f, quick, "b")
	kp, ks := b.keyPackage(quick)
	p := a.commit(CommitParams{Proposals: []Proposal{AddProposal(kp)}})
	f.Add(p.Welcome, p.Tree, p.GroupInfo)
	f.Fuzz(func(t *testing.T, welcome, tree, info []byte) {
		_, _ = Join(b.cfg, b.id, welcome, kp, ks, JoinParams{Tree: tree, At: now})
		_, _ = NewPublicGroup(trustAll{}, info, tree, now)
		_, _ = PrepareExternalCommit(b.cfg, b.id, info, ExternalParams{Tree: tree, At: now})
	})
}

// RFC 9420, Section 2.1: encodings that are not the shortest, and others that
// a lax decoder would take.
func TestCodecIsStrict(t *testing.T) {
	for name, data := range map[string][]byte{
		"long form of a short length": {0x40, 0x01, 0xaa},
		"four bytes for two":          append([]byte{0x80, 0, 0, 0x40}, make([]byte, 64)...),
		"prefix 11":                   {0xc0, 0, 0, 0, 0, 0, 0, 0},
		"too short":                   {0x02, 0xaa},
		"trailing":                    {0x01, 0xaa, 0xbb},
	} {
		if _, err := decode(data, (*reader).opaque); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	if v, err := decode([]byte{0x01, 0xaa}, (*reader).opaque); err != nil || !bytes.Equal(v, []byte{0xaa}) {
		t.Errorf("control: %x, %v", v, err)
	}
	if _, err := decode([]byte{2}, (*reader).optional); err == nil {
		t.Error("presence octet 2 is accepted")
	}
	twice := appendExtensions(nil, []Extension{{Type: 9}, {Type: 9}})
	if _, err := decode(twice, readExtensions); err == nil {
		t.Error("an extension type twice is accepted")
	}
	unsorted := (&parentNode{encryptionKey: []byte{1}, unmerged: []LeafIndex{2, 1}}).append(nil)
	if _, err := decode(unsorted, readParentNode); err == nil {
		t.Error("unsorted unmerged leaves are accepted")
	}
	all := group(t, quick, 2)
	blank := appendVector(nil, all[0].g.tree.nodes, func(b []byte, n *node) []byte {
		if b = appendOptional(b, n != nil); n != nil {
			b = n.append(b)
		}
		return b
	})
	r := reader{b: blank}
	body := append(bytes.Clone(r.take(r.length())), 0) // a blank node at the end
	if _, err := parseTree(mustSuite(quick), appendOpaque(nil, body)); err == nil {
		t.Error("a blank node at the end of a tree is accepted")
	}
	if _, err := parseTree(mustSuite(quick), blank); err != nil {
		t.Errorf("control: %v", err)
	}
}
