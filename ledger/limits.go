// SPDX-License-Identifier: Apache-2.0

package ledger

// MaxSize bounds the leaves of a tree. It is out of reach for any authority (a
// thousand leaves a second for 8,900 years) and keeps a hostile tree head away
// from the size at which tlog's arithmetic overflows and no longer ends.
const MaxSize = 1 << 48

// MaxPayload bounds what an entry stands for: a statement with all the
// endorsement roots of a country's card vendors in it, in base64 twice.
const MaxPayload = 4 << 20

// MaxCheckpoint bounds a signed checkpoint: ours has 200 bytes, and witnesses
// add a line of about 150 each.
const MaxCheckpoint = 8 << 10

// maxOrigin bounds a log's name: a domain name has at most 253 bytes.
const maxOrigin = 300

// maxProof bounds the hashes of a proof: a path has one for each level.
const maxProof = 2 * 48

// maxTime is the end of the year 9999, after which times no longer have four
// digits for a year.
const maxTime = 253402300799

// maxPath bounds the path of a tile: eleven levels of x000 are more than
// MaxSize leaves need.
const maxPath = 80
