// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"sync"

	"valise/internal/store/authority"
)

// recent remembers the rows of orders that this process has just written, so that an
// enrollment does not read back at every step what it wrote at the one before. It decides
// nothing: whoever begins with what is remembered has the transaction that counts compare
// it with the rows as they are then.
type recent struct {
	mu     sync.Mutex
	orders map[string]*authority.Facts // guarded by mu; by the order's id
	authzs map[string]string           // guarded by mu; authorization to order
}

// maxRecent bounds what is remembered; with its evidence an order takes some 4 KiB.
const maxRecent = 512

// keep remembers an order. Nobody changes f afterwards.
func (r *recent) keep(f *authority.Facts) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.orders == nil || len(r.orders) >= maxRecent {
		r.orders, r.authzs = make(map[string]*authority.Facts), make(map[string]string)
	}
	r.orders[f.Order.ID], r.authzs[f.Authorization.ID] = f, f.Order.ID
}

// order returns an order's rows as they were, or nil.
func (r *recent) order(id string) *authority.Facts {
	r.mu.Lock()
	defer r.mu.Unlock()
	return copied(r.orders[id])
}

// authorization is order by the id of its authorization.
func (r *recent) authorization(id string) *authority.Facts {
	r.mu.Lock()
	defer r.mu.Unlock()
	return copied(r.orders[r.authzs[id]])
}

// forget ends it: the next look is at the rows.
func (r *recent) forget(order string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f := r.orders[order]; f != nil {
		delete(r.authzs, f.Authorization.ID)
		delete(r.orders, order)
	}
}

func copied(f *authority.Facts) *authority.Facts {
	if f == nil {
		return nil
	}
	c := *f
	return &c
}
