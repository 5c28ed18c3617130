// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"valise/identity"
	"valise/wire"
)

// The gateway's word on who sent something is not believed: what carol is said to have
// sent, and alice signed, is refused, reported, and asked for again from alice.
func TestSenderMismatch(t *testing.T) {
	w := newWorld(t)
	alice, bob, carol := w.device("alice").reachable(), w.device("bob").reachable(), w.device("carol").reachable()
	conv := alice.with(t, bob, carol)
	alice.says(conv, "before")
	bob.gets("before")
	carol.gets("before")
	w.quiet()
	bob.kill()
	alice.says(conv, "in whose name?")
	alice.says(conv, "control")
	w.stop()
	carolID := carol.Self()
	n := w.sqlite("UPDATE messages SET sender = (SELECT id FROM devices WHERE device = $1) WHERE id = (SELECT min(message) FROM mailbox)", carolID[:])
	if n != 1 {
		t.Fatalf("%d messages were relabelled", n)
	}
	w.start()
	bob.start()
	bob.gets("before", "in whose name?", "control")
	for _, ev := range bob.all() {
		if ev.Kind == EventMessage && ev.From != alice.address.String() {
			t.Fatalf("shown as sent by %s: %q", ev.From, ev.Text)
		}
	}
	if !w.reported(reasonSender) {
		t.Fatalf("not in the audit stream: %q", w.reports)
	}
}

// A content with a critical extension that is not known is refused visibly; the same
// without the flag is shown.
func TestCriticalExtension(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.device("alice").reachable(), w.device("bob").reachable()
	conv := alice.with(t, bob)
	for text, critical := range map[string]bool{"must be understood": true, "may be ignored": false} {
		_, err := alice.queueOwn(conv, &wire.Content{
			MediaType: wire.MediaText, Body: []byte(text),
			Extensions: []wire.Extension{{Type: 999, Critical: critical}},
		}, mark{}, nil)
		if err != nil {
			t.Fatal(err)
		}
	}
	bob.gets("may be ignored")
	bob.until("is told of the refusal", func() bool {
		ev := bob.event(EventRefused)
		return ev != nil && ev.Reason == reasonCritical && ev.From == alice.address.String()
	})
	if slices.Contains(bob.texts(), "must be understood") {
		t.Fatal("shown although it must be refused")
	}
}

// A gateway of another authority is not talked to.
func TestOtherGateway(t *testing.T) {
	ours, other := newWorld(t), newWorld(t)
	control := ours.device("alice").reachable()
	ours.address, other.address = other.address, ours.address
	defer func() { ours.address, other.address = other.address, ours.address }()
	bob := ours.device("bob")
	bob.until("refuses the gateway", func() bool { return strings.Contains(bob.State().Error, string(identity.ReasonUnknownAuthority)) })
	if control.State().Name != StateOnline {
		t.Fatalf("the control is %+v", control.State())
	}
}

// A KeyPackage of somebody else in the place of the one that was asked for is refused:
// the gateway cannot slip a reader into a conversation.
func TestSwappedKeyPackage(t *testing.T) {
	w := newWorld(t)
	alice, bob, mallory := w.device("alice").reachable(), w.device("bob").reachable(), w.device("mallory").reachable()
	bobID, malloryID := bob.Self(), mallory.Self()
	mallory.until("has a stock", func() bool {
		mallory.mu.Lock()
		defer mallory.mu.Unlock()
		return mallory.stock >= stockFull && mallory.slot == nil
	})
	bob.until("has a stock", func() bool { bob.mu.Lock(); defer bob.mu.Unlock(); return bob.stock >= stockFull && bob.slot == nil })
	w.stop()
	w.sqlite("DELETE FROM key_packages WHERE device = (SELECT id FROM devices WHERE device = $1)", bobID[:])
	w.sqlite("UPDATE key_packages SET device = (SELECT id FROM devices WHERE device = $1) WHERE device = (SELECT id FROM devices WHERE device = $2)", bobID[:], malloryID[:])
	w.start()
	conv := alice.with(t, bob)
	id, err := alice.Send(context.Background(), Draft{Conversation: conv, Text: "for bob alone"})
	if err != nil {
		t.Fatal(err)
	}
	alice.until("refuses", func() bool {
		o, err := alice.Outcome(context.Background(), id)
		return err == nil && o.State == OutcomeRefused && strings.Contains(o.Reason, "another person or device")
	})
	if mallory.event(EventJoined) != nil {
		t.Fatal("mallory came in")
	}
}

// Who came in later gets nothing that was sent before, not even when somebody else
// asks for it again.
func TestResendNotForNewMembers(t *testing.T) {
	w := newWorld(t)
	alice, bob, carol := w.device("alice").reachable(), w.device("bob").reachable(), w.device("carol").reachable()
	conv := alice.with(t, bob)
	alice.says(conv, "before")
	bob.gets("before")
	w.quiet()
	bob.kill()
	alice.says(conv, "for bob alone")
	if err := alice.Add(context.Background(), conv, carol.address); err != nil {
		t.Fatal(err)
	}
	w.stop()
	w.alter()
	w.start()
	bob.start()
	bob.until("asks again", func() bool { return w.reported(reasonAltered) })
	bob.until("has asked", func() bool {
		bob.mu.Lock()
		defer bob.mu.Unlock()
		c := bob.conversations[conv]
		return c != nil && c.Sequence > 0 && bob.slot == nil
	})
	alice.says(conv, "after")
	carol.gets("after")
	bob.gets("after")
	alice.says(conv, "end")
	carol.gets("end")
	if slices.Contains(carol.texts(), "for bob alone") {
		t.Fatal("a new member was sent an older message")
	}
}

