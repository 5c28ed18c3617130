// SPDX-License-Identifier: Apache-2.0

package callers

import (
	"strconv"
	"testing"
	"time"
)

func TestLimiterCountsEachCaller(t *testing.T) {
	l, now := NewLimiter(1, 2), time.Now()
	allowed := func(key string, at time.Time) bool { ok, _ := l.Allow(key, at); return ok }
	if !allowed("a", now) || !allowed("a", now) {
		t.Error("the burst was not granted")
	}
	if allowed("a", now) {
		t.Error("more than the burst was granted")
	}
	if !allowed("b", now) {
		t.Error("one caller's flood was counted against another")
	}
	if !allowed("a", now.Add(time.Second)) || allowed("a", now.Add(time.Second)) {
		t.Error("one second must grant one request")
	}
}

func TestLimiterIsBounded(t *testing.T) {
	l, now := NewLimiter(1, 1), time.Now()
	for i := range maxCallers + 10 {
		l.Allow(strconv.Itoa(i), now)
		if len(l.callers) > maxCallers {
			t.Fatal("it grows without bound")
		}
	}
}

func TestLimiterReportsOnceAMinute(t *testing.T) {
	l, now := NewLimiter(1, 1), time.Now()
	reports := 0
	for range 5 {
		if _, report := l.Allow("a", now); report {
			reports++
		}
	}
	if _, report := l.Allow("a", now.Add(time.Microsecond)); reports != 1 || report {
		t.Errorf("%d reports of one flood", reports)
	}
	l.Allow("a", now.Add(2*reportEvery))
	if _, report := l.Allow("a", now.Add(2*reportEvery)); !report {
		t.Error("the next flood was not reported")
	}
}

// An IPv6 customer has 2^64 addresses, and one share.
func TestOrigin(t *testing.T) {
	for pair, same := range map[[2]string]bool{
		{"192.0.2.1:1", "192.0.2.1:2"}:                 true,
		{"192.0.2.1:1", "192.0.2.1"}:                   true,
		{"192.0.2.1:1", "192.0.2.2:1"}:                 false,
		{"[::ffff:192.0.2.1]:1", "192.0.2.1:1"}:        true,
		{"[2001:db8:0:1::1]:1", "[2001:db8:0:1::2]:1"}: true,
		{"[2001:db8:0:1::1]:1", "2001:db8:0:1::3"}:     true,
		{"[2001:db8:0:1::1]:1", "[2001:db8:0:2::1]:1"}: false,
		{"[fe80::1%eth0]:1", "[fe80::2%eth1]:1"}:       true,
		{"@", "unix"}:                                  true,
		{"@", "192.0.2.1:1"}:                           false,
	} {
		if a, b := Origin(pair[0]), Origin(pair[1]); (a == b) != same {
			t.Errorf("%s and %s: %v and %v", pair[0], pair[1], a, b)
		}
	}
}
