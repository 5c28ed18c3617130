// SPDX-License-Identifier: Apache-2.0

package group

import "valise/gateway/mailbox"

// Where several gateways use one store, a group in memory is as of the epoch that this one
// has seen last. What follows from that:
//
//   - A pair of group and epoch always has the same members. So what is refused for a
//     request at an epoch that is known here is refused rightly, and what is let through goes to the
//     store, which compares epochs under its locks.
//   - A request at an epoch that is not known here yet has the store looked at first (ViewAt).
//   - What the members alone decide, with no submission that the store would judge, is
//     decided by Present: files, and what a resync needs.
//   - News of another gateway's commit, and a submission that the store finds stale, have a
//     group read anew when it is used next. News may be lost; nothing above depends on them.

// Outdate notes that other gateways have moved these groups, and returns those that are in
// memory.
func (r *Registry) Outdate(ids [][]byte) (known [][]byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range ids {
		if g, ok := r.groups[string(id)]; ok {
			g.old.Store(true)
			known = append(known, g.id)
		}
	}
	return known
}

// OutdateAll is Outdate for all groups: it is not known what was missed.
func (r *Registry) OutdateAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, g := range r.groups {
		g.old.Store(true)
	}
}

// Heed has a group read anew whose epoch the store has found to be another one than its
// request named.
func (r *Registry) Heed(id []byte, o mailbox.Outcome) {
	if r.node != nil && (o.Verdict == mailbox.StaleEpoch || o.Verdict == mailbox.UnknownGroup) {
		r.Outdate([][]byte{id})
	}
}
