// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"valise/enroll/book"
	"valise/enroll/ca"
	"valise/hsm"
	"valise/identity"
	"valise/internal/store/authority"
	"valise/ledger"
	"valise/manifest"
	"valise/record"
)

type manifestRenewCmd struct {
	common
	Replace     bool          `help:"Make the keys that are missing, in the place of those that the manifest names."`
	OldUntil    time.Duration `default:"2160h" placeholder:"DURATION" help:"How long bulletins and checkpoints of replaced keys still count; what a replaced issuing key signed counts until it ends by itself."`
	DistrustOld bool          `help:"The old keys may be in other hands: nothing that they sign counts from now on."`
}

// Run has the root sign a manifest for the keys that the configuration names. In a
// fresh token, with --replace, it makes them first: that is how a lost HSM is
// replaced. It can be repeated: what a crash left is finished.
func (cmd *manifestRenewCmd) Run(ctx context.Context) (err error) {
	if cmd.OldUntil < 0 || cmd.OldUntil > maxGatewayValidity {
		return fmt.Errorf("--old-until: %v is not within %v", cmd.OldUntil, maxGatewayValidity)
	}
	o, err := openDesk(ctx, cmd.Config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.close()) }()
	r := &renewal{office: o, cmd: cmd, root: o.chain[1], now: time.Now().UTC().Truncate(time.Second)}
	if r.book, err = book.Open(ctx, book.Config{Store: o.store, Root: r.root, Mark: o.cfg.path(markFile)}); err != nil {
		return err
	}
	r.book.View(func(s *record.State) {
		r.founded = s.Founding() != nil
		r.old, r.oldRaw = s.Manifest()
		for _, o := range s.Officers() {
			if _, err := s.Officer(o.Key); err == nil { // in office
				r.officers = append(r.officers, o)
			}
		}
		if r.now.Before(s.Time()) {
			r.now = s.Time() // another machine's clock was ahead
		}
	})
	if r.hardware, err = openHardware(ctx, o.cfg); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.hardware.close()) }()
	if err := r.check(ctx); err != nil {
		return err
	}
	return r.run(ctx)
}

// A renewal is a manifest on its way.
type renewal struct {
	office   *office
	cmd      *manifestRenewCmd
	book     *book.Book
	hardware *hardware
	root     *x509.Certificate
	now      time.Time

	founded  bool
	old      *manifest.Manifest // nil: none yet
	oldRaw   []byte
	officers []record.Officer // in office

	issuing *x509.Certificate // of the next manifest
}

// check decides, before any key is made, whether the root can be asked.
func (r *renewal) check(ctx context.Context) error {
	cfg, h := r.office.cfg, r.hardware
	if err := r.office.store.View(ctx, (*authority.Tx).Writable); err != nil {
		return err // restored: before anything is signed the gateways are asked
	}
	if err := h.open(ctx); err != nil {
		return err
	}
	root := h.keys[useRoot]
	if root == nil {
		return fmt.Errorf("the root key %q is not in the token %q: bring the token in which it is ([root-token]). "+
			"If it is lost, nobody can speak for this authority any more: found another one", cfg.Token.RootKey, h.tokenOf(useRoot).Info().Label)
	}
	if !same(root.Public(), r.root.PublicKey) {
		return fmt.Errorf("the key %q in the token %q is not this authority's root key", cfg.Token.RootKey, h.tokenOf(useRoot).Info().Label)
	}
	if r.cmd.Replace {
		return nil
	}
	if gone := r.replaced(); len(gone) > 0 {
		return fmt.Errorf("the token %q does not hold the keys that are in use for: %s. If they are lost, or to be replaced, say --replace; "+
			"otherwise check the token and the labels", h.tokenOf(useIssuing).Info().Label, strings.Join(gone, ", "))
	}
	return nil
}

// replaced lists the uses for which the token holds no key, or another one than the
// manifest names. Keys that no manifest names yet are none of them.
func (r *renewal) replaced() []string {
	var gone []string
	test := func(use string, is func(hsm.Key) bool) {
		if key := r.hardware.keys[use]; key == nil || !is(key) {
			gone = append(gone, use)
		}
	}
	issuing := r.office.chain[0]
	if r.old != nil {
		if cert, err := x509.ParseCertificate(r.old.Issuers[0].Certificate); err == nil {
			issuing = cert
		}
	}
	test(useIssuing, func(k hsm.Key) bool { return same(k.Public(), issuing.PublicKey) })
	if r.old == nil {
		return gone
	}
	test(useBulletin, func(k hsm.Key) bool {
		der, _, err := spki(k)
		return err == nil && bytes.Equal(der, r.old.Bulletin[0].SPKI)
	})
	test(useLedger, func(k hsm.Key) bool { return same(k.Public(), r.old.Ledger[0].Public) })
	if r.hardware.keys[useTLS] == nil {
		gone = append(gone, useTLS)
	}
	return gone
}

