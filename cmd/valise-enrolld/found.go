// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"valise/attest"
	"valise/enroll/ca"
	"valise/enroll/ceremony"
	"valise/hsm"
	"valise/identity"
	"valise/internal/daemon"
	"valise/internal/store/authority"
	"valise/ledger"
	"valise/manifest"
	"valise/record"
)

const (
	foundingFile = "founding.jws"
	manifestFile = "manifest.jws"
	recordFile   = "ceremony-record.txt"
	officersDir  = "officers"
)

// officerFile is where an officer's certificate and the one above it are. Addresses
// hold nothing that means something to a file system.
func officerFile(a identity.Address) string { return filepath.Join(officersDir, a.String()+".pem") }

// A founder makes an authority. What stands first is set before the first key is
// made; the rest follows from it, in the order of found.
type founder struct {
	cfg          *Config
	now          time.Time
	plan         *ceremony.Plan // nil: an authority without officers
	endorsements *attest.Endorsements
	officers     []*nominee
	hardware     *hardware

	root, issuing *x509.Certificate
	founding      []byte // JWS
	manifest      []byte // JWS
	leaves        []leaf
	head          ledger.Head
	record        []byte // text
}

// A nominee is somebody whose application was accepted.
type nominee struct {
	application *ceremony.Application
	file        [32]byte
	result      *attest.Result
	cert        *x509.Certificate
}

// A leaf is an entry of the ledger that is to be, with the row for the certificate
// whose leaf it is.
type leaf struct {
	kind     ledger.Kind
	payload  []byte
	issuance *authority.Issuance
}

func (f *founder) found(ctx context.Context) error {
	mark := fmt.Appendf(nil, "An authority of %s was being founded at %s.\n", f.cfg.Domain, f.now.Format(time.RFC3339))
	if err := writeNew(f.cfg.path(unfinishedFile), mark); err != nil {
		return err
	}
	if err := f.hardware.fill(ctx); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{f.certify, f.sign, f.append, f.write} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	if err := os.Remove(f.cfg.path(unfinishedFile)); err != nil {
		return err
	}
	return daemon.SyncDir(f.cfg.Data)
}

// certify makes the certificates of the authority and its officers.
func (f *founder) certify(context.Context) (err error) {
	keys := f.hardware.keys
	if f.root, f.issuing, err = ca.Found(f.cfg.Domain, keys[useRoot], keys[useIssuing], f.now); err != nil {
		return err
	}
	for _, o := range f.officers {
		a := o.application
		public, err := a.PublicKey()
		if err != nil {
			return err
		}
		o.cert, err = ca.SignOfficer(f.issuing, keys[useIssuing], identity.OfficerProfile{
			Address: a.Address, PublicKey: public, Role: a.Role, Tier: identity.Tier(o.result.Tier),
			EvidenceHash: o.result.EvidenceHash, PolicyHash: o.result.PolicyHash,
		}, f.now)
		if err != nil {
			return fmt.Errorf("certificate of %s: %w", a.Address, err)
		}
	}
	return nil
}

// sign has the root sign what it is for, and reads it as a stranger would.
func (f *founder) sign(ctx context.Context) error {
	founding, err := f.foundingRecord()
	if err != nil {
		return err
	}
	root := f.hardware.keys[useRoot]
	if f.founding, err = manifest.Sign(ctx, root, f.root, founding); err != nil {
		return err
	}
	first, err := f.hardware.manifest(f.cfg.Domain, f.issuing, f.now)
	if err != nil {
		return err
	}
	if f.manifest, err = manifest.Sign(ctx, root, f.root, first); err != nil {
		return err
	}
	f.leaves = []leaf{{ledger.KindFounding, f.founding, nil}, {ledger.KindManifest, f.manifest, nil}}
	for _, o := range f.officers {
		f.leaves = append(f.leaves, officerLeaf(o.application.Address, o.cert, f.now))
	}
	return nil
}

