// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/note"

	"valise/client/vault"
	"valise/ledger"
	"valise/manifest"
	"valise/wire"
)

// How a device holds its authority to its public record (spec/ledger.md, Section 6).
//
// It keeps the newest manifest and the newest checkpoint that it was ever shown, and
// takes nothing that does not extend them: who would show this device another record
// than others has to go on showing it, on every gateway, for ever. It lets nobody into
// a group whose certificate is not in that record, or is of an issuer that the manifest
// does not name: a certificate that was issued in secret opens nothing.
//
// What the gateway says is believed in nothing but what is not there. When something is
// wrong with the record as such, the groups that exist go on, nobody new comes in, and
// an event says why.

// Reason codes of the record, in events and reports.
const (
	reasonNoRecord          = "no_record"          // the gateway holds none, and the authority keeps one
	reasonManifest          = "manifest_invalid"   // not the root's
	reasonManifestRollback  = "manifest_rollback"  // older than one that was shown before
	reasonManifestFork      = "manifest_fork"      // another one of the same number, or not the next
	reasonCheckpoint        = "checkpoint_invalid" // not under a ledger key of the manifest
	reasonLedgerFork        = "ledger_fork"        // does not extend what was shown before
	reasonLedgerRollback    = "ledger_rollback"    // smaller than what was shown before
	reasonNotInLedger       = "not_in_ledger"      // a certificate without a leaf
	reasonIssuerNotNamed    = "issuer_not_named"   // of an issuer that the manifest does not name
	reasonProof             = "proof_invalid"      // the proof of a leaf does not prove it
	reasonRecordUnavailable = "record_unavailable" // could not be asked for in time
)

// recordCell is the record as this device knows it, at rest.
type recordCell struct {
	Manifest   []byte `json:"manifest,omitempty"`
	Checkpoint string `json:"checkpoint,omitempty"`
	Noted      string `json:"noted,omitempty"` // the trouble that an event has told of
	Stale      int    `json:"stale,omitempty"` // ranks that are not sent under an old bulletin, as an event has told

	// Evidence is a signed checkpoint that does not extend the one kept: with it,
	// the proof that two records were shown.
	Evidence string `json:"evidence,omitempty"`
}

// known is the record as this device knows it. Guarded by the engine's mu.
type known struct {
	cell     recordCell
	manifest *manifest.Manifest // nil: none was ever shown
	head     ledger.Head        // of cell.Checkpoint; ledger.Empty before the first
	trouble  string             // what is wrong with the record as the gateway shows it now
	vouched  map[[sha256.Size]byte]bool
	waited   map[[sha256.Size]byte]bool // certificates that were waited for in vain
}

// demanded says whether certificates have to be in the record: the configuration says
// so, or the authority once showed a manifest.
func (e *Engine) demanded() bool {
	return e.cfg.RecordRoot != nil && (e.cfg.RecordRequired || e.known.manifest != nil)
}

// loadRecord reads what the vault holds.
func (e *Engine) loadRecord(tx *vault.Tx) error {
	e.known = known{head: ledger.Empty, vouched: map[[sha256.Size]byte]bool{}, waited: map[[sha256.Size]byte]bool{}}
	cell, err := getJSON[recordCell](tx, tableRecord, nil, []byte("record"))
	if err != nil || cell == nil || e.cfg.RecordRoot == nil {
		return err
	}
	e.known.cell = *cell
	if len(cell.Manifest) > 0 {
		if e.known.manifest, err = manifest.ParseManifest(cell.Manifest, e.cfg.RecordRoot); err != nil {
			return fmt.Errorf("the manifest in the vault: %w", err)
		}
	}
	if cell.Checkpoint != "" {
		if _, e.known.head, err = ledger.ParseCheckpoint([]byte(cell.Checkpoint)); err != nil {
			return fmt.Errorf("the checkpoint in the vault: %w", err)
		}
	}
	return nil
}

// keepRecord writes a step forward to the vault before anything relies on it.
func (e *Engine) keepRecord(next recordCell, f func(c *change) error) error {
	err := e.update(func(c *change) error {
		if f != nil {
			if err := f(c); err != nil {
				return err
			}
		}
		return putJSON(c.Tx, tableRecord, nil, []byte("record"), next)
	})
	if err == nil {
		e.known.cell = next
	}
	return stopped(err)
}

// consult brings this device's view of the record and of the policy up to date, at the beginning of a
// connection. An error is of the connection or the vault; what is wrong with the record
// becomes an event.
func (e *Engine) consult(ctx context.Context, l *link) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.cfg.RecordRoot == nil {
		return nil
	}
	if err := e.lookUp(ctx, l); err != nil {
		return err
	}
	return e.consultLaw(ctx, l)
}

// lookUp asks for manifest and growth; e.mu is held.
func (e *Engine) lookUp(ctx context.Context, l *link) error {
	reason, err := e.lookUpManifest(ctx, l)
	if err == nil && reason == "" && e.known.manifest != nil {
		reason, err = e.grow(ctx, l)
	}
	if err == nil && reason == "" {
		reason, err = e.lookUpStandings(ctx, l)
	}
	if err != nil {
		return err
	}
	return e.trouble(reason)
}

