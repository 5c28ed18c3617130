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
func (cmd *manifestRenewCmd) Run(ctx context.Context) error {
	return renew(ctx, cmd.Config, purpose{replace: cmd.Replace, oldUntil: cmd.OldUntil, distrustOld: cmd.DistrustOld})
}

// A purpose is what a manifest is renewed for.
type purpose struct {
	replace     bool     // keys that are missing
	rotate      []string // keys that are there, by their uses
	retire      bool     // what was replaced before counts no longer
	oldUntil    time.Duration
	issuersToo  bool // oldUntil is for issuing keys as well
	distrustOld bool
}

func renew(ctx context.Context, config string, why purpose) (err error) {
	if why.oldUntil < 0 || why.oldUntil > maxGatewayValidity {
		return fmt.Errorf("--old-until: %v is not within %v", why.oldUntil, maxGatewayValidity)
	}
	o, err := openDesk(ctx, config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.close()) }()
	r := &renewal{office: o, why: why, root: o.chain[1], now: time.Now().UTC().Truncate(time.Second)}
	if r.book, err = book.Open(ctx, book.Config{Store: o.store, Root: r.root, Mark: o.cfg.path(markFile)}); err != nil {
		return err
	}
	r.book.View(func(s *record.State) {
		r.founded = s.Founding() != nil
		r.old, r.oldRaw = s.Manifest()
		r.officers = inOffice(s)
		if r.now.Before(s.Time()) {
			r.now = s.Time() // another machine's clock was ahead
		}
	})
	if unfinished, err := r.unfinished(); err != nil || unfinished {
		return err
	}
	if r.hardware, err = openHardware(ctx, o.cfg, true); err != nil {
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
	why      purpose
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
	if err := h.open(ctx, r.old); err != nil {
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
	if r.why.replace {
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

// unfinished reports whether a rotation before this one recorded its manifest and did not
// come to its end; the files then follow the record, and that is all.
func (r *renewal) unfinished() (bool, error) {
	if r.old == nil || len(r.why.rotate) == 0 && !r.why.retire {
		return false, nil
	}
	behind, err := r.office.behind(r.oldRaw)
	if err != nil || !behind {
		return false, err
	}
	fmt.Printf("manifest %d was recorded before and its files were not written: this is done now, and nothing else. "+
		"Look at it (valise-enrolld manifest show) and decide whether you want another one\n", r.old.Number)
	return true, r.office.writeManifest(r.oldRaw, r.officers)
}

func (r *renewal) run(ctx context.Context) error {
	for _, use := range r.why.rotate {
		if err := r.hardware.succeed(ctx, use); err != nil {
			return fmt.Errorf("%w: nothing was recorded; run this again", err)
		}
	}
	if r.old != nil && len(r.replaced()) == 0 && !r.retires() {
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
		if r.why.distrustOld {
			return r.now
		}
		if !was.IsZero() && was.Before(now) {
			return was
		}
		return now
	}
	over := func(t time.Time) bool { return r.why.distrustOld || !t.IsZero() && t.Before(r.now) }
	for _, i := range r.old.Issuers {
		cert, err := x509.ParseCertificate(i.Certificate)
		if err != nil {
			return nil, err
		}
		end := cert.NotAfter
		if by := r.now.Add(r.why.oldUntil); r.why.issuersToo && by.Before(end) {
			end = by
		}
		// One whose use has ended still stands above what it certified before.
		if !over(cert.NotAfter) && !same(cert.PublicKey, r.issuing.PublicKey) {
			m.Issuers = append(m.Issuers, manifest.Issuer{Certificate: i.Certificate, Until: until(i.Until, end)})
		}
	}
	for _, k := range r.old.Bulletin {
		if !over(k.Until) && !bytes.Equal(k.SPKI, m.Bulletin[0].SPKI) {
			m.Bulletin = append(m.Bulletin, manifest.Key{SPKI: k.SPKI, Until: until(k.Until, r.now.Add(r.why.oldUntil))})
		}
	}
	// A ledger key stays for good, with the end of its use: checkpoints of before
	// are how a copy is judged.
	for _, k := range r.old.Ledger {
		if !k.Public.Equal(m.Ledger[0].Public) {
			m.Ledger = append(m.Ledger, manifest.LedgerKey{Public: k.Public, Until: until(k.Until, r.now.Add(r.why.oldUntil))})
		}
	}
	// Of more than a manifest holds, the longest ended ones are let go: nothing that they
	// signed is the newest any more.
	m.Ledger = m.Ledger[:min(len(m.Ledger), manifest.MaxKeys)]
	m.Issuers = m.Issuers[:min(len(m.Issuers), manifest.MaxKeys)]
	return m, nil
}

// retires reports whether there is a former key whose use has not ended yet, and that is
// asked for.
func (r *renewal) retires() bool {
	if !r.why.retire {
		return false
	}
	open := func(t time.Time) bool { return t.IsZero() || t.After(r.now) }
	for _, i := range r.old.Issuers[1:] {
		if open(i.Until) {
			return true
		}
	}
	for _, k := range r.old.Bulletin[1:] {
		if open(k.Until) {
			return true
		}
	}
	for _, k := range r.old.Ledger[1:] {
		if open(k.Until) {
			return true
		}
	}
	return false
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

// write puts what the record says into the files.
func (r *renewal) write(_ context.Context, leaves []leaf) error {
	var raw []byte
	r.book.View(func(s *record.State) { _, raw = s.Manifest() })
	for _, l := range leaves {
		if l.kind == ledger.KindFounding {
			if err := replace(r.office.cfg.path(foundingFile), l.payload); err != nil {
				return err
			}
		}
	}
	return r.office.writeManifest(raw, r.officers)
}

func (r *renewal) report(ctx context.Context, m *manifest.Manifest) error {
	if err := printManifest(os.Stdout, m, identity.Fingerprint(r.root)); err != nil {
		return err
	}
	fmt.Println("Put the root's token away. Where valise-enrolld serve runs, it changes over to the new keys by itself, if it finds them in its token.")
	if len(r.officers) > 0 && r.hardware.made[useIssuing] {
		fmt.Printf("The officers have new certificates, in %s.\n", r.office.cfg.path(officersDir))
	}
	return r.office.audit.Event(ctx, "manifest signed", slog.Uint64("number", m.Number),
		slog.String("manifest", fmt.Sprintf("%x", m.Digest())), slog.Bool("distrust_old", r.why.distrustOld),
		slog.String("issuing", identity.Fingerprint(r.issuing)))
}

func fingerprint(der []byte) string { return fmt.Sprintf("%x", sha256.Sum256(der)) }
