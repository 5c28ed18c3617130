// SPDX-License-Identifier: Apache-2.0

package mls

import (
	"fmt"
	"slices"
	"testing"
)

// ops says how many primitive operations an operation of a group takes.
type ops [primitives]int64

var opNames = [primitives]string{
	"seal", "open", "sign", "verify", "derive", "generate", "private key",
	"extract", "expand", "mac", "aead", "hash", "key check",
}

func (o ops) plus(p ops) ops {
	for i := range o {
		o[i] += p[i]
	}
	return o
}

func (o ops) String() string {
	s := ""
	for i, n := range o {
		if n != 0 {
			s += fmt.Sprintf(" %s %d", opNames[i], n)
		}
	}
	return s
}

// A shape is what the formulas take of a tree. It is counted on a plain
// picture of the tree, with none of the product's functions.
type shape struct {
	n      int          // members
	width  int          // leaves of the full tree
	filled map[int]bool // nodes that are not blank
	// unmerged leaves of parents, and nodes that carry a parent hash.
	unmerged map[int][]int
	hashed   map[int]bool
}

func shapeOf(t *tree) *shape {
	sh := &shape{width: (len(t.nodes) + 1) / 2, filled: map[int]bool{}, unmerged: map[int][]int{}, hashed: map[int]bool{}}
	for i, n := range t.nodes {
		if n == nil {
			continue
		}
		sh.filled[i] = true
		if n.leaf != nil {
			sh.n++
			sh.hashed[i] = n.leaf.Source == LeafCommit
			continue
		}
		sh.hashed[i] = true
		for _, l := range n.parent.unmerged {
			sh.unmerged[i] = append(sh.unmerged[i], int(l))
		}
	}
	return sh
}

// span gives the first node under x and the number of its leaves.
func span(x int) (first, leaves int) {
	leaves = 1
	for x&leaves != 0 {
		leaves *= 2
	}
	return x - leaves + 1, leaves
}

// resolution, as RFC 9420, Section 4.1.1 words it.
func (sh *shape) resolution(x int) []int {
	if sh.filled[x] {
		out := []int{x}
		for _, l := range sh.unmerged[x] {
			out = append(out, 2*l)
		}
		return out
	}
	if x%2 == 0 {
		return nil
	}
	_, leaves := span(x)
	return append(sh.resolution(x-leaves/2), sh.resolution(x+leaves/2)...)
}

// path lists the nodes on a leaf's way to the root, with their children off it.
func (sh *shape) path(leaf int) (nodes, copath []int) {
	x := 2 * leaf
	for size := 1; size < sh.width; size *= 2 {
		start := leaf / (2 * size) * (2 * size)
		parent := 2*start + 2*size - 1
		nodes = append(nodes, parent)
		copath = append(copath, 2*parent-x)
		x = parent
	}
	return nodes, copath
}

// filtered is the length of a leaf's filtered direct path; recipients is the
// number of path secrets to be sealed; shared is how many nodes of that path
// lie above another leaf.
func (sh *shape) filtered(leaf int) (length, recipients int) {
	_, copath := sh.path(leaf)
	for _, c := range copath {
		if r := len(sh.resolution(c)); r > 0 {
			length++
			recipients += r
		}
	}
	return length, recipients
}

func (sh *shape) shared(leaf, other int) (count int) {
	nodes, copath := sh.path(leaf)
	for i, x := range nodes {
		first, leaves := span(x)
		if 2*other >= first && 2*other < first+2*leaves && len(sh.resolution(copath[i])) > 0 {
			count++
		}
	}
	return count
}

// levels is the length of a direct path.
func (sh *shape) levels() (d int64) {
	for w := 1; w < sh.width; w *= 2 {
		d++
	}
	return d
}

// parents is the number of filled parent nodes.
func (sh *shape) parents() (count int64) {
	for x := range sh.filled {
		if x%2 == 1 {
			count++
		}
	}
	return count
}

// parentHashes is the number of hashes that RFC 9420, Section 7.9.2 demands of
// whoever verifies a tree: for each parent P and child C, if the resolution of
// C without P's unmerged leaves is one node that carries a parent hash, the
// hash of P with C's sibling as it was, and the hashes of the nodes under that
// sibling that lie above leaves unmerged at P.
func (sh *shape) parentHashes() (count int64) {
	for x := range sh.filled {
		if x%2 == 0 {
			continue
		}
		_, leaves := span(x)
		for _, c := range []int{x - leaves/2, x + leaves/2} {
			var rest []int
			for _, y := range sh.resolution(c) {
				if y%2 == 1 || !slices.Contains(sh.unmerged[x], y/2) {
					rest = append(rest, y)
				}
			}
			if len(rest) == 1 && sh.hashed[rest[0]] {
				count += 1 + sh.above(2*x-c, sh.unmerged[x])
			}
		}
	}
	return count
}

// above counts the nodes under x that lie above some of the leaves, or are them.
func (sh *shape) above(x int, leaves []int) int64 {
	first, size := span(x)
	if !slices.ContainsFunc(leaves, func(l int) bool { return 2*l >= first && 2*l < first+2*size }) {
		return 0
	}
	if x%2 == 0 {
		return 1
	}
	return 1 + sh.above(x-size/2, leaves) + sh.above(x+size/2, leaves)
}

// schedule is the key schedule of RFC 9420, Section 8 from an init secret, with
// no pre-shared key: Extract of the init and of the joiner secret; Expand for
// joiner, welcome and epoch secret and the nine secrets of Table 4; one
// confirmation tag; the two transcript hashes.
var schedule = ops{opExtract: 2, opExpand: 12, opMAC: 1, opHash: 2}

