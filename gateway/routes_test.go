// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"valise/bulletin"
	"valise/gateway/group"
	"valise/identity"
	"valise/mls"
	"valise/policy/bundle"
	"valise/wire"
)

// A room is a conversation under a bundle with rules, and senders in it.
type room struct {
	*desk
	t       *testing.T
	devices []*identity.Device
	view    *group.View
	known   *circles
	limits  *allowance
}

func newRoom(t *testing.T, most int) *room {
	d := newDesk(t, "", bundle.Domains{Unlabelled: true})
	r := &room{desk: d, t: t, known: &circles{cache: routeCache{most: most}}, limits: allow(1e9, 1e9)}
	for _, name := range []string{"alice", "bob", "carol"} {
		r.devices = append(r.devices, d.device(name, cleared(d.upTo("SECRET"), identity.TierHardware)))
	}
	r.view = group.NewView([]byte("g"), 1, r.devices...)
	return r
}

// asks has a device send with a header, and returns the reason of a refusal.
func (r *room) asks(from int, header []byte, set *bulletin.Set) string {
	refused := admit(&snapshot{
		now: time.Now(), device: r.devices[from], domain: home, rules: r.state, allowance: r.limits, group: r.view, set: set,
		circles: r.known,
	}, &message{group: []byte("g"), epoch: 1, info: &mls.MessageInfo{GroupID: []byte("g"), Epoch: 1, Content: mls.ContentApplication, AuthenticatedData: header}})
	if refused == nil {
		return ""
	}
	return refused.reason
}

// kept counts the routes, and checks the account of their bytes.
func (r *room) kept() (n int) {
	r.t.Helper()
	c := &r.known.cache
	c.mu.Lock()
	defer c.mu.Unlock()
	used := 0
	for e := c.order.Front(); e != nil; e = e.Next() {
		each := e.Value.(*route)
		used += each.size()
		if each.in.paths[each.key] != each {
			r.t.Error("a route is in the account and not in its conversation")
		}
	}
	if used != c.used {
		r.t.Errorf("%d bytes are on the account, the routes have %d", c.used, used)
	}
	return c.order.Len()
}

// What senders choose does not grow the memory without end: invalid labels are not kept,
// valid ones within a bound, and a route in use outlives those that are not.
func TestRoutesAreBounded(t *testing.T) {
	r := newRoom(t, 64<<10)
	honest, set := r.header("SECRET", nil), bulletin.NewSet()
	for i := range 500 {
		invalid := r.header(fmt.Sprintf("COLOUR %d", i), nil)
		if reason := r.asks(0, invalid, set); reason != "unknown_classification" {
			t.Fatalf("%q", reason)
		}
	}
	if n := r.kept(); n != 0 {
		t.Errorf("%d routes with labels that are invalid are kept", n)
	}
	if reason := r.asks(0, honest, set); reason != "" || r.kept() != 1 {
		t.Fatalf("%q; %d routes", reason, r.kept())
	}
	// Each way in which bob may write counts, and he comes back by other certificates.
	path := func() *bundle.Path {
		c := r.known.of(r.view, r.state, set)
		h, err := wire.ReadHeader(honest)
		if err != nil {
			t.Fatal(err)
		}
		return c.routes.find(r.devices[0].ID, h.Precedence, h.Label)
	}
	first := path()
	for i := range 500 {
		renewed := *r.devices[1]
		leaf := *renewed.Leaf
		leaf.Raw = append([]byte{byte(i), byte(i >> 8)}, leaf.Raw...)
		renewed.Leaf = &leaf
		refused := admit(&snapshot{
			now: time.Now(), device: &renewed, domain: home, rules: r.state, allowance: r.limits, group: r.view, set: set,
			circles: r.known,
		}, &message{group: []byte("g"), epoch: 1, info: &mls.MessageInfo{
			GroupID: []byte("g"), Epoch: 1, Content: mls.ContentApplication, AuthenticatedData: r.header("SECRET", nil),
		}})
		if refused != nil {
			t.Fatalf("%+v", refused)
		}
		if path() != first {
			t.Fatalf("the route in use is gone after %d others", i+1)
		}
	}
	if n, most := r.kept(), (64<<10)/1024; n > most || n < most/2 {
		t.Errorf("%d routes are kept, want up to %d", n, most)
	}
	// Another epoch: the former one's routes are off the account.
	r.view = group.NewView([]byte("g"), 1, r.devices[:2]...)
	if reason := r.asks(0, honest, set); reason != "" || r.kept() != 1 {
		t.Errorf("%q; %d routes of two epochs", reason, r.kept())
	}
}

// Senders, bulletins and epochs at the same time leave the account in order.
func TestRoutesTogether(t *testing.T) {
	r := newRoom(t, 4<<10)
	var headers [][]byte
	for _, p := range []wire.Precedence{wire.Routine, wire.Priority, wire.Immediate, wire.Flash} {
		headers = append(headers, r.header("SECRET", func(h *wire.Header) { h.Precedence = p }))
	}
	var work sync.WaitGroup
	for from := range r.devices {
		work.Go(func() {
			for i := range 200 {
				if i%20 == 0 {
					runtime.Gosched()
				}
				set := bulletin.NewSet() // another bulletin, with which clearances stay
				if reason := r.asks(from, headers[i%len(headers)], set); reason != "" {
					t.Errorf("%s", reason)
				}
			}
		})
	}
	work.Wait()
	if n := r.kept(); n == 0 || n > 4 {
		t.Errorf("%d routes", n)
	}
}
