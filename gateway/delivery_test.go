// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"bytes"
	"runtime"
	"testing"
	"time"

	"valise/gateway/mailbox"
	"valise/mls"
	"valise/wire"
)

// Deliveries are numbered from 1 without gaps, and stay until acknowledged.
func TestDeliveryKeepsUntilAcknowledged(t *testing.T) {
	overBoth(t, testDeliveryKeepsUntilAcknowledged)
}

func testDeliveryKeepsUntilAcknowledged(t *testing.T, by network) {
	gw := startGateway(t, gatewayOptions{network: by})
	alice, bob, ga, _ := pair(t, gw) // the Welcome was number 1 and is acknowledged
	const n = 10
	for range n {
		alice.must(alice.sealed(ga, "x"))
	}
	for i := range n {
		if m := bob.next(); m.Number != uint64(i+2) || m.Sender != alice.id || !bytes.Equal(m.Group, ga.ID()) {
			t.Fatalf("delivery %d: %+v", i, m)
		}
	}
	bob.ack(4)
	bob.settled(4)

	// A cursor behind: everything unacknowledged comes again, in order.
	bob.connect(false, 4)
	if bob.link.welcome.Acknowledged != 4 {
		t.Fatalf("acknowledged %d", bob.link.welcome.Acknowledged)
	}
	bob.listen(4)
	for i := 5; i <= n+1; i++ {
		if m := bob.next(); m.Number != uint64(i) {
			t.Fatalf("delivery %d came as %d", i, m.Number)
		}
	}
	bob.drained()
	// What Resume names counts as acknowledged.
	bob.connect(false, 8)
	bob.listen(8)
	for i := 9; i <= n+1; i++ {
		if m := bob.next(); m.Number != uint64(i) {
			t.Fatalf("delivery %d came as %d", i, m.Number)
		}
	}
	bob.settled(8)
}

// settled waits until an acknowledgement has reached the store.
func (d *testDevice) settled(number uint64) {
	d.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		s, err := d.gw.cfg.Store.Arrive(d.t.Context(), mailbox.Arrival{
			Device: d.id, Address: d.local + "@" + d.gw.authority.domain, Chain: d.chain, Time: time.Now(),
		})
		if err != nil {
			d.t.Fatal(err)
		}
		if s.Acknowledged == number {
			return
		}
		if time.Now().After(deadline) {
			d.t.Fatalf("acknowledged %d, want %d", s.Acknowledged, number)
		}
		runtime.Gosched()
	}
}

// drained waits for NoticeDrained.
func (d *testDevice) drained() {
	d.t.Helper()
	for {
		select {
		case code := <-d.link.notices:
			if code == wire.NoticeDrained {
				return
			}
		case <-time.After(patience):
			d.t.Fatalf("%s: no NoticeDrained", d.local)
		}
	}
}

// NoticeDrained comes after what was stored before Resume, and at once when
// that is nothing.
func TestDrainedNotice(t *testing.T) { overBoth(t, testDrainedNotice) }

func testDrainedNotice(t *testing.T, by network) {
	gw := startGateway(t, gatewayOptions{network: by})
	alice, bob, ga, _ := pair(t, gw)
	alice.drained()
	bob.drained()
	_ = bob.link.conn.CloseWithError(0, "")
	const n = 500 // more than the window
	for i := range n {
		s := alice.sealed(ga, "x")
		s.SetSubmissionCounter(alice.counter + 1)
		alice.counter++
		if c := alice.link.start(s); i%100 == 99 {
			<-c
		}
	}
	bob.connect(false, 1)
	bob.listen(1)
	for i := range n {
		m := bob.next()
		if m.Number != uint64(i+2) {
			t.Fatalf("delivery %d came as %d", i, m.Number)
		}
		if i%50 == 49 {
			bob.ack(m.Number)
		}
	}
	bob.drained()
	if at := bob.link.drainedAt.Load() - 1; at != n {
		t.Errorf("drained was said after %d of %d", at, n)
	}
}

// A reader that acknowledges nothing gets a window and no more; memory stays
// bounded, others are not held up, and one acknowledgement opens the window.
func TestSlowReaderIsBounded(t *testing.T) { overBoth(t, testSlowReaderIsBounded) }

func testSlowReaderIsBounded(t *testing.T, by network) {
	gw := startGateway(t, gatewayOptions{network: by})
	alice, bob, ga, gb := pair(t, gw)
	const n = wire.DeliveryWindow + 50
	var last chan wire.Answer
	for range n {
		s := alice.sealed(ga, "x")
		s.SetSubmissionCounter(alice.counter + 1)
		alice.counter++
		last = alice.link.start(s)
	}
	if a := (<-last).(*wire.Result); a.Code != wire.OK {
		t.Fatal(a.Code)
	}
	for range wire.DeliveryWindow {
		bob.next()
	}
	bob.nothing(300 * time.Millisecond)
	bob.must(bob.sealed(gb, "I still send"))
	if alice.read(ga) != "I still send" {
		t.Fatal("alice was held up")
	}
	bob.ack(1 + 25)
	for range 25 {
		bob.next()
	}
	bob.nothing(200 * time.Millisecond)
	bob.ack(1 + wire.DeliveryWindow)
	for range 25 {
		bob.next()
	}
}

