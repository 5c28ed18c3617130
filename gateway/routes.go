// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"cmp"
	"container/list"
	"crypto/x509"
	"sync"
	"sync/atomic"

	"valise/identity"
	"valise/policy/bundle"
	"valise/wire"
)

// A routeCache bounds the decided routes of all conversations by the memory that they
// take. Senders choose the labels, so a hostile one can fill it: the route that came
// first goes first, unless it was used since it was last looked at. The zero value is
// ready.
type routeCache struct {
	most int // bytes; 0: maxRouteBytes

	mu    sync.Mutex // taken before that of any routes
	order list.List  // guarded by mu; of *route
	used  int        // guarded by mu; bytes
}

// routes are those that were decided through one conversation.
type routes struct {
	cache *routeCache
	gone  bool // guarded by cache.mu; nothing looks here any more

	mu    sync.RWMutex
	paths map[pathKey]*route // guarded by mu

	// last is one of paths that was found: most messages go the way of the one before.
	// Set and cleared with mu held, so that it is never one that was evicted.
	last atomic.Pointer[route]
}

type pathKey struct {
	sender     identity.DeviceID
	own        *x509.Certificate // nil: the tree's
	precedence wire.Precedence
	label      string
}

// A route is one path that is kept.
type route struct {
	path   *bundle.Path
	key    pathKey
	in     *routes
	at     *list.Element // guarded by cache.mu
	recent atomic.Bool   // it was used since eviction passed it
}

// size is about what a route takes: its key and path, and of a label's values, a few
// bytes each in the header, the compiled ones.
func (r *route) size() int { return 1024 + 16*len(r.key.label) }

func (c *routeCache) routes() *routes { return &routes{cache: c, paths: make(map[pathKey]*route)} }

// find returns the route of a sender whose connection shows the tree's certificate. The
// map is asked with the key in place: so the label is not copied.
func (r *routes) find(sender identity.DeviceID, precedence wire.Precedence, label []byte) *bundle.Path {
	if last := r.last.Load(); last.is(sender, precedence, label) {
		return last.use()
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	found := r.paths[pathKey{sender: sender, precedence: precedence, label: string(label)}]
	if found != nil {
		r.last.Store(found)
	}
	return found.use()
}

// is reports whether a route is that of a sender whose connection shows the tree's
// certificate.
func (r *route) is(sender identity.DeviceID, precedence wire.Precedence, label []byte) bool {
	return r != nil && r.key.own == nil && r.key.precedence == precedence && r.key.sender == sender && r.key.label == string(label)
}

func (r *routes) get(k pathKey) *bundle.Path {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.paths[k].use()
}

func (r *route) use() *bundle.Path {
	if r == nil {
		return nil
	}
	if !r.recent.Load() {
		r.recent.Store(true)
	}
	return r.path
}

// put keeps a path. What is wrong with a label is not kept: there are more invalid
// labels than memory, and each is paid for when it is looked at again.
func (r *routes) put(k pathKey, p *bundle.Path) {
	if !p.Valid() {
		return
	}
	c := r.cache
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.gone {
		return
	}
	r.mu.Lock()
	old := r.paths[k]
	next := &route{path: p, key: k, in: r}
	r.paths[k] = next
	r.last.Store(nil)
	r.mu.Unlock()
	if old != nil {
		c.forget(old)
	}
	next.at = c.order.PushBack(next)
	c.used += next.size()
	c.evict()
}

// evict makes room. The caller holds c.mu.
func (c *routeCache) evict() {
	most := cmp.Or(c.most, maxRouteBytes)
	for chances := c.order.Len(); c.used > most; chances-- {
		r := c.order.Front().Value.(*route)
		if chances > 0 && r.recent.Swap(false) {
			c.order.MoveToBack(r.at)
			continue
		}
		r.in.mu.Lock()
		delete(r.in.paths, r.key)
		r.in.last.Store(nil)
		r.in.mu.Unlock()
		c.forget(r)
	}
}

// forget takes a route out of the account. The caller holds c.mu.
func (c *routeCache) forget(r *route) {
	c.order.Remove(r.at)
	c.used -= r.size()
}

// drop ends routes of a conversation that is known otherwise now.
func (r *routes) drop() {
	c := r.cache
	c.mu.Lock()
	defer c.mu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gone = true
	for _, each := range r.paths {
		c.forget(each)
	}
	clear(r.paths)
	r.last.Store(nil)
}
