// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"testing"

	"valise/wire"
)

// spec/wire.md, Section 3.1: a message may leave out what it has in common with the one
// before it, and is the same submission in either form.
func TestShortForms(t *testing.T) { overBoth(t, testShortForms) }

func testShortForms(t *testing.T, by network) {
	gw := startGateway(t, gatewayOptions{network: by})
	alice, bob, ga, gb := pair(t, gw)
	first, second := alice.sealed(ga, "first"), alice.sealed(ga, "second")
	for i, s := range []*wire.Send{first, second} {
		s.SetSubmissionCounter(alice.counter + 1 + uint64(i))
	}
	// As a client may write them: both in one piece.
	one, two := alice.link.raw(t, first), alice.link.raw(t, second)
	if wire.Type(two[0]) != wire.TypeSendNext {
		t.Fatalf("the second message has no short form: %#x", two[0])
	}
	if _, err := alice.link.control.Write(append(one, two...)); err != nil {
		t.Fatal(err)
	}
	if a, b := bob.read(gb), bob.read(gb); a != "first" || b != "second" {
		t.Errorf("bob read %q, %q", a, b)
	}
	alice.counter += 2
	// In its long form, over a new connection, it is known; other bytes are not it.
	alice.connect(false, 0)
	if code := alice.again(second, alice.counter); code != wire.OK {
		t.Errorf("the long form of what came in the short one: %v", code)
	}
	if code := alice.again(first, alice.counter); code != wire.StateConflict {
		t.Errorf("other bytes under its counter: %v", code)
	}
	// A short form says nothing on a stream that had no message yet.
	alice.connect(false, 0)
	before := gw.audit.count(eventClosedConnection, "malformed_frame")
	if _, err := alice.link.control.Write(two); err != nil {
		t.Fatal(err)
	}
	if code := alice.link.closed(t); code != wire.CloseProtocol {
		t.Errorf("closed with %d", code)
	}
	gw.audit.wantCount(t, eventClosedConnection, "malformed_frame", before+1)
}

// write sends a request in its short form, if it has one; l.mu is held.
func (l *link) write(r wire.Request) error {
	frame, err := wire.Marshal(r)
	if err == nil {
		_, err = l.control.Write(l.said.Shorten(frame, 0))
	}
	return err
}

// raw encodes a request as the next one on the control stream; its answer is waited for
// by nobody.
func (l *link) raw(t *testing.T, r wire.Request) []byte {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lastID++
	r.SetRequestID(l.lastID)
	frame, err := wire.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return l.said.Shorten(frame, 0)
}
