// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"iter"
	"time"

	"golang.org/x/mod/sumdb/note"

	"valise/ledger"
	"valise/manifest"
	"valise/record"
)

// What can be wrong with a copy, beside what package record finds in its leaves.
const (
	damagedCopy        record.Reason = "damaged_copy"        // a file is not what it should be
	tileMismatch       record.Reason = "tile_mismatch"       // the tiles are not of these entries
	badCheckpoint      record.Reason = "bad_checkpoint"      // malformed, or not under a ledger key of the root's manifests
	ledgerFork         record.Reason = "ledger_fork"         // somebody was shown another tree
	copyBehind         record.Reason = "copy_behind"         // somebody knows leaves that are missing here
	notInLedger        record.Reason = "not_in_ledger"       // a certificate without a leaf
	foreignCertificate record.Reason = "foreign_certificate" // not issued by this authority
)

// ownCheckpoint is how findings call the copy's checkpoint; others go by their path.
const ownCheckpoint = "the copy's checkpoint"

// An audit is one replay of a copy.
type audit struct {
	copied  *ledger.Copy
	root    *x509.Certificate
	marks   []*mark
	outside []outside

	tree       ledger.Builder
	tiles      *ledger.TileCheck
	leaves     []ledger.Leaf // of the bundle that is being compared, from the tiles
	mismatch   bool          // a leaf was not that of the tiles
	manifests  []*manifest.Manifest
	keys       []note.Verifier // at the present leaf
	recorded   map[[sha256.Size]byte]bool
	issued     int64
	statements int64
	lone       bool

	findings []record.Finding
}

// A mark is a tree that somebody signed: the copy's own checkpoint, or one that
// somebody else kept.
type mark struct {
	name string
	text []byte
	head ledger.Head
	bad  error // malformed

	reached bool
	here    ledger.Head     // the tree of as many leaves of this copy
	keys    []note.Verifier // whose word counts there
}

// An outside certificate was seen in the world.
type outside struct {
	name string
	cert *x509.Certificate
}

func newAudit(copied *ledger.Copy) *audit {
	return &audit{copied: copied, tiles: copied.CheckTiles(), recorded: make(map[[sha256.Size]byte]bool)}
}

func (a *audit) mark(name string, text []byte) {
	m := &mark{name: name, text: text}
	var origin string
	if origin, m.head, m.bad = ledger.ParseCheckpoint(text); m.bad == nil && origin != a.copied.Origin() {
		m.bad = fmt.Errorf("it is of the log %q, the copy is of %q", origin, a.copied.Origin())
	}
	a.marks = append(a.marks, m)
}

func (a *audit) find(index int64, reason record.Reason, format string, args ...any) {
	a.findings = append(a.findings, record.Finding{Index: index, Reason: reason, Detail: fmt.Sprintf(format, args...)})
}

// run replays the copy. An error is not a finding: it is what kept us from
// looking.
func (a *audit) run(ctx context.Context) error {
	text, err := a.copied.Checkpoint(ctx)
	if err != nil {
		return err
	}
	a.mark(ownCheckpoint, text)
	a.reach()
	found, err := record.Verify(a.root, a.items(ctx), a.copied.Claimed())
	if err != nil {
		return err
	}
	a.findings = append(a.findings, found...)
	a.checkTiles()
	for _, m := range a.marks {
		a.checkMark(m)
	}
	for _, o := range a.outside {
		a.checkOutside(o)
	}
	return nil
}

// items passes the record on and looks at each item as it goes by. Where the
// files can be read no further it ends, and says so in a finding.
func (a *audit) items(ctx context.Context) iter.Seq2[ledger.Item, error] {
	return func(yield func(ledger.Item, error) bool) {
		for item, err := range a.copied.Items() {
			if err != nil {
				a.find(item.Index, damagedCopy, "%v", err)
				return
			}
			a.see(ctx, item)
			if !yield(item, nil) {
				return
			}
		}
	}
}

// see takes note of an item, without believing it more than it proves.
func (a *audit) see(ctx context.Context, item ledger.Item) {
	leaf := item.Entry.Leaf()
	a.compare(ctx, item.Index, leaf)
	a.tiles.Add(leaf)
	_ = a.tree.Add(leaf) // full at 2^48 leaves, which no file holds
	honest := item.Entry.Records(item.Payload)
	switch item.Entry.Kind {
	case ledger.KindIssuance:
		a.issued++
		if honest {
			a.recorded[item.Entry.Subject] = true
		}
	case ledger.KindStatement:
		a.statements++
	case ledger.KindFounding:
		if f, err := manifest.ParseFounding(item.Payload, a.root); err == nil && honest {
			a.lone = f.Lone()
		}
	case ledger.KindManifest:
		if m, err := manifest.ParseManifest(item.Payload, a.root); err == nil && honest {
			a.follow(m)
		}
	}
	if m := a.newest(); m != nil && !item.Entry.Time.IsZero() {
		a.keys = verifiers(m, item.Entry.Time)
	}
	a.reach()
}

