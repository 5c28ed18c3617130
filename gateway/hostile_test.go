// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"valise/gateway/mailbox"
	"valise/wire"
)

// A connection that is itself replaced while it waits for the one before it
// does not let its successor pass: Welcome says what is done only when nothing
// is under way any more. spec/wire.md, Section 5.1.
func TestReplacementWaitsForTheFirst(t *testing.T) { overBoth(t, testReplacementWaitsForTheFirst) }

func testReplacementWaitsForTheFirst(t *testing.T, by network) {
	w := &watched{reads: make(map[string]int), entered: make(chan struct{}, 64), door: make(chan struct{})}
	gw := startGateway(t, gatewayOptions{network: by, wrap: func(s mailbox.Store) mailbox.Store { w.Store = s; return w }})
	alice, _, ga, _ := pair(t, gw)
	w.held.Store(true)
	before := alice.counter
	first := alice.link
	send := alice.sealed(ga, "under way")
	send.SetSubmissionCounter(before + 1)
	first.start(send)
	<-w.entered

	type outcome struct {
		link *link
		err  error
	}
	dial := func() chan outcome {
		c := make(chan outcome, 1)
		go func() {
			l, err := alice.tryConnect(false, 0)
			c <- outcome{l, err}
		}()
		return c
	}
	second := dial()
	first.closed(t)
	third := dial()
	if o := <-second; o.err == nil {
		t.Fatal("the second connection was welcomed while the first was under way")
	}
	var last outcome
	select {
	case last = <-third:
		close(w.door)
	case <-time.After(300 * time.Millisecond):
		close(w.door)
		last = <-third
	}
	if last.err != nil {
		t.Fatal(last.err)
	}
	if got := last.link.welcome.Counter; got != before+1 {
		t.Errorf("Welcome says %d, but %d was done", got, before+1)
	}
}

// Connecting again gives a device no new allowance in the audit stream.
func TestReconnectingDoesNotFloodTheAudit(t *testing.T) {
	gw := startGateway(t, gatewayOptions{})
	alice := newDevice(t, gw, "alice")
	began := time.Now()
	alice.connect(true, 0)
	for range 3 {
		var last chan wire.Answer
		for range auditBurst {
			last = alice.link.start(&wire.Report{Delivery: 1, Group: []byte("g"), Reason: "altered"})
		}
		<-last
		alice.connect(false, 0)
	}
	most := auditBurst + auditRate*int(time.Since(began)/time.Second+1)
	if n := gw.audit.count(eventRejected, "altered"); n > most || n < auditBurst/2 {
		t.Errorf("%d lines, at most %d are allowed", n, most)
	}
}

// One device cannot use up the connections of all: beyond a few that have said
// nothing it is sent away, and another device gets through.
func TestConnectionsOfOneDevice(t *testing.T) { overBoth(t, testConnectionsOfOneDevice) }

func testConnectionsOfOneDevice(t *testing.T, by network) {
	gw := startGateway(t, gatewayOptions{network: by})
	alice, bob := newDevice(t, gw, "alice"), newDevice(t, gw, "bob")
	for range maxDeviceConnections {
		conn, err := dialRaw(t, gw.address, alice.tlsConfig())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.CloseWithError(0, "")
	}
	until(t, "all of them served", func() bool { // a dial returns before that
		gw.Gateway.mu.Lock()
		defer gw.Gateway.mu.Unlock()
		return gw.counts[alice.id] == maxDeviceConnections
	})
	gw.audit.wantNo(t, eventRefusedConnection, "too_many_connections")
	if _, err := alice.tryConnect(true, 0); err == nil {
		t.Error("one connection more was welcomed")
	}
	gw.audit.want(t, eventRefusedConnection, "too_many_connections")
	bob.connect(true, 0)
}

// wantNo fails if a line is there.
func (a *auditLog) wantNo(t *testing.T, event, reason string) {
	t.Helper()
	if n := a.count(event, reason); n != 0 {
		t.Errorf("%d audit lines %s/%s, want none", n, event, reason)
	}
}

