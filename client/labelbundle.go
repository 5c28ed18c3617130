// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"valise/client/vault"
	"valise/identity"
	"valise/ledger"
	"valise/policy"
	"valise/policy/bundle"
	"valise/policy/spif"
	"valise/statement"
	"valise/wire"
)

// How a device gets the policy bundle in force (spec/bundle.md; spec/wire.md, Section
// 10). The gateway serves it and is not believed: the newest bulletin must name its hash,
// two officers must have signed it as of their leaves in the authority's record, its
// version must rise, and its own tests must pass. What is in force is kept in the vault,
// with every edition of a policy that ever was in force here: messages that bear it
// stay readable.
//
// While the bulletin names a bundle that this device does not have, it sends nothing:
// what the officers changed is not known, and the old bundle might allow it.

// Reason codes of bundles, in events of the kind EventPolicy.
const (
	reasonBundleMissing    = "bundle_missing"    // the gateway does not have the one that the bulletin names
	reasonBundleSignatures = "bundle_signatures" // not signed by two officers, on record
	reasonBundleMalformed  = "bundle_malformed"
	reasonBundleRollback   = "bundle_rollback" // not newer than the one in force
	reasonBundleInvalid    = "bundle_invalid"  // it does not compile, or a test of its own fails
)

// The vault's tables of policies.
const (
	tableBundle = "bundle" // "", "cell": bundleCell; "", "file": the signed bundle
	tablePolicy = "policy" // policy id, edition: its SPIF
)

// bundleCell is what is kept beside the file.
type bundleCell struct {
	Since int64    `json:"since"`           // when it came into force by the record, Unix seconds
	Known [][]byte `json:"known,omitempty"` // hashes of bundles that were in force before, oldest first
	Noted string   `json:"noted,omitempty"` // the trouble that an event has told of
}

// law is what decides about labels. Guarded by the engine's mu.
type law struct {
	cell    bundleCell
	bundle  *bundle.Bundle // in force; nil: none that this device knows of
	archive *bundle.Bundle // the same with all editions that ever were, for stored messages
	since   time.Time

	missing bool      // the bulletin names another bundle than this one
	due     time.Time // when the gateway is asked next; zero: not before there is news
	asked   uint64    // the last delivery for which the gateway was asked
	looks   int       // how often it is asked for a bulletin that names another bundle
	owed    bool      // messages could not be judged, and are to be asked for again
}

// loadLaw reads what the vault holds. It was verified when it was put there.
func (e *Engine) loadLaw(tx *vault.Tx) error {
	e.law = law{}
	cell, err := getJSON[bundleCell](tx, tableBundle, nil, []byte("cell"))
	if err != nil || e.cfg.RecordRoot == nil {
		return err
	}
	if cell != nil {
		e.law.cell = *cell
	}
	owed, err := tx.List(tableOwed, nil)
	if err != nil {
		return err
	}
	e.law.owed = len(owed) > 0
	file, err := tx.Get(tableBundle, nil, []byte("file"))
	if err != nil || file == nil {
		e.outdated()
		return err
	}
	signed, err := bundle.ParseSigned(file)
	if err != nil {
		return fmt.Errorf("the policy bundle in the vault: %w", err)
	}
	b, err := bundle.Reopen(signed.Contents) // dates in it were looked at when it came into force
	if err != nil {
		return fmt.Errorf("the policy bundle in the vault: %w", err)
	}
	archive, err := archived(tx, b)
	if err != nil {
		return err
	}
	e.law.bundle, e.law.archive, e.law.since = b, archive, time.Unix(e.law.cell.Since, 0)
	e.outdated()
	return nil
}

// outdated notes whether the newest bulletin names another bundle than the one here.
// From then on nothing is sent until that one is here.
func (e *Engine) outdated() {
	named := e.standings.set.Bulletin()
	if named == nil || named.Bundle == [32]byte{} {
		return
	}
	if e.law.missing = e.law.bundle == nil || e.law.bundle.Hash != named.Bundle; e.law.missing && e.law.due.IsZero() {
		e.law.due = e.now()
	}
}

// archived is a bundle together with the editions that are kept.
func archived(tx *vault.Tx, b *bundle.Bundle) (*bundle.Bundle, error) {
	var older []*spif.Document
	parents, err := tx.List(tablePolicy, nil)
	if err != nil {
		return nil, err
	}
	for _, parent := range parents {
		cells, err := tx.List(tablePolicy, parent.Row)
		if err != nil {
			return nil, err
		}
		for _, cell := range cells {
			doc, err := spif.Parse(cell.Value)
			if err != nil {
				return nil, fmt.Errorf("a policy in the vault: %w", err)
			}
			older = append(older, doc)
		}
	}
	out, err := b.WithEditions(older...)
	if err != nil {
		return b, nil // too many of them: those of the bundle alone are known
	}
	return out, nil
}

