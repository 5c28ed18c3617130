// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// reported says whether a device's report stands in the gateway's audit stream.
func (w *world) reported(reason string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.ContainsFunc(w.reports, func(s string) bool { return strings.Contains(s, reason) })
}

// alter flips a bit near the end of the first message that waits in the stopped
// gateway's store.
func (w *world) alter() {
	w.t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(w.dir, "relay.db"))
	if err != nil {
		w.t.Fatal(err)
	}
	defer db.Close()
	var id int64
	var payload []byte
	err = db.QueryRow("SELECT id, payload FROM messages WHERE id = (SELECT min(message) FROM mailbox)").Scan(&id, &payload)
	if err == nil {
		payload[len(payload)-9] ^= 0x10
		_, err = db.Exec("UPDATE messages SET payload = $1 WHERE id = $2", payload, id)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// A message that was altered in the gateway's store is refused, reported, and asked
// for again from its sender: the reader gets the true text, once.
func TestAlteredInStore(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.device("alice").reachable(), w.device("bob").reachable()
	conv := alice.with(t, bob)
	alice.says(conv, "before")
	bob.gets("before")
	w.quiet()
	bob.kill()
	alice.says(conv, "altered on the way")
	alice.says(conv, "control")
	w.stop()
	w.alter()
	w.start()
	bob.start()
	bob.gets("before", "altered on the way", "control")
	if !w.reported(reasonAltered) {
		t.Fatalf("not in the audit stream: %q", w.reports)
	}
	bob.says(conv, "thanks")
	alice.gets("thanks")
}

// A message that the gateway delivers twice, under two numbers, is shown once.
func TestReplayedInStore(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.device("alice").reachable(), w.device("bob").reachable()
	conv := alice.with(t, bob)
	alice.says(conv, "before")
	bob.gets("before")
	w.quiet()
	bob.kill()
	alice.says(conv, "only once")
	w.stop()
	if n := w.sqlite("INSERT INTO mailbox SELECT device, number + 1, message FROM mailbox"); n != 1 {
		t.Fatalf("%d deliveries were doubled", n)
	}
	w.sqlite("UPDATE states SET last = last + 1, held = held + 1 WHERE held > 0")
	w.sqlite("UPDATE messages SET refs = refs + 1")
	w.start()
	bob.start()
	bob.gets("before", "only once")
	alice.says(conv, "after")
	bob.gets("before", "only once", "after")
	if !w.reported(reasonReplayed) {
		t.Fatalf("not in the audit stream: %q", w.reports)
	}
}

// Messages that the gateway lost or put in another order: what is missing is noticed
// by its sequence number and asked for; each is shown once.
func TestDroppedAndReordered(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.device("alice").reachable(), w.device("bob").reachable()
	conv := alice.with(t, bob)
	alice.says(conv, "m0")
	bob.gets("m0")
	w.quiet()
	bob.kill()
	for i := 1; i <= 6; i++ {
		alice.says(conv, fmt.Sprint("m", i))
	}
	w.stop()
	// The second message's pointer is bent to the third's message (the second is
	// dropped, the third doubled), the fifth and the sixth change places.
	w.sqlite(`WITH o AS (SELECT number, message, row_number() OVER (ORDER BY number) AS k FROM mailbox)
		UPDATE mailbox SET message = (SELECT message FROM o WHERE k =
			(SELECT CASE k WHEN 2 THEN 3 WHEN 5 THEN 6 WHEN 6 THEN 5 ELSE k END FROM o WHERE o.number = mailbox.number))`)
	w.start()
	bob.start()
	bob.gets("m0", "m1", "m2", "m3", "m4", "m5", "m6")
	alice.says(conv, "end")
	bob.gets("m0", "m1", "m2", "m3", "m4", "m5", "m6", "end")
}

// A directory copied back from an older state is noticed by the gateway's marks. The
// device sends nothing from it, resyncs, and asks for what it has lost: nothing is
// lost or doubled, on either side.
func TestCopiedBackDirectory(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.device("alice").reachable(), w.device("bob").reachable()
	conv := alice.with(t, bob)
	alice.says(conv, "one")
	bob.gets("one")
	bob.says(conv, "bob one")
	alice.gets("bob one")

	bob.kill()
	old, err := os.ReadFile(bob.path())
	if err != nil {
		t.Fatal(err)
	}
	bob.start()
	for _, text := range []string{"two", "three"} {
		alice.says(conv, text)
		bob.gets(text)
		bob.says(conv, "bob "+text)
		alice.gets("bob " + text)
	}
	w.quiet()
	bob.kill()
	alice.says(conv, "while bob was away")
	if err := os.WriteFile(bob.path(), old, 0o600); err != nil {
		t.Fatal(err)
	}
	w.stop()
	bob.start()
	if _, err := bob.Send(context.Background(), Draft{Conversation: conv, Text: "bob is back"}); err != nil {
		t.Fatal(err)
	}
	w.start()
	bob.gets("one", "two", "three", "while bob was away")
	alice.gets("bob one", "bob two", "bob three", "bob is back")
	alice.says(conv, "good")
	bob.gets("one", "two", "three", "while bob was away", "good")
	if bob.event(EventResynced) == nil {
		t.Fatal("the official is not told")
	}
	if w.reported("state_conflict") {
		t.Fatal("the older state sent something before it was given up")
	}
	if alice.event(EventResynced) != nil {
		t.Fatal("the other side was resynced too")
	}
}

// A state whose own messages were queued before it was copied sends them once, though
// the newer state has sent them already.
func TestCopiedBackQueue(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.device("alice").reachable(), w.device("bob").reachable()
	conv := bob.with(t, alice)
	bob.says(conv, "first")
	alice.gets("first")
	w.stop()
	if _, err := bob.Send(context.Background(), Draft{Conversation: conv, Text: "queued"}); err != nil {
		t.Fatal(err)
	}
	bob.kill()
	old, err := os.ReadFile(bob.path())
	if err != nil {
		t.Fatal(err)
	}
	w.start()
	bob.start()
	alice.gets("first", "queued")
	bob.kill()
	if err := os.WriteFile(bob.path(), old, 0o600); err != nil {
		t.Fatal(err)
	}
	bob.start()
	bob.says(conv, "last")
	alice.gets("first", "queued", "last")
}

// A new home for the same card knows nothing: it resyncs the groups that the gateway
// counts it into as they speak, and goes on.
func TestEmptyHome(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.device("alice").reachable(), w.device("bob").reachable()
	conv := alice.with(t, bob)
	alice.says(conv, "one")
	bob.gets("one")
	bob.kill()
	if err := os.Remove(bob.path()); err != nil {
		t.Fatal(err)
	}
	bob.start()
	bob.reachable()
	alice.says(conv, "two")
	bob.gets("two")
	alice.says(conv, "three")
	bob.gets("two", "three")
	if again := bob.with(t, alice); again != conv {
		t.Fatalf("the conversation has another id after the resync: %s, was %s", again, conv)
	}
}
