// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"valise/mls"
)

// kind says which implementation a member is on.
type kind bool

const (
	inGo kind = true
	inTS kind = false
)

func (k kind) String() string {
	if k == inGo {
		return "Go"
	}
	return "ts-mls"
}

// A world is one group, the members on both implementations, and an observer
// without secrets that follows what is public.
type world struct {
	t        testing.TB
	suite    mls.Suite
	peer     *peer
	root     *authority
	psks     map[string][]byte
	members  []member
	observer *mls.PublicGroup
	made     int
}

func newWorld(t testing.TB, p *peer, suite mls.Suite) *world {
	psks := map[string][]byte{"shared once": bytes.Repeat([]byte{7}, 32), "shared twice": []byte("a longer secret than any hash of these suites has bytes, to see that both extract it")}
	return &world{t: t, suite: suite, peer: p, root: newAuthority(t), psks: psks}
}

// device makes one that is in no group yet. On P-384 credentials are
// certificates, elsewhere bare names.
func (w *world) device(k kind) member {
	w.t.Helper()
	w.made++
	name := fmt.Sprintf("%s/%v/%d", w.t.Name(), k, w.made)
	d := newDevice(w.t, w.suite, name, w.root, curveOf(w.suite) != nil && w.suite != mls.SuiteP256, w.psks)
	if k == inGo {
		return &goMember{device: d}
	}
	return &tsMember{device: d, peer: w.peer}
}

func (w *world) found(m member) {
	w.t.Helper()
	m.found([]byte(w.t.Name()))
	w.members = []member{m}
	w.observe(m)
}

// observe starts the observer at the present epoch.
func (w *world) observe(m member) {
	w.t.Helper()
	info, tree := m.info(false)
	o, err := mls.NewPublicGroup(w.root, info, tree, time.Now())
	ok(w.t, err)
	w.observer = o
}

// deliver hands a handshake message to all members but its sender, and to the
// observer if it is public.
func (w *world) deliver(from member, message []byte) {
	w.t.Helper()
	for _, m := range w.members {
		if m == from {
			continue
		}
		if _, err := m.receive(message); err != nil {
			w.t.Fatalf("member %d (%T) refuses what %T (leaf %d) sent: %v", slices.Index(w.members, m), m, from, from.status().leaf, err)
		}
	}
	info, err := mls.ParseMessageInfo(message)
	ok(w.t, err)
	if info.Wire != mls.WirePublicMessage {
		return
	}
	if info.Content == mls.ContentProposal {
		_, _, err := w.observer.See(message, time.Now())
		ok(w.t, err)
		return
	}
	staged, err := w.observer.Check(message, time.Now())
	if err != nil {
		w.t.Fatalf("the observer refuses what %T sent: %v", from, err)
	}
	ok(w.t, w.observer.Apply(staged))
}

// commit makes one, delivers it, lets devices join by its Welcome, and sees
// that everybody has come to the same epoch. Those gone must notice it.
func (w *world) commit(by member, c change, joining []member, gone ...member) {
	w.t.Helper()
	for _, m := range joining {
		c.add = append(c.add, m.keyPackage())
	}
	w.commitTo(by, c, joining, gone...)
}

// commitTo is commit for devices whose key packages are on their way already.
func (w *world) commitTo(by member, c change, joining []member, gone ...member) {
	w.t.Helper()
	made, err := by.commit(c)
	ok(w.t, err)
	w.deliver(by, made.commit)
	for _, m := range gone {
		if m.status().active {
			w.t.Fatalf("%T does not notice its removal", m)
		}
		w.members = slices.DeleteFunc(w.members, func(x member) bool { return x == m })
	}
	if c.tree {
		made.tree = nil
	}
	for _, m := range joining {
		if err := m.join(made.welcome, made.tree); err != nil {
			w.t.Fatalf("%T does not join by the Welcome of %T: %v", m, by, err)
		}
		w.members = append(w.members, m)
	}
	if c.private {
		w.observe(by)
	}
	w.agree()
}

// enter lets a device in by an external commit, from the GroupInfo that a
// member made. For resync it is a member, whose leaf is replaced.
func (w *world) enter(m, by member, resync, withTree bool) {
	w.t.Helper()
	info, tree := by.info(withTree)
	commit, err := m.external(info, tree, resync)
	ok(w.t, err)
	w.deliver(m, commit)
	if !resync {
		w.members = append(w.members, m)
	}
	w.agree()
}

// agree compares the secrets and the members of all views.
func (w *world) agree() {
	w.t.Helper()
	var want status
	leaves := make(map[uint32]bool)
	for i, m := range w.members {
		got := m.status()
		if !got.active || leaves[got.leaf] {
			w.t.Fatalf("member %d: active %v, leaf %d", i, got.active, got.leaf)
		}
		leaves[got.leaf] = true
		got.leaf, got.active = 0, false
		if i == 0 {
			want = got
		}
		if len(got.exported) != 64 || len(got.authenticator) < 64 {
			w.t.Fatalf("member %d has no secrets: %+v", i, got)
		}
		if got != want {
			w.t.Fatalf("member %d (%T) has\n%+v\nnot\n%+v", i, m, got, want)
		}
	}
	var keys [][]byte
	for _, m := range w.observer.Members() {
		keys = append(keys, m.SignatureKey)
	}
	if w.observer.Epoch() != want.epoch || keyList(keys) != want.keys || len(keys) != len(w.members) {
		w.t.Fatalf("the observer has epoch %d and %s, not %d and %s", w.observer.Epoch(), keyList(keys), want.epoch, want.keys)
	}
}

// talk sends content from each member to all others: from the first two, which
// are one of each kind, three messages that arrive out of order; one from the
// others.
func (w *world) talk() {
	w.t.Helper()
	for i, from := range w.members {
		texts := [][]byte{fmt.Appendf(nil, "first of %d", i), {}, bytes.Repeat([]byte{byte(i)}, 5000)}
		order := []int{1, 2, 0}
		if i > 1 {
			order = []int{0}
		}
		sent := make([][]byte, len(order))
		for n := range sent {
			sent[n] = from.encrypt(texts[n], []byte("header"))
		}
		for _, to := range w.members {
			if to == from {
				continue
			}
			for _, n := range order {
				w.opens(to, sent[n], texts[n])
			}
		}
	}
}

func (w *world) opens(to member, message, want []byte) {
	w.t.Helper()
	got, err := to.receive(message)
	if err != nil {
		w.t.Fatalf("%T: %v", to, err)
	}
	if got.kind != mls.ContentApplication || !bytes.Equal(got.text, want) {
		w.t.Fatalf("%T: kind %d, %.40q, want %.40q", to, got.kind, got.text, want)
	}
}