// keepEditions keeps every edition of a bundle's policies for good.
func keepEditions(tx *vault.Tx, contents *bundle.Contents) error {
	for _, f := range contents.Files {
		if !strings.HasPrefix(f.Name, "policies/") {
			continue
		}
		doc, err := spif.Parse(f.Data)
		if err != nil {
			return err
		}
		id, err := policy.ParseOID(doc.Policy.ID)
		if err != nil {
			return err
		}
		parent := []byte(id)
		if err := errors.Join(tx.Put(tablePolicy, nil, parent, nil), tx.Put(tablePolicy, parent, vault.Numbered(uint64(doc.Edition)), f.Data)); err != nil {
			return err
		}
	}
	return nil
}

// knowsBundle reports whether a bundle is in force here, or was.
func (e *Engine) knowsBundle(hash []byte) bool {
	if b := e.law.bundle; b != nil && bytes.Equal(b.Hash[:], hash) {
		return true
	}
	return slices.ContainsFunc(e.law.cell.Known, func(h []byte) bool { return bytes.Equal(h, hash) })
}

// consultLaw asks for the bundle that the newest bulletin names. An error is of the
// connection or the vault; what is wrong with a bundle becomes an event. e.mu is held,
// but not while the gateway is waited for.
func (e *Engine) consultLaw(ctx context.Context, l *link) error {
	if e.cfg.RecordRoot == nil || e.known.manifest == nil {
		return nil // an authority without a record has no officers who could sign a bundle
	}
	e.law.due = time.Time{}
	reason, err := e.lookUpBundle(ctx, l)
	switch {
	case err != nil:
		return err
	case reason == reasonRecordUnavailable: // the gateway is busy, or its copy is young
		e.law.due = e.now().Add(lawPause)
		return nil
	case reason == reasonBundleMissing:
		e.law.due = e.now().Add(retryRefused)
	}
	if reason == e.law.cell.Noted {
		return nil
	}
	if reason != "" {
		e.cfg.Log.Warn("the policy bundle is refused", "reason", reason)
	}
	return e.keepLaw(func(c *change, cell *bundleCell) error {
		cell.Noted = reason
		return c.log(&eventRecord{Event: Event{Kind: EventPolicy, Time: e.now(), Reason: reason}})
	})
}

// expectLaw is called when the gateway says that another bundle is in force.
func (e *Engine) expectLaw() { e.law.due, e.law.looks = e.now(), lawLooks }

// refreshLaw asks for the newest bulletin first.
func (e *Engine) refreshLaw(ctx context.Context, l *link) error {
	e.law.due = time.Time{}
	if err := e.refreshStandings(ctx, l); err != nil {
		return err
	}
	return e.consultLaw(ctx, l)
}

// keepLaw writes a step forward to the vault before anything relies on it.
func (e *Engine) keepLaw(f func(c *change, cell *bundleCell) error) error {
	var next bundleCell
	err := e.update(func(c *change) error {
		next = e.law.cell
		next.Known = slices.Clone(next.Known)
		if err := f(c, &next); err != nil {
			return err
		}
		return putJSON(c.Tx, tableBundle, nil, []byte("cell"), next)
	})
	if err == nil {
		e.law.cell = next
	}
	return stopped(err)
}

// lookUpBundle takes the bundle that the bulletin names.
func (e *Engine) lookUpBundle(ctx context.Context, l *link) (string, error) {
	e.outdated()
	e.law.due = time.Time{}
	if !e.law.missing {
		if e.law.looks > 0 { // the gateway has a new bundle, and its bulletin is a moment behind
			e.law.looks--
			e.law.due = e.now().Add(lawLook)
		}
		return "", nil
	}
	e.law.looks = 0
	hash := e.standings.set.Bulletin().Bundle
	file, reason, err := e.fetchBundle(ctx, l, hash)
	if err != nil || reason != "" {
		return reason, err
	}
	signed, err := bundle.ParseSigned(file)
	if err != nil {
		return reasonBundleMalformed, nil
	}
	if e.law.bundle != nil && e.law.bundle.Hash == hash {
		return "", nil // the engine's other half was faster
	}
	if have, err := signed.Contents.Hash(); err != nil || have != hash {
		return reasonBundleMalformed, nil
	}
	if old := e.law.bundle; old != nil && signed.Contents.Version <= old.Version {
		return reasonBundleRollback, nil
	}
	leaves, reason, err := e.leavesOf(ctx, l, signed.Statements)
	if err != nil || reason != "" {
		return reason, err
	}
	since, err := e.checkSigned(signed, leaves)
	if err != nil {
		e.cfg.Log.Warn("policy bundle", "error", err)
		return reasonBundleSignatures, nil
	}
	// Its dates are judged as of its place in the record, as the officers are: a device
	// that comes later finds the same bundle in order.
	b, err := bundle.Compile(signed.Contents, since)
	if err != nil {
		e.cfg.Log.Warn("policy bundle", "error", err)
		return reasonBundleInvalid, nil
	}
	if e.law.bundle != nil && e.law.bundle.Version >= b.Version {
		return "", nil // taken meanwhile
	}
	return "", e.enact(b, signed.Contents, file, since)
}

