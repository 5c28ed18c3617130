// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"runtime"
	"testing"
	"time"

	"valise/wire"
)

// rests waits until nobody waits for something to send to the device.
func (d *testDevice) rests() {
	d.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		down := d.gw.session(d.id).down.Load()
		down.mu.Lock()
		idle := !down.runs && !down.over
		down.mu.Unlock()
		if idle {
			return
		}
		if time.Now().After(deadline) {
			d.t.Fatal("somebody still waits on an idle connection")
		}
		runtime.Gosched()
	}
}

// A connection over which nothing is sent has nobody who waits for something to send;
// whatever comes finds somebody who does, each time.
func TestIdleDeliveryRests(t *testing.T) { overBoth(t, testIdleDeliveryRests) }

func testIdleDeliveryRests(t *testing.T, by network) {
	gw := startGateway(t, gatewayOptions{network: by})
	alice, bob, ga, _ := pair(t, gw) // the Welcome was number 1
	told := func(what string, want wire.NoticeCode) {
		t.Helper()
		for {
			select {
			case code := <-bob.link.notices:
				if code == want {
					return
				}
			case <-time.After(patience):
				t.Fatalf("%s was not told", what)
			}
		}
	}
	for number := uint64(2); number < 4; number++ {
		bob.rests()
		alice.must(alice.sealed(ga, "x"))
		if m := bob.next(); m.Number != number {
			t.Fatalf("delivery %d, want %d", m.Number, number)
		}
		bob.ack(number)
		bob.settled(number)
	}
	bob.rests()
	for len(bob.link.notices) > 0 {
		<-bob.link.notices // that a KeyPackage was taken
	}
	gw.notify(bob.id, wire.NoticeKeyPackagesLow)
	told("a notice", wire.NoticeKeyPackagesLow)
	bob.rests()
	gw.session(bob.id).bundleChanged()
	told("the bundle", wire.NoticeBundle)
	bob.rests()
}
