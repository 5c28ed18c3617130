// SPDX-License-Identifier: Apache-2.0

package wan

import (
	"net"
	"net/netip"
	"slices"
	"strconv"
	"testing"
	"time"
)

// road is an echo behind a relay, and a client before it.
type road struct {
	t      *testing.T
	relay  *Relay
	client *net.UDPConn
}

func newRoad(t *testing.T) *road {
	t.Helper()
	loop := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}
	echo, err := net.ListenUDP("udp", loop)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { echo.Close() })
	go func() {
		buf := make([]byte, maxPacket)
		for {
			n, from, err := echo.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			_, _ = echo.WriteToUDPAddrPort(buf[:n], from)
		}
	}()
	inside, err := net.ListenUDP("udp", loop)
	if err != nil {
		t.Fatal(err)
	}
	r := &road{t: t}
	if r.relay, err = New(Config{Inside: inside, To: echo.LocalAddr().(*net.UDPAddr).AddrPort(), Seed: 5}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.relay.Close() })
	if r.client, err = net.DialUDP("udp", nil, inside.LocalAddr().(*net.UDPAddr)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.client.Close() })
	return r
}

// travel sends numbers and returns which came back, in their order. A few are under way
// at a time, so that no socket's buffer overflows; then what still comes is waited for.
func (r *road) travel(n int) (back []int) {
	r.t.Helper()
	buf := make([]byte, 100)
	for i := range n {
		if _, err := r.client.Write([]byte(strconv.Itoa(i))); err != nil {
			r.t.Fatal(err)
		}
		if (i+1)%20 != 0 && i+1 < n {
			continue
		}
		for {
			patience := 2 * overtake
			if i+1 == n { // what was held back comes on a busy machine, too
				patience = 2 * time.Second
			}
			_ = r.client.SetReadDeadline(time.Now().Add(patience))
			m, err := r.client.Read(buf)
			if err != nil {
				break
			}
			got, err := strconv.Atoi(string(buf[:m]))
			if err != nil {
				r.t.Fatalf("a packet was altered: %q", buf[:m])
			}
			back = append(back, got)
		}
	}
	return back
}

// Each kind of weather does what it says and is counted; fair weather does nothing.
func TestWeather(t *testing.T) {
	const n = 200
	for name, c := range map[string]struct {
		weather Weather
		check   func(back []int, s Stats) bool
	}{
		"fair": {Weather{}, func(back []int, s Stats) bool {
			return len(back) == n && slices.IsSorted(back) && s == Stats{Carried: 2 * n}
		}},
		"loss": {Weather{Loss: 0.2}, func(back []int, s Stats) bool {
			return len(back) < n && len(back) > n/4 && slices.IsSorted(back) && s.Lost == int64(n-len(back))
		}},
		"duplication": {Weather{Duplicate: 0.2}, func(back []int, s Stats) bool {
			return len(back) == n+int(s.Duplicated) && s.Duplicated > 0 && len(slices.Compact(slices.Sorted(slices.Values(back)))) == n
		}},
		"reordering": {Weather{Reorder: 0.2}, func(back []int, s Stats) bool {
			return len(back) == n && !slices.IsSorted(back) && s.Reordered > 0 && len(slices.Compact(slices.Sorted(slices.Values(back)))) == n
		}},
		"cut": {Weather{Cut: true}, func(back []int, s Stats) bool { return len(back) == 0 && s == Stats{Cut: n} }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRoad(t)
			r.relay.Set(c.weather)
			if back := r.travel(n); !c.check(back, r.relay.Stats()) {
				t.Errorf("%d of %d back (%v); %v", len(back), n, back, r.relay.Stats())
			}
		})
	}
}

// A delayed packet comes later, and no earlier than it was said.
func TestDelay(t *testing.T) {
	r := newRoad(t)
	r.relay.Set(Weather{Delay: 40 * time.Millisecond, Jitter: 5 * time.Millisecond})
	begin := time.Now()
	if back := r.travel(1); len(back) != 1 || time.Since(begin) < 80*time.Millisecond {
		t.Errorf("%d packets after %v", len(back), time.Since(begin))
	}
	if s := r.relay.Stats(); s.Delayed != 2 {
		t.Errorf("%v", s)
	}
}

func TestNewRefuses(t *testing.T) {
	if _, err := New(Config{To: netip.MustParseAddrPort("127.0.0.1:1")}); err == nil {
		t.Error("a relay without a socket")
	}
}