// The window counts bytes too.
func TestWindowCountsBytes(t *testing.T) { overBoth(t, testWindowCountsBytes) }

func testWindowCountsBytes(t *testing.T, by network) {
	gw := startGateway(t, gatewayOptions{network: by})
	alice, bob, ga, _ := pair(t, gw)
	big := string(bytes.Repeat([]byte("x"), 200<<10))
	const n = 30 // 6 MB
	for range n {
		alice.must(alice.sealed(ga, big))
	}
	got, size := 0, 0
	var number uint64
	for quiet := false; !quiet; {
		select {
		case m := <-bob.link.deliveries:
			got, number = got+1, m.Number
			size += len(m.Payload)
		case <-time.After(300 * time.Millisecond):
			quiet = got > 0
		}
	}
	if size > wire.DeliveryWindowBytes+wire.MaxMessage || got == 0 || got == n {
		t.Fatalf("%d deliveries of %d bytes without an acknowledgement", got, size)
	}
	bob.ack(number)
	for ; got < n; got++ {
		bob.ack(bob.next().Number)
	}
}

// A full mailbox refuses content, stores nothing of it, and still lets the group
// go on; room comes back with acknowledgements.
func TestFullMailboxRefuses(t *testing.T) {
	gw := startGateway(t, gatewayOptions{quota: mailbox.Quota{Messages: 5}})
	alice, bob, ga, gb := pair(t, gw)
	bob.settled(1)
	_ = bob.link.conn.CloseWithError(0, "")
	for range 5 {
		alice.must(alice.sealed(ga, "x"))
	}
	full := alice.sealed(ga, "one too many")
	if code := alice.submit(full); code != wire.MailboxFull {
		t.Fatalf("the sixth message: %v", code)
	}
	line := gw.audit.want(t, eventRefusedRequest, "mailbox_full")
	if line.attrs["recipient"] != bob.id.String() {
		t.Errorf("the line says %v", line.attrs)
	}
	p, commit := alice.commitOf(ga)
	alice.must(commit)
	if err := ga.Apply(p.Staged); err != nil {
		t.Fatal(err)
	}
	bob.connect(false, 1)
	bob.listen(1)
	for range 5 {
		if bob.read(gb) != "x" {
			t.Fatal("a message is missing")
		}
	}
	if bob.read(gb) != "commit" {
		t.Fatal("the commit is missing")
	}
	bob.settled(7)
	alice.must(alice.sealed(ga, "room again"))
	if got := bob.read(gb); got != "room again" {
		t.Errorf("bob read %q", got)
	}
}

// A message above the bucket is refused; others are not affected.
func TestRateLimit(t *testing.T) {
	gw := startGateway(t, gatewayOptions{limits: Limits{Rate: 0.001, Burst: 12}})
	alice, bob, ga, gb := pair(t, gw)
	for range 12 {
		code := alice.submit(alice.sealed(ga, "x"))
		if code == wire.RateLimited {
			gw.audit.want(t, eventRefusedRequest, "rate_limited")
			bob.must(bob.sealed(gb, "not me"))
			// Connecting again fills no bucket.
			alice.connect(false, 0)
			if code := alice.submit(alice.sealed(ga, "x")); code != wire.RateLimited {
				t.Errorf("after connecting again: %v", code)
			}
			return
		}
	}
	t.Error("nothing was refused")
}