func same(a, b crypto.PublicKey) bool {
	key, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && key.Equal(b)
}

func (r *renewal) run(ctx context.Context) error {
	if r.old != nil && len(r.replaced()) == 0 {
		fmt.Printf("manifest %d names exactly the keys at hand: nothing to renew\n", r.old.Number)
		return r.write(ctx, nil)
	}
	if err := r.hardware.fill(ctx); err != nil {
		return fmt.Errorf("%w: run this again when the token works", err)
	}
	if err := r.certify(); err != nil {
		return err
	}
	leaves, m, err := r.sign(ctx)
	if err != nil {
		return err
	}
	if err := r.append(ctx, leaves); err != nil {
		return err
	}
	if err := r.checkpoint(ctx); err != nil {
		return err
	}
	if err := r.write(ctx, leaves); err != nil {
		return err
	}
	return r.report(ctx, m)
}

// certify obtains the issuing certificate: the one that there is, or a new one.
func (r *renewal) certify() error {
	key := r.hardware.keys[useIssuing]
	known := [][]byte{r.office.chain[0].Raw}
	if r.old != nil {
		known = [][]byte{r.old.Issuers[0].Certificate}
	}
	cert, err := x509.ParseCertificate(known[0])
	if err == nil && same(key.Public(), cert.PublicKey) {
		r.issuing = cert
		return nil
	}
	r.issuing, err = ca.NewIssuing(r.office.cfg.Domain, r.root, r.hardware.keys[useRoot], key.Public(), r.now)
	return err
}

// sign makes the leaves: the founding record if there is none, the manifest, and new
// certificates for officers whose issuing key was replaced.
func (r *renewal) sign(ctx context.Context) (leaves []leaf, m *manifest.Manifest, err error) {
	root := r.hardware.keys[useRoot]
	if !r.founded {
		f := founder{cfg: r.office.cfg, now: r.now}
		founding, err := f.foundingRecord()
		if err != nil {
			return nil, nil, err
		}
		raw, err := manifest.Sign(ctx, root, r.root, founding)
		if err != nil {
			return nil, nil, err
		}
		leaves = append(leaves, leaf{ledger.KindFounding, raw, nil})
	}
	if m, err = r.next(); err != nil {
		return nil, nil, err
	}
	raw, err := manifest.Sign(ctx, root, r.root, m)
	if err != nil {
		return nil, nil, err
	}
	if m, err = manifest.ParseManifest(raw, r.root); err != nil {
		return nil, nil, err
	}
	leaves = append(leaves, leaf{ledger.KindManifest, raw, nil})
	if r.hardware.made[useIssuing] || r.old != nil && !bytes.Equal(r.issuing.Raw, r.old.Issuers[0].Certificate) {
		again, err := r.reappoint()
		if err != nil {
			return nil, nil, err
		}
		leaves = append(leaves, again...)
	}
	return leaves, m, nil
}

// next is the manifest for the keys at hand, behind which the old ones stand as long
// as they count.
func (r *renewal) next() (*manifest.Manifest, error) {
	m, err := r.hardware.manifest(r.office.cfg.Domain, r.issuing, r.now)
	if err != nil || r.old == nil {
		return m, err
	}
	m.Number, m.Previous, m.Origin = r.old.Number+1, r.old.Digest(), r.old.Origin
	until := func(was, now time.Time) time.Time {
		if r.cmd.DistrustOld {
			return r.now
		}
		if !was.IsZero() && was.Before(now) {
			return was
		}
		return now
	}
	over := func(t time.Time) bool { return r.cmd.DistrustOld || !t.IsZero() && t.Before(r.now) }
	for _, i := range r.old.Issuers {
		cert, err := x509.ParseCertificate(i.Certificate)
		if err != nil {
			return nil, err
		}
		if !over(i.Until) && !same(cert.PublicKey, r.issuing.PublicKey) {
			m.Issuers = append(m.Issuers, manifest.Issuer{Certificate: i.Certificate, Until: until(i.Until, cert.NotAfter)})
		}
	}
	for _, k := range r.old.Bulletin {
		if !over(k.Until) && !bytes.Equal(k.SPKI, m.Bulletin[0].SPKI) {
			m.Bulletin = append(m.Bulletin, manifest.Key{SPKI: k.SPKI, Until: until(k.Until, r.now.Add(r.cmd.OldUntil))})
		}
	}
	// A ledger key stays for good, with the end of its use: checkpoints of before
	// are how a copy is judged.
	for _, k := range r.old.Ledger {
		if !k.Public.Equal(m.Ledger[0].Public) {
			m.Ledger = append(m.Ledger, manifest.LedgerKey{Public: k.Public, Until: until(k.Until, r.now.Add(r.cmd.OldUntil))})
		}
	}
	return m, nil
}