// fetchBundle asks for the parts of the bundle in force, one after another.
func (e *Engine) fetchBundle(ctx context.Context, l *link, hash [32]byte) (file []byte, reason string, err error) {
	for {
		q := &wire.GetBundle{Offset: uint32(len(file))}
		if len(file) > 0 {
			q.Hash = hash
		}
		answer, err := e.call(ctx, l, q)
		if err != nil {
			return nil, "", err
		}
		part, ok := answer.(*wire.BundlePart)
		if !ok || part.Hash != hash {
			return nil, reasonBundleMissing, nil
		}
		if int(part.Offset) != len(file) || int(part.Size) > bundle.MaxSize || len(file)+len(part.Data) > int(part.Size) {
			return nil, "", l.fail(wire.ErrMalformed)
		}
		if file = append(file, part.Data...); len(file) == int(part.Size) {
			return file, "", nil
		}
	}
}

// leavesOf asks when statements were recorded. What is not in the record has no place in
// the answer.
func (e *Engine) leavesOf(ctx context.Context, l *link, statements [][]byte) (map[[32]byte]time.Time, string, error) {
	out := make(map[[32]byte]time.Time)
	head := e.known.head
	for _, raw := range statements {
		subject := sha256.Sum256(raw)
		data, code, err := e.ask(ctx, l, &wire.GetRecord{Part: wire.PartInclusion, Subject: subject, Size: uint64(head.N)})
		switch {
		case err != nil:
			return nil, "", err
		case code == wire.NotCovered:
			// It is younger than the tree that this device knows.
			if err := e.lookUp(ctx, l); err != nil {
				return nil, "", err
			}
			return nil, reasonRecordUnavailable, nil
		case code == wire.NotFound:
			continue
		case code != wire.OK:
			return nil, reasonRecordUnavailable, nil
		}
		i, err := ledger.ParseInclusion(data)
		if err != nil || i.CheckIn(head, subject) != nil || i.Entry.Kind != ledger.KindStatement {
			continue
		}
		out[subject] = i.Entry.Time
	}
	return out, "", nil
}

// checkSigned verifies the officers' statements, each as of its leaf, and returns when
// the last of them was recorded.
func (e *Engine) checkSigned(signed *bundle.Signed, leaves map[[32]byte]time.Time) (since time.Time, err error) {
	root := sha256.Sum256(e.cfg.RecordRoot.Raw)
	err = signed.CheckSignatures(func(raw []byte) (*statement.Statement, error) {
		at, ok := leaves[sha256.Sum256(raw)]
		if !ok {
			return nil, errors.New("a statement that is not in the authority's record")
		}
		st, err := statement.Verify(raw, e.cfg.Trust, root, at)
		if err == nil && at.After(since) {
			since = at
		}
		return st, err
	})
	return since, err
}

// enact puts a bundle into force.
func (e *Engine) enact(b *bundle.Bundle, contents *bundle.Contents, file []byte, since time.Time) error {
	var archive *bundle.Bundle
	err := e.keepLaw(func(c *change, cell *bundleCell) (err error) {
		if old := e.law.bundle; old != nil {
			cell.Known = append(cell.Known, bytes.Clone(old.Hash[:]))
			cell.Known = cell.Known[max(0, len(cell.Known)-maxKnownBundles):]
		}
		cell.Since, cell.Noted = since.Unix(), ""
		if err := errors.Join(c.Put(tableBundle, nil, []byte("file"), file), keepEditions(c.Tx, contents)); err != nil {
			return err
		}
		if archive, err = archived(c.Tx, b); err != nil {
			return err
		}
		return c.log(&eventRecord{Event: Event{Kind: EventPolicy, Time: e.now(), Version: b.Version}})
	})
	if err != nil {
		return err
	}
	e.law.bundle, e.law.archive, e.law.since, e.law.missing = b, archive, since, false
	e.cfg.Log.Info("policy bundle", "version", b.Version, "hash", fmt.Sprintf("%x", b.Hash[:8]))
	return nil
}

// end is a device as policies see it: its clearance is what its certificate says, cut
// down by those above it and by the newest bulletin.
func (e *Engine) end(d *identity.Device) bundle.End {
	end := bundle.End{ID: d.ID, Address: d.Address, Tier: d.Tier}
	above, err := parseChain(d.Chain[1:])
	if err != nil {
		return end
	}
	if e.cfg.RecordRoot != nil {
		above = append(above, e.cfg.RecordRoot)
	}
	if end.Clearance, err = policy.Effective(e.standings.set.Clearance(d), above...); err != nil {
		e.cfg.Log.Warn("a clearance that cannot be read counts as none", "device", d.ID.String(), "error", err)
		end.Clearance = nil
	}
	return end
}

func parseChain(chain [][]byte) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for _, der := range chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}