// KeyPackages are handed out once each, then the last resort again and again;
// the owner is told when few are left.
func TestKeyPackages(t *testing.T) {
	gw := startGateway(t, gatewayOptions{})
	alice, bob := newDevice(t, gw, "alice").ready(), newDevice(t, gw, "bob")
	ask := &wire.GetKeyPackages{Suite: uint16(mls.SuiteP256), Address: "bob@interieur.example"}
	bob.connect(true, 0)
	if code := alice.code(ask); code != wire.NotFound {
		t.Errorf("before anything was published: %v", code)
	}
	bob.listen(0)
	bob.publish(2, false)
	bob.publish(1, true)
	seen := make(map[string]bool)
	for i := range 4 {
		answer, ok := alice.ask(ask).(*wire.KeyPackages)
		if !ok || len(answer.Entries) != 1 {
			t.Fatalf("request %d: %+v", i, answer)
		}
		e := answer.Entries[0]
		if e.Device != bob.id || e.LastResort != (i >= 2) {
			t.Errorf("request %d: %+v", i, e)
		}
		if !e.LastResort && seen[string(e.Package)] {
			t.Error("a one-time package was handed out twice")
		}
		seen[string(e.Package)] = true
	}
	select {
	case code := <-bob.link.notices:
		if code == wire.NoticeDrained {
			code = <-bob.link.notices
		}
		if code != wire.NoticeKeyPackagesLow {
			t.Errorf("notice %d", code)
		}
	case <-time.After(patience):
		t.Error("no notice")
	}
	if code := alice.code(&wire.GetKeyPackages{Suite: uint16(mls.SuiteP384), Address: "bob@interieur.example"}); code != wire.NotFound {
		t.Errorf("another suite: %v", code)
	}
	if code := alice.code(&wire.GetKeyPackages{Suite: uint16(mls.SuiteP256), Address: "alice@interieur.example"}); code != wire.NotFound {
		t.Errorf("the asker's own device: %v", code)
	}
	dir, ok := alice.ask(&wire.GetDirectory{Prefix: "bo"}).(*wire.Directory)
	if !ok || len(dir.Chains) != 1 || !bytes.Equal(dir.Chains[0][0], bob.chain[0]) {
		t.Errorf("directory: %+v", dir)
	}
	if dir, ok := alice.ask(&wire.GetDirectory{Prefix: "b_"}).(*wire.Directory); !ok || len(dir.Chains) != 0 {
		t.Errorf("a prefix with a wildcard found %+v", dir)
	}
}

// A KeyPackage that is not this device's, not valid or not of a known form is
// refused; the honest one beside it is taken.
func TestKeyPackageRefusals(t *testing.T) {
	gw := startGateway(t, gatewayOptions{quota: mailbox.Quota{Packages: 3}})
	alice, bob := newDevice(t, gw, "alice"), newDevice(t, gw, "bob")
	alice.connect(true, 0)
	honest, _ := alice.keyPackage(false)
	theirs, _ := bob.keyPackage(false)
	lastResort, _ := alice.keyPackage(true)
	renewed := newDeviceOf(t, gw, gw.authority, "alice", newKey(t), -time.Hour, time.Hour)
	sibling, _ := renewed.keyPackage(false)
	old, _, err := mls.NewKeyPackage(alice.mls, mls.KeyPackageParams{
		Suite: mls.SuiteP256, Lifetime: mls.NewLifetime(time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)),
	})
	if err != nil {
		t.Fatal(err)
	}
	message := honest.Message()
	for _, test := range []struct {
		name       string
		packages   [][]byte
		lastResort bool
		code       wire.Code
		reason     string
	}{
		{"another device's", [][]byte{theirs.Message()}, false, wire.InvalidKeyPackage, "invalid_key_package"},
		{"another device's of the same person", [][]byte{sibling.Message()}, false, wire.InvalidKeyPackage, "invalid_key_package"},
		{"altered", [][]byte{flip(message, len(message)-4)}, false, wire.InvalidKeyPackage, "invalid_key_package"},
		{"cut off", [][]byte{message[:len(message)-1]}, false, wire.InvalidKeyPackage, "malformed_key_package"},
		{"over", [][]byte{old.Message()}, false, wire.InvalidKeyPackage, "invalid_key_package"},
		{"a last resort as one-time", [][]byte{lastResort.Message()}, false, wire.InvalidKeyPackage, "last_resort_mismatch"},
		{"one-time as last resort", [][]byte{message}, true, wire.InvalidKeyPackage, "last_resort_mismatch"},
		{"a bad one behind a good one", [][]byte{message, theirs.Message()}, false, wire.InvalidKeyPackage, "invalid_key_package"},
		{"too many", [][]byte{message, message, message, message}, false, wire.TooLarge, "too_large"},
	} {
		if code := alice.submit(&wire.PutKeyPackages{LastResort: test.lastResort, Packages: test.packages}); code != test.code {
			t.Errorf("%s: %v, want %v", test.name, code, test.code)
		}
		gw.audit.want(t, eventRefusedRequest, test.reason)
	}
	if w := alice.connect(false, 0); w.KeyPackages != 0 || w.Counter != 0 {
		t.Errorf("something of it was kept: %+v", w)
	}
	alice.must(&wire.PutKeyPackages{Packages: [][]byte{message}})
	alice.must(&wire.PutKeyPackages{LastResort: true, Packages: [][]byte{lastResort.Message()}})
}

// A recipient's complaint stands in the audit stream, whatever it says.
func TestReport(t *testing.T) {
	gw := startGateway(t, gatewayOptions{})
	alice := newDevice(t, gw, "alice")
	alice.connect(true, 0)
	for reason, want := range map[string]string{"altered": "altered", "Not A Code": "unspecified"} {
		if code := alice.code(&wire.Report{Delivery: 7, Group: []byte("g"), Sender: [32]byte{9}, Reason: reason}); code != wire.OK {
			t.Fatal(code)
		}
		line := gw.audit.want(t, eventRejected, want)
		if line.attrs["device"] != alice.id.String() || line.attrs["delivery"] != "7" {
			t.Errorf("the line says %v", line.attrs)
		}
	}
}
