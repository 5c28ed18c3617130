// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"valise/identity"
	"valise/wire"
)

// allow is an allowance of so many requests.
func allow(perSecond float64, burst int) *allowance {
	l := Limits{Rate: perSecond, Burst: burst}.withDefaults()
	return newAllowance(&l, silentAuditor())
}

func silentAuditor() *auditor {
	return newAuditor(func(context.Context, string, string, ...slog.Attr) error { return nil }, slog.New(slog.DiscardHandler))
}

// Each part of an allowance is used up by itself, has its own reason, and comes back.
func TestAllowance(t *testing.T) {
	limits := Limits{
		Rate: 1, Burst: 10, Bytes: 1, BytesBurst: wire.MaxFrame, Deliveries: 1, DeliveriesBurst: 20,
		Labels: map[string]Rate{"SECRET": {Rate: 1, Burst: 2}},
	}.withDefaults()
	now := time.Now()
	for _, c := range []struct {
		name              string
		bytes, deliveries int
		label             string
		fine              int // how many pass
		reason            string
		back              time.Duration // when one more does
	}{
		{"bytes", wire.MaxFrame / 4, 1, "", 4, "bytes_limited", wire.MaxFrame / 4 * time.Second},
		{"deliveries", 10, 5, "", 4, "fanout_limited", 5 * time.Second},
		{"label", 10, 1, "SECRET", 2, "label_limited", time.Second},
		{"another label", 10, 5, "OPEN", 4, "fanout_limited", 5 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := newAllowance(&limits, silentAuditor())
			for i := range c.fine {
				if r := a.send(now, c.bytes, c.deliveries, c.label); r != "" {
					t.Fatalf("message %d: %s", i, r)
				}
			}
			if r := a.send(now, c.bytes, c.deliveries, c.label); r != c.reason {
				t.Errorf("one more: %q, want %q", r, c.reason)
			}
			if r := a.send(now.Add(c.back+time.Second), c.bytes, c.deliveries, c.label); r != "" {
				t.Errorf("after %v: %q", c.back, r)
			}
		})
	}
	a := newAllowance(&limits, silentAuditor())
	if r := a.send(now, wire.MaxFrame*2, 1000, ""); r != "" {
		t.Errorf("the dearest message does not pass with a full allowance: %q", r)
	}
}

// Refusals of the kind that an honest device does not cause raise an alarm, and alarm
// after alarm keeps the device out for a while; honest ones never do.
func TestAlarm(t *testing.T) {
	limits := Limits{AlarmAfter: 5, AlarmWindow: time.Minute, HoldAfter: 2, HoldFor: time.Hour}.withDefaults()
	now := time.Now()
	a := newAllowance(&limits, silentAuditor())
	for range 1000 {
		if a.refused(now, "stale_epoch") != nothing {
			t.Fatal("an alarm for what an honest device runs into")
		}
	}
	count := func(a *allowance, now time.Time, what consequence) {
		t.Helper()
		for range limits.AlarmAfter {
			if c := a.refused(now, "not_member"); c != nothing {
				t.Fatalf("too early: %v", c)
			}
		}
		if c := a.refused(now, "not_member"); c != what {
			t.Fatalf("%v, want %v", c, what)
		}
	}
	count(a, now, alarmed)
	if a.isHeld(now) {
		t.Error("held after one alarm")
	}
	count(a, now.Add(30*time.Second), held)
	if !a.isHeld(now.Add(time.Minute)) || a.isHeld(now.Add(2*time.Hour)) {
		t.Error("not held for as long as it should be")
	}
	count(a, now.Add(3*time.Hour), alarmed) // the first one of a new series
	count(a, now.Add(3*time.Hour+2*time.Minute), alarmed)

	slow := newAllowance(&limits, silentAuditor())
	for i := range 100 {
		if c := slow.refused(now.Add(time.Duration(i)*13*time.Second), "not_member"); c != nothing {
			t.Fatalf("refusal %d, one every 13 s: %v", i, c)
		}
	}
}