// Nothing is delivered to a device whose certificate has run out, though no
// timer has noticed because the clock was set; one whose certificate runs on
// gets its mail.
func TestNoDeliveryAfterExpiry(t *testing.T) { overBoth(t, testNoDeliveryAfterExpiry) }

func testNoDeliveryAfterExpiry(t *testing.T, by network) {
	var ahead atomic.Int64
	gw := startGateway(t, gatewayOptions{network: by, clock: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }})
	alice := newDevice(t, gw, "alice").ready()
	bob := newDeviceOf(t, gw, gw.authority, "bob", newKey(t), -time.Hour, 2*time.Hour).ready()
	carol := newDevice(t, gw, "carol").ready()
	ga := alice.found()
	alice.add(ga, append(alice.take("bob"), alice.take("carol")...)...)
	bob.join()
	gc := carol.join()
	ahead.Store(int64(3 * time.Hour))
	alice.must(alice.sealed(ga, "late"))
	if got := carol.read(gc); got != "late" {
		t.Fatalf("carol read %q", got)
	}
	if code := bob.link.closed(t); code != wire.CloseExpired {
		t.Errorf("bob's connection was closed with %d", code)
	}
	bob.nothing(time.Second)
	gw.audit.want(t, eventClosedConnection, "expired")
}

// Maintenance folds the write-ahead log into the database.
func TestWriteAheadLogIsTruncated(t *testing.T) {
	gw := startGateway(t, gatewayOptions{})
	newDevice(t, gw, "alice").ready()
	size := func() int64 {
		info, err := os.Stat(filepath.Join(gw.dir, "relay.db-wal"))
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	if size() == 0 {
		t.Fatal("nothing was written to the log")
	}
	gw.tidyOnce(t.Context())
	if n := size(); n != 0 {
		t.Errorf("%d bytes are left in the log", n)
	}
}

// Opening transfers uses up the same allowance as requests do; within it they
// go on.
func TestTransfersAreRated(t *testing.T) { overBoth(t, testTransfersAreRated) }

func testTransfersAreRated(t *testing.T, by network) {
	gw := startGateway(t, gatewayOptions{network: by, limits: Limits{Rate: 0.001, Burst: 30}})
	alice, _, ga, _ := pair(t, gw)
	data, id := randomFile(10)
	if code := alice.put(ga.ID(), id, data); code != wire.OK {
		t.Fatal(code)
	}
	codes := make(map[wire.Code]int)
	for i := range 30 {
		_, code := alice.get([32]byte{9}, 0)
		codes[code]++
		_, ready := alice.beginPut([]byte{9, byte(i)}, id, 10)
		codes[ready.Code]++
	}
	if codes[wire.NotFound] == 0 || codes[wire.UnknownGroup] == 0 || codes[wire.RateLimited] < 30 {
		t.Errorf("answers: %v", codes)
	}
	gw.audit.want(t, eventRefusedBlob, "rate_limited")
}

// A request uses up as much of the rate as it costs the gateway: a hundred
// KeyPackages are a hundred signatures and chains to check, not one.
func TestLargeRequestsCountMore(t *testing.T) {
	gw := startGateway(t, gatewayOptions{limits: Limits{Rate: 0.001, Burst: 30}})
	for name, many := range map[string]int{"alice": 20, "bob": 1} {
		d := newDevice(t, gw, name)
		d.connect(true, 0)
		d.publish(many, false)
		kp, _ := d.keyPackage(false)
		put := &wire.PutKeyPackages{}
		for range many {
			put.Packages = append(put.Packages, kp.Message())
		}
		want := wire.OK
		if many > 1 {
			want = wire.RateLimited
		}
		if code := d.submit(put); code != want {
			t.Errorf("twice %d KeyPackages: %v, want %v", many, code, want)
		}
	}
}