func (f *founder) foundingRecord() (*manifest.Founding, error) {
	out := &manifest.Founding{Domain: f.cfg.Domain, Time: f.now}
	if f.plan == nil {
		validity := f.cfg.Device.Validity.Duration
		if validity == 0 {
			validity = 7 * 24 * time.Hour
		}
		out.Profiles = []manifest.Profile{{
			Name: f.cfg.Device.Profile, Version: 1, Validity: validity, Grace: 30 * 24 * time.Hour, Tiers: []identity.Tier{identity.TierHardware},
		}}
		return out, nil
	}
	out.Ceremony, out.Endorsements = f.plan.Hash, f.endorsements.PEM()
	var err error
	if out.Appraisal, err = f.plan.Appraisal.Canonical(); err != nil {
		return nil, err
	}
	for _, o := range f.officers {
		out.Officers = append(out.Officers, o.cert.Raw)
	}
	for _, p := range f.plan.Profiles {
		out.Profiles = append(out.Profiles, manifest.Profile{
			Name: p.Name, Version: p.Version, Approvals: p.Approvals, Validity: p.Validity, Grace: p.Grace, Tiers: p.Tiers,
		})
	}
	return out, nil
}

// manifest names the keys at hand as those in use.
func (h *hardware) manifest(domain string, issuing *x509.Certificate, now time.Time) (*manifest.Manifest, error) {
	bulletin, _, err := spki(h.keys[useBulletin])
	if err != nil {
		return nil, err
	}
	public, ok := h.keys[useLedger].Public().(ed25519.PublicKey)
	if !ok {
		return nil, errors.New("the ledger's key is not an Ed25519 key")
	}
	return &manifest.Manifest{
		Number: 1, Domain: domain, Time: now, Origin: ledger.Origin(domain),
		Issuers:  []manifest.Issuer{{Certificate: issuing.Raw}},
		Bulletin: []manifest.Key{{SPKI: bulletin}},
		Ledger:   []manifest.LedgerKey{{Public: public}},
	}, nil
}

// officerLeaf records an officer's certificate, which is made already: a ceremony
// makes it before there is a ledger, and nobody has it before its leaf is there.
func officerLeaf(a identity.Address, cert *x509.Certificate, now time.Time) leaf {
	request := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return leaf{ledger.KindIssuance, cert.RawTBSCertificate, &authority.Issuance{
		Ref: "officer:" + identity.Fingerprint(cert), Kind: record.KindOfficer, Subject: a.String(), Request: request[:],
		Serial: cert.SerialNumber.Bytes(), TBS: cert.RawTBSCertificate, Certificate: cert.Raw, Created: now, NotAfter: cert.NotAfter,
	}}
}