// reappoint gives the officers who are in office certificates under the new issuing
// key: for the same key, address and role, and on the same evidence.
func (r *renewal) reappoint() ([]leaf, error) {
	var leaves []leaf
	for _, o := range r.officers {
		key, err := x509.ParsePKIXPublicKey(o.SPKI)
		if err != nil {
			return nil, fmt.Errorf("key of %s: %w", o.Address, err)
		}
		cert, err := ca.SignOfficer(r.issuing, r.hardware.keys[useIssuing], identity.OfficerProfile{
			Address: o.Address, PublicKey: key, Role: o.Role, Tier: identity.TierHardware,
			EvidenceHash: o.Evidence, PolicyHash: o.Appraisal,
		}, r.now)
		if err != nil {
			return nil, fmt.Errorf("certificate of %s: %w", o.Address, err)
		}
		leaves = append(leaves, officerLeaf(o.Address, cert, r.now))
	}
	return leaves, nil
}

// append records what the root signed, all of it or nothing, by the record's rules.
func (r *renewal) append(ctx context.Context, leaves []leaf) error {
	return r.book.Update(ctx, func(tx *authority.Tx, s *record.State, add book.Append) error {
		for _, l := range leaves {
			index, err := add(l.kind, l.payload)
			if err != nil {
				return err
			}
			if err := l.store(tx, index); err != nil {
				return err
			}
		}
		return nil
	})
}

// checkpoint signs the tree with the new ledger key, so that the first thing it
// signs is that it goes on from where the old one ended.
func (r *renewal) checkpoint(ctx context.Context) error {
	b, err := book.Open(ctx, book.Config{Store: r.office.store, Root: r.root, LedgerKey: r.hardware.keys[useLedger], Mark: r.office.cfg.path(markFile)})
	if err != nil {
		return err
	}
	return b.Checkpoint(ctx)
}

// write puts what the record says into the files, chain.pem last.
func (r *renewal) write(ctx context.Context, leaves []leaf) error {
	cfg := r.office.cfg
	var raw, founding []byte
	r.book.View(func(s *record.State) { _, raw = s.Manifest() })
	m, err := manifest.ParseManifest(raw, r.root)
	if err != nil {
		return err
	}
	for _, l := range leaves {
		if l.kind == ledger.KindFounding {
			founding = l.payload
		}
	}
	if founding != nil {
		if err := replace(cfg.path(foundingFile), founding); err != nil {
			return err
		}
	}
	if err := r.writeOfficers(ctx, m.Issuers[0].Certificate); err != nil {
		return err
	}
	if err := replace(cfg.path(manifestFile), raw); err != nil {
		return err
	}
	return replace(cfg.path(chainFile), encodePEM(m.Issuers[0].Certificate, r.root.Raw))
}

// writeOfficers writes the newest certificates of those in office that the issuing
// certificate in use made.
func (r *renewal) writeOfficers(ctx context.Context, issuing []byte) error {
	issuer, err := x509.ParseCertificate(issuing)
	if err != nil {
		return err
	}
	for _, o := range r.officers {
		var newest authority.Issuance
		err := r.office.store.View(ctx, func(tx *authority.Tx) (err error) {
			newest, err = tx.LatestIssuance(record.KindOfficer, o.Address.String(), o.Key[:])
			return err
		})
		if errors.Is(err, authority.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		cert, err := x509.ParseCertificate(newest.Certificate)
		if err != nil || cert.CheckSignatureFrom(issuer) != nil {
			continue // not signed yet, or by a key that was in use before
		}
		if err := os.MkdirAll(r.office.cfg.path(officersDir), 0o755); err != nil {
			return err
		}
		if err := replace(r.office.cfg.path(officerFile(o.Address)), encodePEM(cert.Raw, issuing)); err != nil {
			return err
		}
	}
	return nil
}

func (r *renewal) report(ctx context.Context, m *manifest.Manifest) error {
	if err := printManifest(os.Stdout, m, identity.Fingerprint(r.root)); err != nil {
		return err
	}
	fmt.Println("Put the root's token away, and restart valise-enrolld serve where it runs.")
	if len(r.officers) > 0 && r.hardware.made[useIssuing] {
		fmt.Printf("The officers have new certificates, in %s.\n", r.office.cfg.path(officersDir))
	}
	return r.office.audit.Event(ctx, "manifest signed", slog.Uint64("number", m.Number),
		slog.String("manifest", fmt.Sprintf("%x", m.Digest())), slog.Bool("distrust_old", r.cmd.DistrustOld),
		slog.String("issuing", identity.Fingerprint(r.issuing)))
}

func fingerprint(der []byte) string { return fmt.Sprintf("%x", sha256.Sum256(der)) }