// committing is what a commit with a path costs its sender, RFC 9420, Section
// 12.4.1, in a tree in which d nodes get new keys, r recipients a path secret:
// d derived pairs with two Expand each, the leaf's own pair, d parent hashes,
// tree hashes from the leaf to the root, r seals, signatures (with the hash of
// what is signed) of leaf, commit and GroupInfo, and the pair of external_pub.
func (sh *shape) committing(leaf int) ops {
	d, r := sh.filtered(leaf)
	return schedule.plus(ops{
		opDerive: int64(d) + 1, opExpand: 2 * int64(d), opGenerate: 1, opSeal: int64(r),
		opSign: 3, opHash: int64(d) + 1 + sh.levels() + 3,
	})
}

// commitOps: a member commits nothing but its path, and adds a membership tag.
func (sh *shape) commitOps(from int) ops { return sh.committing(from).plus(ops{opMAC: 1}) }

// processOps: a member checks membership tag and signatures of commit and
// leaf, hashes like the sender, opens one path secret and derives the pairs
// above. The keys in the path are new: each is checked once.
func (sh *shape) processOps(from, own int) ops {
	d, _ := sh.filtered(from)
	k := int64(sh.shared(from, own))
	return schedule.plus(ops{
		opMAC: 1, opVerify: 2, opOpen: 1, opDerive: k, opExpand: 2 * k,
		opHash: 2 + int64(d) + sh.levels() + 1, opCheck: int64(d) + 2,
	})
}

// verifyOps: whoever meets a tree for the first time verifies the signature of
// each leaf and of the GroupInfo, every node's tree hash, and parent hashes.
// Every key of the tree is checked, leaves have two. The GroupInfo's interim
// transcript hash is one more.
func (sh *shape) verifyOps() ops {
	n := int64(sh.n)
	return ops{opVerify: n + 1, opHash: n + 1 + int64(2*sh.width-1) + sh.parentHashes() + 1, opCheck: 2*n + sh.parents()}
}

// joinOps: the Welcome's secrets are found by the hash of the KeyPackage and
// opened, key and nonce of the GroupInfo derived, the path secret leads to the
// pairs above committer and joiner. Two private keys are read. The schedule
// starts at the joiner secret: one Extract and one Expand less, and no
// confirmed transcript hash.
func (sh *shape) joinOps(from, own int) ops {
	k := int64(sh.shared(from, own))
	return sh.verifyOps().plus(ops{
		opHash: 1, opOpen: 1, opPrivate: 2, opExtract: 1, opExpand: 13 + 2*k, opAEAD: 1,
		opMAC: 1, opDerive: k,
	})
}

// rejoinOps: an external commit that replaces the old leaf verifies the tree
// as a joiner does, seals one external init and commits.
func (sh *shape) rejoinOps(own int) ops {
	return sh.verifyOps().plus(sh.committing(own)).plus(ops{opSeal: 1})
}

// createOps: the founder makes a leaf, checks it like any, and starts a key
// schedule at the epoch secret; then it verifies two signatures of each of n-1
// packages, names each by its hash, hashes the new tree, and seals one Welcome
// each. The path has nobody to be sealed to yet. after is the tree that results.
func (after *shape) createOps() ops {
	n := int64(after.n - 1)
	d := after.levels() // no sibling is empty
	create := ops{opGenerate: 1, opSign: 1, opHash: 2 + 1 + 1, opVerify: 1, opCheck: 2, opExpand: 9, opMAC: 1}
	return create.plus(schedule).plus(ops{
		opVerify: 2 * n, opCheck: 3 * n, opSeal: n, opDerive: d + 1, opGenerate: 1,
		opSign: 3, opMAC: 1, opExpand: 2*d + 2, opAEAD: 1,
		opHash: 2*n + n + int64(2*after.width-1) + d + 3,
	})
}

// Content takes a signature with its hash, a key and a nonce from the sender's
// ratchet, which moves on, and a key and a nonce for the sender data.
var (
	encryptOps = ops{opSign: 1, opHash: 1, opExpand: 5, opAEAD: 2}
	decryptOps = ops{opVerify: 1, opHash: 1, opExpand: 5, opAEAD: 2}
)

// loadOps: every node is hashed, once, and the member's own keys are read.
func (sh *shape) loadOps(privs int) ops {
	return ops{opHash: int64(2*sh.width-1) + 1, opPrivate: int64(privs)}
}

// instrument puts counters into a suite until the test ends.
func instrument(t testing.TB, suite Suite) *counts {
	t.Helper()
	i := slices.IndexFunc(suiteTable, func(p *suiteParams) bool { return p.id == suite })
	was := suiteTable[i]
	now := *was
	now.counts = &counts{}
	suiteTable[i] = &now
	t.Cleanup(func() { suiteTable[i] = was })
	return now.counts
}

// take returns what was counted since the last call.
func (c *counts) take() (n, bytes ops) {
	for i := range n {
		n[i], bytes[i] = c.calls[i].Swap(0), c.bytes[i].Swap(0)
	}
	return n, bytes
}

// The formulas of the benchmarks' lower bounds count what is really done.
func TestFormulasCountPrimitives(t *testing.T) {
	for _, suite := range []Suite{SuiteP256, SuiteMLKEM768P256} {
		for _, n := range []int{2, 3, 8, 10, 21} {
			t.Run(fmt.Sprintf("suite=%#04x/N=%d", uint16(suite), n), func(t *testing.T) {
				c := instrument(t, suite)
				for _, op := range newScene(t, suite, n).operations() {
					op.before(1)
					c.take()
					op.run(0)
					if got, _ := c.take(); got != op.want {
						t.Errorf("%s:\n counted%v\n formula%v", op.name, got, op.want)
					}
				}
			})
		}
	}
}
