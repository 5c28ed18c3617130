// SPDX-License-Identifier: Apache-2.0

package interop

import (
	"bytes"
	"testing"
	"time"

	"valise/mls"
)

// altered returns copies of a message, each with one bit turned over, at places
// spread from its first byte to its last.
func altered(message []byte) [][]byte {
	const places = 8
	var list [][]byte
	for i := range places {
		bad := bytes.Clone(message)
		bad[i*(len(message)-1)/(places-1)] ^= 1 << (i % 8)
		list = append(list, bad)
	}
	return list
}

// refuses sees every altered copy refused by what try does with it.
func refuses(t *testing.T, what string, message []byte, try func([]byte) error) {
	t.Helper()
	for i, bad := range altered(message) {
		if try(bad) == nil {
			t.Errorf("%s altered at place %d is accepted", what, i)
		}
	}
}

// What was altered on its way is refused by the other side, changes nothing
// there, and the honest message is accepted after it, once.
func alteredMessages(t *testing.T, w *world, founder, other kind) {
	a, b := w.device(founder), w.device(other)
	w.found(a)

	kp := b.keyPackage()
	refuses(t, "key package", kp, func(bad []byte) error {
		_, err := a.commit(change{add: [][]byte{bad}})
		return err
	})
	made, err := a.commit(change{add: [][]byte{kp}})
	ok(t, err)
	w.deliver(a, made.commit)
	refuses(t, "Welcome", made.welcome, func(bad []byte) error { return b.join(bad, made.tree) })
	refuses(t, "tree", made.tree, func(bad []byte) error { return b.join(made.welcome, bad) })
	ok(t, b.join(made.welcome, made.tree))
	w.members = append(w.members, b)
	w.agree()

	for _, way := range [][2]member{{a, b}, {b, a}} {
		from, to := way[0], way[1]
		open := func(message []byte) error { _, err := to.receive(message); return err }
		text := []byte("to be opened once")
		content := from.encrypt(text, []byte("header"))
		refuses(t, "content", content, open)
		w.opens(to, content, text)
		if open(content) == nil {
			t.Errorf("%T opens the same content twice", to)
		}
		made, err := from.commit(change{data: []byte("header")})
		ok(t, err)
		refuses(t, "commit", made.commit, open)
		w.deliver(from, made.commit)
		w.agree()
	}

	for _, joiner := range []member{w.device(founder), w.device(other)} {
		info, tree := a.info(false)
		refuses(t, "GroupInfo", info, func(bad []byte) error {
			_, err := joiner.external(bad, tree, false)
			return err
		})
		w.enter(joiner, b, false, false)
	}
	w.talk()
}

// RFC 9420, Section 5.3.1: each side asks its own authentication service.
func strangers(t *testing.T, w *world, founder, other kind) {
	a := w.device(founder)
	w.found(a)
	named := func(root *authority) member {
		d := newDevice(t, w.suite, t.Name()+"/stranger", w.root, false, nil)
		switch {
		case w.suite == mls.SuiteP384:
			d.cred = mls.X509Credential(root.issue(t, d.name, d.signer.Public()))
		case root != w.root:
			d.cred = mls.BasicCredential([]byte("stranger " + d.name))
		}
		if other == inGo {
			return &goMember{device: d}
		}
		return &tsMember{device: d, peer: w.peer}
	}
	if _, err := a.commit(change{add: [][]byte{named(newAuthority(t)).keyPackage()}}); err == nil {
		t.Fatalf("%T adds a stranger", a)
	}
	w.commit(a, change{}, []member{named(w.root)})
}

// What ts-mls makes by itself and this side must refuse: ECDSA keys that are
// compressed points (RFC 9420, Section 5.1.1 asks for uncompressed ones), and a
// lifetime without end (Section 7.2). That is why the tests above hand it both.
func TestKeyPackagesByDefault(t *testing.T) {
	w := newWorld(t, startPeer(t), mls.SuiteP256)
	m := w.device(inTS).(*tsMember)
	verify := func(alter func(*request)) error {
		t.Helper()
		q := m.request()
		alter(&q)
		kp, err := mls.ParseKeyPackage(m.must(q).Message)
		ok(t, err)
		return kp.Verify(w.root, time.Now())
	}
	ok(t, verify(func(*request) {}))
	if err := verify(func(q *request) { q.Own = true }); err == nil {
		t.Error("a compressed point is accepted as signature key")
	}
	if err := verify(func(q *request) { q.NotBefore, q.NotAfter = 0, 0 }); err == nil {
		t.Error("a lifetime without end is accepted")
	}
	expired := func(q *request) { q.NotAfter = time.Now().Add(-time.Minute).Unix() }
	if err := verify(expired); err == nil {
		t.Error("an expired key package is accepted")
	}
}