// The authority is known by the hash in the invitation, and by nothing else.
func TestEnrollPinsRoot(t *testing.T) {
	srv := httptest.NewTLSServer(http.NotFoundHandler())
	defer srv.Close()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	attempt := func(root [32]byte) error {
		_, err := (&Enrollment{URL: srv.URL, Root: root, Account: key, Device: key}).Do(context.Background())
		return err
	}
	if err := attempt([32]byte{1}); err == nil || !strings.Contains(err.Error(), "not the authority that the invitation is from") {
		t.Fatalf("another root: %v", err)
	}
	err = attempt(sha256.Sum256(srv.Certificate().Raw))
	if err == nil || strings.Contains(err.Error(), "not the authority") {
		t.Fatalf("the control should come as far as the directory: %v", err)
	}
}

func TestLabelRoundTrip(t *testing.T) {
	for _, name := range []string{"", "crisis cell", "Lagezentrum – Nord"} {
		for _, former := range []string{"", "the group before"} {
			roundTrip(t, label{NewConversationID(), name, former})
		}
	}
	if _, err := (label{Name: "a\x1b[2J"}).extension(); err == nil {
		t.Fatal("a name with control characters was accepted")
	}
}

func roundTrip(t *testing.T, l label) {
	t.Helper()
	x, err := l.extension()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := parseLabel(x.Data); err != nil || got != l {
		t.Fatalf("%+v, %v", got, err)
	}
}

func FuzzParseLabel(f *testing.F) {
	x, _ := label{ConversationID{1}, "name", "before"}.extension()
	f.Add(x.Data)
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := parseLabel(data)
		if err != nil {
			return
		}
		again, err := l.extension()
		if err != nil || string(again.Data) != string(data) {
			t.Fatalf("%x parses to %+v and encodes to %x, %v", data, l, again.Data, err)
		}
	})
}

func FuzzPosition(f *testing.F) {
	f.Add("abcd.7")
	f.Add("")
	f.Add(".0")
	m := meta{Events: 9, Lives: []life{{"aaaa", 0}, {"bbbb", 5}}}
	f.Fuzz(func(t *testing.T, cursor string) {
		if n, err := m.position(cursor); err == nil && n > m.Events {
			t.Fatalf("position(%q) = %d", cursor, n)
		}
	})
}

// A cursor of a life that was cut short by copying back points to that life's end, so
// that nothing of the next life is skipped.
func TestCursorOfFormerLife(t *testing.T) {
	m := meta{Events: 9, Lives: []life{{"aaaa", 0}, {"bbbb", 5}}}
	for cursor, want := range map[string]uint64{"aaaa.3": 3, "aaaa.100": 5, "bbbb.7": 7, "cccc.4": 0, "": 0} {
		if n, err := m.position(cursor); err != nil || n != want {
			t.Errorf("position(%q) = %d, %v, want %d", cursor, n, err, want)
		}
	}
	for n, want := range map[uint64]string{3: "aaaa.3", 5: "aaaa.5", 6: "bbbb.6"} {
		if got := m.cursor(n); got != want {
			t.Errorf("cursor(%d) = %q, want %q", n, got, want)
		}
	}
}

// What a conversation has become while a refusal is reported is not undone by what follows
// from it.
func TestRefusedCommitKeepsWhatChanged(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.device("alice").reachable(), w.device("bob").reachable()
	id := alice.with(t, bob)
	alice.says(id, "one")
	bob.gets("one")
	w.quiet()
	alice.mu.Lock()
	before := alice.conversations[id].Sequence
	seen := make(chan string, 1)
	go func() {
		alice.mu.Lock() // free while the gateway is told
		defer alice.mu.Unlock()
		seen <- alice.conversations[id].State
		if err := alice.update(func(c *change) error {
			next := alice.conversations[id].edit()
			next.Sequence += 7
			return c.put(next)
		}); err != nil {
			t.Error(err)
		}
	}()
	g, err := alice.group(alice.conversations[id].Group)
	if err != nil {
		t.Fatal(err)
	}
	err = alice.committed(context.Background(), alice.link, &wire.Deliver{
		Number: alice.meta.Cursor, Kind: wire.DeliverCommit, Group: g.ID(), Epoch: g.Epoch(), Sender: bob.Self(), Payload: []byte("no commit"),
	})
	alice.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	state := <-seen
	alice.mu.Lock()
	conv := alice.conversations[id]
	alice.mu.Unlock()
	if conv.Sequence != before+7 {
		t.Errorf("sequence %d of a conversation that was changed from %d by 7, while %s", conv.Sequence, before, state)
	}
	alice.until("comes back", func() bool { return alice.conversation(id).State == stateActive })
}