// trouble tells, once, that something is wrong with the record, and that it is again in
// order.
func (e *Engine) trouble(reason string) error {
	if reason == reasonRecordUnavailable {
		return nil // the gateway is busy: nothing is known about the record
	}
	e.known.trouble = reason
	if reason == e.known.cell.Noted {
		return nil
	}
	if reason != "" {
		e.cfg.Log.Warn("the authority's record is refused", "reason", reason)
	}
	next := e.known.cell
	next.Noted = reason
	return e.keepRecord(next, func(c *change) error {
		return c.log(&eventRecord{Event: Event{Kind: EventRecord, Time: e.now(), Reason: reason}})
	})
}

// ask fetches a part of the record. A reason says why there is none.
func (e *Engine) ask(ctx context.Context, l *link, r *wire.GetRecord) (data []byte, code wire.Code, err error) {
	answer, err := e.call(ctx, l, r)
	if err != nil {
		return nil, 0, err
	}
	switch a := answer.(type) {
	case *wire.Record:
		if a.Part == r.Part {
			return a.Data, wire.OK, nil
		}
	case *wire.Result:
		if a.Code != wire.OK {
			return nil, a.Code, nil
		}
	}
	return nil, 0, l.fail(wire.ErrMalformed)
}

func (e *Engine) lookUpManifest(ctx context.Context, l *link) (string, error) {
	raw, code, err := e.ask(ctx, l, &wire.GetRecord{Part: wire.PartManifest})
	switch {
	case err != nil:
		return "", err
	case code == wire.NoRecord && e.demanded():
		return reasonNoRecord, nil
	case code == wire.NoRecord:
		return "", nil // an authority of the first kind
	case code != wire.OK: // busy, or so fresh that its copy is empty
		return reasonRecordUnavailable, nil
	case bytes.Equal(raw, e.known.cell.Manifest):
		return "", nil
	}
	m, err := manifest.ParseManifest(raw, e.cfg.RecordRoot)
	if err != nil || m.Domain != e.cfg.Address.Domain() {
		return reasonManifest, nil
	}
	if old := e.known.manifest; old != nil {
		switch {
		case m.Number < old.Number:
			return reasonManifestRollback, nil
		case m.Number == old.Number && m.Digest() == old.Digest():
			return "", nil // signed again, with the same words
		case m.Follows(old) != nil:
			return reasonManifestFork, nil
		}
	}
	next := e.known.cell
	next.Manifest = raw
	if err := e.keepRecord(next, nil); err != nil {
		return "", err
	}
	e.known.manifest = m
	return "", nil
}

// verifiers are the ledger keys of the manifest that are in use.
func (e *Engine) verifiers() []note.Verifier {
	var list []note.Verifier
	for _, key := range e.known.manifest.LedgerKeys(e.now()) {
		if v, err := ledger.Verifier(e.known.manifest.Origin, key); err == nil {
			list = append(list, v)
		}
	}
	return list
}

// grow asks for the newest checkpoint and the proof that it extends the one kept.
func (e *Engine) grow(ctx context.Context, l *link) (string, error) {
	for {
		older := e.known.head
		data, code, err := e.ask(ctx, l, &wire.GetRecord{Part: wire.PartGrowth, Size: uint64(older.N)})
		switch {
		case err != nil:
			return "", err
		case older != e.known.head:
			continue // the engine's other half was faster: a proof from there is needed
		case code == wire.NotCovered && older.N > 0:
			return reasonLedgerRollback, nil
		case code == wire.NoRecord:
			return reasonNoRecord, nil
		case code != wire.OK:
			return reasonRecordUnavailable, nil
		}
		g, err := ledger.ParseGrowth(data)
		if err != nil {
			return reasonCheckpoint, nil
		}
		head, err := g.Check(older, e.verifiers()...)
		switch {
		case errors.Is(err, ledger.ErrCheckpoint):
			return reasonCheckpoint, nil
		case err != nil:
			next := e.known.cell
			next.Evidence = g.Checkpoint
			return reasonLedgerFork, e.keepRecord(next, nil)
		case head == older:
			return "", nil
		}
		next := e.known.cell
		next.Checkpoint = g.Checkpoint
		if err := e.keepRecord(next, nil); err != nil {
			return "", err
		}
		e.known.head = head
		return "", nil
	}
}

// issuerNamed says whether the manifest names the issuer of a certificate for the time
// when it was issued.
func (e *Engine) issuerNamed(leaf *x509.Certificate, chain [][]byte) bool {
	named, err := e.known.manifest.Certificates(leaf.NotBefore)
	if err != nil || len(chain) < 2 {
		return false
	}
	for _, issuer := range named {
		if bytes.Equal(issuer.Raw, chain[1]) {
			return true
		}
	}
	return false
}
