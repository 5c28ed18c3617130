// SPDX-License-Identifier: Apache-2.0

// Package record replays an authority's ledger into what follows from it: who the
// officers are, who is on the roster, what is suspended, which rules hold, and which
// certificates may be issued. The ledger is the source of truth; databases hold
// copies of it.
//
// Feed every leaf in order, then ask:
//
//	s := record.New(root)
//	for _, item := range items {
//		if err := s.Apply(item); err != nil { … } // *Finding: what is wrong with this leaf
//	}
//	leaves, err := s.Grounds(template, time.Now()) // the approvals that carry this certificate
//
// Apply verifies each payload as it goes: a statement's signature and its officer's
// certificate as of the leaf's own time, and the officer's standing as of the leaf's
// own place. What does not hold has no effect. An auditor who has a copy of the
// record and the root's certificate calls [Verify], which does the same and lists
// everything that is wrong instead of stopping at the first.
//
// The rules, all of them checked here and nowhere else:
//
//   - the first leaf is the founding record under the root's signature; without
//     officers in it the authority is lone, and records without deciding
//   - a statement counts if its officer's certificate was valid at the leaf's time,
//     the officer was neither suspended nor dismissed there, the role may sign this
//     kind, and its id was never seen before
//   - whom a statement concerns never signs it; nobody counts twice, neither by
//     address nor by key
//   - a device's certificate stands on as many approvals of exactly its template as
//     the profile asks for; its renewals on the same ones, until a refusal,
//     a revocation, a removal, or a gap longer than the profile's grace
//   - no certificate says more than the roster that officers signed
//
// A State does no I/O and reads no clock. It is not safe for concurrent use.
package record
