// SPDX-License-Identifier: Apache-2.0

package ledger

// MaxSize bounds the leaves of a tree. It is out of reach for any authority (a
// thousand leaves a second for 8,900 years) and keeps a hostile tree head away
// from the size at which tlog's arithmetic overflows and no longer ends.
const MaxSize = 1 << 48

// maxProof bounds the hashes of a proof: a path has one for each level.
const maxProof = 2 * 48