// compare looks for the first leaf that is not that of the tiles: where the
// tiles were left alone, it is the one that was rewritten or taken out.
func (a *audit) compare(ctx context.Context, index int64, leaf ledger.Leaf) {
	const bundle = 256
	if at := index % bundle; at == 0 {
		leaves, err := a.copied.Leaves(ctx, index, min(index+bundle, a.copied.Claimed().N))
		if err != nil {
			leaves = nil // which CheckTiles finds
		}
		a.leaves = leaves
	}
	if at := index % bundle; !a.mismatch && at < int64(len(a.leaves)) && a.leaves[at] != leaf {
		a.mismatch = true
		a.find(index, tileMismatch, "the tiles have another leaf here; it is the first one that differs")
	}
}

func (a *audit) newest() *manifest.Manifest {
	if len(a.manifests) == 0 {
		return nil
	}
	return a.manifests[len(a.manifests)-1]
}

func (a *audit) follow(m *manifest.Manifest) {
	if m.Follows(a.newest()) == nil {
		a.manifests = append(a.manifests, m)
	}
}

// verifiers are the keys whose checkpoints counted under a manifest at a time.
func verifiers(m *manifest.Manifest, at time.Time) []note.Verifier {
	var list []note.Verifier
	for _, key := range m.LedgerKeys(at) {
		if v, err := ledger.Verifier(m.Origin, key); err == nil {
			list = append(list, v)
		}
	}
	return list
}

// reach takes note of the tree at the sizes that somebody signed.
func (a *audit) reach() {
	for _, m := range a.marks {
		if m.bad == nil && m.head.N == a.tree.Size() {
			m.reached, m.here, m.keys = true, a.tree.Head(), a.keys
		}
	}
}

// checkTiles reports tiles that are missing or of another tree, unless a finding
// says already where that begins.
func (a *audit) checkTiles() {
	wrong := a.tiles.Finish()
	if len(wrong) > 0 && !a.mismatch && a.tree.Size() == a.copied.Claimed().N {
		a.find(-1, tileMismatch, "%d tiles are wrong, first of all: %v", len(wrong), wrong[0])
	}
}

// checkMark checks that somebody's tree was signed by a key of the root's
// manifests, and is this copy's own beginning.
func (a *audit) checkMark(m *mark) {
	keys := m.keys
	if !m.reached {
		keys = a.keys
	}
	err := m.bad
	if err == nil && len(keys) == 0 {
		err = errors.New("no manifest of the root names a key for it")
	}
	if err == nil {
		_, err = ledger.OpenCheckpoint(m.text, keys...)
	}
	switch {
	case err != nil:
		a.find(-1, badCheckpoint, "%s: %v", m.name, err)
	case m.name == ownCheckpoint: // package record compares the trees
	case m.head.N > a.tree.Size():
		a.find(-1, copyBehind, "%s names %d leaves, here are %d: ask for a newer copy; if there is none, leaves were taken out", m.name, m.head.N, a.tree.Size())
	case m.here != m.head:
		a.find(m.head.N-1, ledgerFork, "%s is signed and names another tree of %d leaves: two records were shown", m.name, m.head.N)
	}
}

// checkOutside checks that a certificate of this authority has its leaf.
func (a *audit) checkOutside(o outside) {
	if o.cert.Equal(a.root) {
		return
	}
	issued := false
	for _, m := range a.manifests {
		for _, i := range m.Issuers {
			issuer, err := x509.ParseCertificate(i.Certificate)
			if err == nil && issuer.Equal(o.cert) {
				return // recorded by the manifest that names it
			}
			issued = issued || err == nil && o.cert.CheckSignatureFrom(issuer) == nil
		}
	}
	what := fmt.Sprintf("%s: certificate %x of %v", o.name, o.cert.SerialNumber, names(o.cert))
	switch {
	case !issued:
		a.find(-1, foreignCertificate, "%s is not of an issuer that the root's manifests name", what)
	case !a.recorded[sha256.Sum256(o.cert.RawTBSCertificate)]:
		a.find(-1, notInLedger, "%s was issued and is not recorded", what)
	}
}

// names says whose a certificate is.
func names(cert *x509.Certificate) []string {
	list := append([]string{}, cert.EmailAddresses...)
	return append(list, cert.DNSNames...)
}
