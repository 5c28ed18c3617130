// SPDX-License-Identifier: Apache-2.0

// Package ledger is the public record of what an authority did: an append-only
// Merkle tree (RFC 6962, Section 2; golang.org/x/mod/sumdb/tlog) with one leaf
// for every decision. A certificate whose leaf is not in the tree must not be
// trusted.
//
// An [Entry] says what happened: today, that a certificate with this hash was
// issued. Entries are for auditors and for the devices concerned. What the
// tree holds is the entry's [Leaf], a salted hash, so that publishing the
// whole tree publishes nobody's name and no guess about a certificate can be
// tried out on it.
//
// The authority appends in the transaction that decides:
//
//	entry, err := ledger.NewIssuance(tbs)
//	hashes, err := ledger.Append(size, entry.Leaf(), stored)  // store them from index ledger.Count(size)
//
// and anybody checks with [CheckInclusion] and [CheckGrowth], given a tree head
// that they trust. Proofs are computed by [ProveInclusion] and [ProveGrowth].
//
// All functions are pure: where hashes are kept is the caller's affair, behind
// tlog.HashReader. Never change an entry's encoding; a new one takes a new
// version.
package ledger