// A device that is held is forgotten last: a stranger's many devices must not free it.
func TestHeldDevicesStay(t *testing.T) {
	limits := Limits{}.withDefaults()
	a := allowances{limits: &limits, audit: silentAuditor, all: make(map[identity.DeviceID]*allowance)}
	now := time.Now()
	bad := a.of(identity.DeviceID{1}, now)
	bad.held.Store(now.Add(time.Hour).UnixNano())
	for i := range maxAllowances + 10 {
		a.of(identity.DeviceID{2, byte(i), byte(i >> 8), byte(i >> 16)}, now)
	}
	if got := a.of(identity.DeviceID{1}, now); got != bad || !got.isHeld(now) {
		t.Error("the device that was held begins anew")
	}
	if len(a.all) > maxAllowances {
		t.Errorf("%d allowances are kept", len(a.all))
	}
}

// In a running gateway: the alarm stands in the audit stream, the device that goes on is
// disconnected and not let in again, and others are served.
func TestRepeatedRefusalsHoldADevice(t *testing.T) {
	gw := startGateway(t, gatewayOptions{limits: Limits{AlarmAfter: 3, HoldAfter: 2}})
	bad, good := newDevice(t, gw, "mallory").ready(), newDevice(t, gw, "alice").ready()
	for range 8 { // three pass, the fourth is an alarm; and again
		send := &wire.Send{Group: []byte("g"), Message: []byte("no message")}
		send.SetSubmissionCounter(bad.counter + 1)
		bad.link.start(send)
	}
	if code := bad.link.closed(t); code != wire.CloseNotAdmitted {
		t.Errorf("closed with code %d", code)
	}
	gw.audit.want(t, eventAlarm, "repeated_refusals")
	line := gw.audit.want(t, eventHeld, "repeated_refusals")
	if line.attrs["device"] != bad.id.String() || line.attrs["last"] != "malformed_message" {
		t.Errorf("the audit stream says %v", line)
	}
	if _, err := bad.tryConnect(false, 0); err == nil {
		t.Error("a device that is held gets a Welcome")
	}
	gw.audit.want(t, eventRefusedConnection, "held")
	good.found() // the control
}

// What is refused is not for nothing: a device that sends rubbish, or the same again and
// again, is told to wait, and others are served.
func TestRefusedSendsCostRequests(t *testing.T) {
	const burst = 60
	gw := startGateway(t, gatewayOptions{limits: Limits{Rate: 1e-6, Burst: burst, AlarmAfter: 1000}})
	bad, good := newDevice(t, gw, "mallory").ready(), newDevice(t, gw, "alice").ready()
	count := func(refused wire.Code, send func() wire.Code) (n int) {
		t.Helper()
		for code := send(); code == refused; code = send() {
			if n++; n > burst {
				t.Fatalf("%d requests are answered %v, and none is too much", n, refused)
			}
		}
		return n
	}
	last := wire.OK
	rubbish := &wire.Send{Group: []byte("g"), Message: []byte("no message")}
	if n := count(wire.Malformed, func() wire.Code { last = bad.submit(rubbish); return last }); n < burst/2 || last != wire.RateLimited {
		t.Errorf("after %d messages: %v", n, last)
	}
	gw.audit.want(t, eventRefusedRequest, "rate_limited")

	own := good.found()
	sealed := good.sealed(own, "once")
	good.must(sealed)
	again := func() wire.Code { last = good.code(sealed); return last }
	if n := count(wire.OK, again); n < burst/2 || last != wire.Unavailable {
		t.Errorf("after %d repetitions: %v", n, last)
	}
}

// Who is not a member of a conversation leaves no trace of it in memory.
func TestStrangersMakeNoCircles(t *testing.T) {
	r := newRoom(t, 0)
	header := r.header("SECRET", nil)
	mallory := r.device("mallory", cleared(r.upTo("SECRET"), identity.TierHardware))
	r.devices = append(r.devices, mallory)
	if reason := r.asks(3, header, nil); reason != "not_member" || len(r.known.all) != 0 {
		t.Errorf("%q; %d conversations", reason, len(r.known.all))
	}
	if reason := r.asks(0, header, nil); reason != "" || len(r.known.all) != 1 {
		t.Errorf("the control: %q; %d conversations", reason, len(r.known.all))
	}
}
