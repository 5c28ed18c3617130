// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
)

// ErrRollback says that a bundle is older than the one in force, or another one
// of the same version.
var ErrRollback = errors.New("bundle: older than the one in force")

// A Holder holds the bundle in force; whoever reads it sees a whole one. The
// zero value holds none.
type Holder struct {
	mu  sync.Mutex // one Load at a time
	now atomic.Pointer[Bundle]
}

// Now returns the bundle in force, nil if there is none.
func (h *Holder) Now() *Bundle { return h.now.Load() }

// Load puts a bundle into force, at once and for all readers. Its caller keeps
// the version on disk, and calls Load with the kept bundle first.
func (h *Holder) Load(b *Bundle) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	old := h.now.Load()
	if old != nil && (b.Version < old.Version || b.Version == old.Version && b.Hash != old.Hash) {
		return fmt.Errorf("%w: version %d (%x), in force is %d (%x)", ErrRollback, b.Version, b.Hash[:4], old.Version, old.Hash[:4])
	}
	h.now.Store(b)
	return nil
}
