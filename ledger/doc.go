// SPDX-License-Identifier: Apache-2.0

// Package ledger is the public record of what an authority did: an append-only
// Merkle tree (RFC 6962, Section 2; golang.org/x/mod/sumdb/tlog) with one leaf
// for every decision. A certificate whose leaf is not in the tree must not be
// trusted. spec/ledger.md has every byte of it.
//
// An [Entry] says what happened and when: a certificate was issued, an officer
// signed a statement, the root signed a manifest. Its payload, kept beside it,
// is the thing itself. What the tree holds is the entry's [Leaf], a salted
// hash, so that publishing the whole tree publishes nobody's name and no guess
// can be tried out on it.
//
// The authority appends in the transaction that decides, and signs what the
// tree has come to:
//
//	entry, err := ledger.NewEntry(ledger.KindStatement, jws, time.Now())
//	hashes, err := ledger.Append(size, entry.Leaf(), stored)  // store them from index ledger.Count(size)
//	text, err := ledger.SignCheckpoint(ctx, origin, head, token)
//
// Anybody checks: [OpenCheckpoint] for whose word it is, [CheckGrowth] for that
// nothing was taken back, [CheckInclusion] for that something is in it. An
// [Inclusion] and a [Growth] are these proofs as they travel; [Prove] and
// [Grow] make them of a [Source], which [Handler] serves as C2SP tlog-tiles.
// [WriteCopy] and [OpenCopy] put a whole record on disk and read it there. What
// the entries mean together is the affair of package record.
//
// Where hashes are kept is the caller's affair. Never change an entry's
// encoding; a new one takes a new version. Never sign a checkpoint of a tree
// that does not extend the last one signed: two such checkpoints are the proof
// that the authority showed two records.
package ledger
