// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"valise/wire"
)

// Nobody reads, acknowledges or asks about what is another device's: no frame names a
// mailbox, so that what is left to try are numbers and groups.
func TestAnothersMailbox(t *testing.T) { overBoth(t, testAnothersMailbox) }

func testAnothersMailbox(t *testing.T, by network) {
	gw := startGateway(t, gatewayOptions{network: by})
	alice, bob := newDevice(t, gw, "alice").ready(), newDevice(t, gw, "bob")
	bob.connect(true, 0)
	bob.publish(3, false)
	ga := alice.found()
	alice.add(ga, alice.take("bob")...)
	alice.must(alice.sealed(ga, "for bob alone"))

	mallory := newDevice(t, gw, "mallory")
	mallory.connect(true, 0)
	mallory.listen(0)
	if err := wire.Write(mallory.link.down, &wire.Ack{Number: 2}); err != nil { // bob's two
		t.Fatal(err)
	}
	if code := mallory.link.closed(t); code != wire.CloseProtocol {
		t.Errorf("an acknowledgement of what was never delivered: closed with %d", code)
	}
	mallory.connect(false, 0)
	down, err := mallory.link.open(wire.StreamDelivery, &wire.Resume{Cursor: 1})
	if err != nil {
		t.Fatal(err)
	}
	if code := mallory.link.closed(t); code != wire.CloseProtocol {
		t.Errorf("a cursor in a mailbox that is empty: closed with %d", code)
	}
	_ = down.Close()
	mallory.connect(false, 0)
	if code := mallory.code(&wire.GetGroup{Group: ga.ID()}); code != wire.NotMember {
		t.Errorf("a stranger asks about the group: %v", code)
	}

	bob.listen(0) // the control: all of it is there
	gb := bob.join()
	if got := bob.read(gb); got != "for bob alone" {
		t.Errorf("bob read %q", got)
	}
}

// Group ids and file ids are bytes that a device chooses; none of them becomes a part of
// a path, whatever it holds.
func TestPathTricks(t *testing.T) { overBoth(t, testPathTricks) }

func testPathTricks(t *testing.T, by network) {
	gw := startGateway(t, gatewayOptions{network: by})
	alice, bob, ga, _ := pair(t, gw)
	outside := listed(t, gw.dir, "blobs")
	data, id := randomFile(1000)
	for _, group := range []string{"../../../x", "/etc/x", "..", ".", "blobs/../../x", "x\x00y", strings.Repeat("../", 80)} {
		if code := alice.put([]byte(group), id, data); code != wire.UnknownGroup {
			t.Errorf("a file for the group %q: %v", group, code)
		}
		if code := alice.submit(&wire.Send{Group: []byte(group), Epoch: 0, Message: alice.sealed(ga, "x").Message}); code == wire.OK {
			t.Errorf("a message for the group %q was taken", group)
		}
	}
	for _, trick := range [][32]byte{[32]byte([]byte("../../../../../../etc/passwd/../")), [32]byte([]byte("/etc/passwd\x00/////////////////////")), {}} {
		if _, code := bob.get(trick, 0); code != wire.NotFound {
			t.Errorf("the file %q: %v", trick, code)
		}
		if code := alice.put(ga.ID(), trick, data); code != wire.HashMismatch {
			t.Errorf("a file under the id %q: %v", trick, code)
		}
	}
	// A group may be named like a path: that is nobody's business but its members'.
	if code := alice.put(ga.ID(), id, data); code != wire.OK { // the control
		t.Fatalf("control: %v", code)
	}
	if now := listed(t, gw.dir, "blobs"); now != outside {
		t.Errorf("outside of the folder for files there were\n%s\nand there are\n%s", outside, now)
	}
	entries, err := os.ReadDir(filepath.Join(gw.dir, "blobs"))
	if err != nil || len(entries) != 1 {
		t.Fatalf("%d files, %v", len(entries), err)
	}
	for _, e := range entries {
		if strings.Trim(e.Name(), "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") != "" {
			t.Errorf("a file is called %q", e.Name())
		}
	}
}

// listed names everything below a folder, but for one of its folders and the database.
func listed(t *testing.T, dir, but string) string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(filepath.Dir(dir), func(path string, d os.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path == filepath.Join(dir, but):
			return filepath.SkipDir
		case strings.Contains(filepath.Base(path), "relay") || strings.Contains(path, "journal"):
			return nil // the store's own, which come and go
		}
		all = append(all, path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, "\n")
}

// Frames that come in another order than they were made in are refused and not put in
// order: each counter waits for the one before it.
func TestReorderedFrames(t *testing.T) { overBoth(t, testReorderedFrames) }

func testReorderedFrames(t *testing.T, by network) {
	gw := startGateway(t, gatewayOptions{network: by})
	alice, bob, ga, gb := pair(t, gw)
	var sends []*wire.Send
	for i, text := range []string{"one", "two", "three"} {
		s := alice.sealed(ga, text)
		s.SetSubmissionCounter(alice.counter + 1 + uint64(i))
		sends = append(sends, s)
	}
	for _, at := range []int{2, 1} {
		if code := alice.code(sends[at]); code != wire.CounterGap {
			t.Errorf("message %d before the first: %v", at+1, code)
		}
	}
	for i, s := range sends {
		if code := alice.code(s); code != wire.OK {
			t.Fatalf("message %d in its turn: %v", i+1, code)
		}
	}
	alice.counter += 3
	for _, want := range []string{"one", "two", "three"} {
		if got := bob.read(gb); got != want {
			t.Errorf("bob read %q, want %q", got, want)
		}
	}
}

// A device that floods is bounded, its neighbours are served meanwhile, and what was
// acknowledged of the flood arrives.
func TestFlood(t *testing.T) { overBoth(t, testFlood) }

func testFlood(t *testing.T, by network) {
	gw := startGateway(t, gatewayOptions{network: by, limits: Limits{Rate: 1e-6, Burst: 60}})
	mallory, victim, gm, gv := pair(t, gw)
	const n = 500
	flood := make([]chan wire.Answer, 0, n)
	counter := mallory.counter
	for range n {
		s := mallory.sealed(gm, "flood")
		counter++
		s.SetSubmissionCounter(counter)
		flood = append(flood, mallory.link.start(s))
	}
	neighbour, other := newDevice(t, gw, "carol").ready(), newDevice(t, gw, "dave").ready()
	g := neighbour.found()
	neighbour.add(g, neighbour.take("dave")...)
	neighbour.must(neighbour.sealed(g, "undisturbed"))
	joined := other.join()
	if got := other.read(joined); got != "undisturbed" {
		t.Errorf("dave read %q", got)
	}
	done, limited := 0, 0
	for _, c := range flood {
		switch (<-c).(*wire.Result).Code {
		case wire.OK:
			done++
		case wire.RateLimited:
			limited++
		}
	}
	if done == 0 || done > 60 || limited == 0 {
		t.Errorf("%d of the flood were taken, %d refused for their number", done, limited)
	}
	for range done {
		if got := victim.read(gv); got != "flood" {
			t.Fatalf("the victim read %q", got)
		}
	}
}