// append makes the database with its first leaves, and signs the first checkpoint.
// Before that it replays them: what the rules refuse must not be founded.
func (f *founder) append(ctx context.Context) (err error) {
	state := record.New(f.root)
	var entries []*ledger.Entry
	for i, l := range f.leaves {
		entry, err := ledger.NewEntry(l.kind, l.payload, f.now)
		if err != nil {
			return err
		}
		if err := state.Apply(ledger.Item{Index: int64(i), Entry: entry, Payload: l.payload}); err != nil {
			return fmt.Errorf("the founding breaks a rule: %w", err)
		}
		entries = append(entries, entry)
	}
	f.head = state.Head()
	checkpoint, err := ledger.SignCheckpoint(ctx, ledger.Origin(f.cfg.Domain), f.head, f.hardware.keys[useLedger])
	if err != nil {
		return err
	}
	store, err := f.cfg.createDatabase(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	return store.Append(ctx, func(tx *authority.Tx) error {
		if size, err := tx.LedgerSize(); err != nil || size != 0 {
			return errors.Join(err, fmt.Errorf("the database holds a ledger of %d leaves already: name an empty one", size))
		}
		for i, l := range f.leaves {
			if err := l.appendTo(tx, entries[i]); err != nil {
				return err
			}
		}
		return tx.AddCheckpoint(authority.Checkpoint{Size: f.head.N, Note: checkpoint})
	})
}

// appendTo appends the leaf with what belongs to it.
func (l *leaf) appendTo(tx *authority.Tx, entry *ledger.Entry) error {
	index, err := tx.AppendLeaf(entry, l.payload)
	if err != nil {
		return err
	}
	return l.store(tx, index)
}

// store stores the certificate of a leaf that was appended.
func (l *leaf) store(tx *authority.Tx, index int64) error {
	if l.issuance == nil {
		return nil
	}
	i := *l.issuance
	i.Leaf, i.Certificate = index, nil
	if err := tx.AddIssuance(i); err != nil {
		return err
	}
	return tx.CompleteIssuance(i.Ref, l.issuance.Certificate)
}

// write writes the files, chain.pem last, because every other command looks for it
// first.
func (f *founder) write(context.Context) error {
	files := []struct {
		name string
		data []byte
	}{{foundingFile, f.founding}, {manifestFile, f.manifest}}
	if f.plan != nil {
		text, err := f.minutes()
		if err != nil {
			return err
		}
		f.record = text
		files = append(files, struct {
			name string
			data []byte
		}{recordFile, text})
		if err := os.Mkdir(f.cfg.path(officersDir), 0o755); err != nil {
			return err
		}
	}
	for _, file := range files {
		if err := writeNew(f.cfg.path(file.name), file.data); err != nil {
			return err
		}
	}
	for _, o := range f.officers {
		if err := writeNew(f.cfg.path(officerFile(o.application.Address)), encodePEM(o.cert.Raw, f.issuing.Raw)); err != nil {
			return err
		}
	}
	if err := writeNew(f.cfg.path(rootFile), encodePEM(f.root.Raw)); err != nil {
		return err
	}
	return writeNew(f.cfg.path(chainFile), encodePEM(f.issuing.Raw, f.root.Raw))
}

// minutes is the record that those present sign.
func (f *founder) minutes() ([]byte, error) {
	devices, err := f.plan.Appraisal.Hash()
	if err != nil {
		return nil, err
	}
	officers, err := f.plan.OfficerAppraisal.Hash()
	if err != nil {
		return nil, err
	}
	r := ceremony.Record{
		Plan: f.plan, Time: f.now, Root: sha256.Sum256(f.root.Raw), Issuing: sha256.Sum256(f.issuing.Raw),
		Founding: sha256.Sum256(f.founding), Manifest: sha256.Sum256(f.manifest),
		DevicePolicy: devices, OfficerPolicy: officers, Endorsements: f.endorsements.Version(),
		LedgerSize: f.head.N, LedgerRoot: f.head.Hash,
	}
	if r.Tokens, err = f.hardware.minutes(); err != nil {
		return nil, err
	}
	for _, o := range f.officers {
		id, err := identity.DeviceIDOf(o.cert.PublicKey)
		if err != nil {
			return nil, err
		}
		r.Officers = append(r.Officers, ceremony.RecordOfficer{
			Address: o.application.Address, Role: o.application.Role, Key: id, Certificate: sha256.Sum256(o.cert.Raw),
			Evidence: o.result.EvidenceHash, Application: o.file, Until: o.cert.NotAfter,
		})
	}
	return r.Text(), nil
}

// minutes lists the tokens with the keys in them.
func (h *hardware) minutes() ([]ceremony.RecordToken, error) {
	var tokens []ceremony.RecordToken
	at := make(map[hsm.Token]int)
	for _, p := range h.places {
		_, sum, err := spki(h.keys[p.use])
		if err != nil {
			return nil, err
		}
		token := h.tokenOf(p.use)
		n, known := at[token]
		if !known {
			i := token.Info()
			n, at[token] = len(tokens), len(tokens)
			tokens = append(tokens, ceremony.RecordToken{Label: i.Label, Serial: i.Serial, Model: i.Model, Firmware: i.Firmware})
		}
		algorithm, _ := hsm.AlgorithmOf(h.keys[p.use].Public())
		tokens[n].Keys = append(tokens[n].Keys, ceremony.RecordKey{Use: p.use, Label: p.label, Algorithm: algorithm.String(), SPKI: sum})
	}
	return tokens, nil
}
