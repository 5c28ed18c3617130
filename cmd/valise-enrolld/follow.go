// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"valise/hsm"
	"valise/internal/keys"
	"valise/internal/store/authority"
	"valise/manifest"
	"valise/record"
)

// What the files of the data directory say about keys follows the record: the manifest
// that it holds is the one that counts. So a change that was cut short after it was
// recorded is finished by whoever looks next, and each daemon on one database learns of
// it without a copy of files.

// behind reports whether the files are those of an earlier manifest than this one of the
// record. Files of a later one say that the database was set back.
func (o *office) behind(raw []byte) (bool, error) {
	data, err := os.ReadFile(o.cfg.path(manifestFile))
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	if !bytes.Equal(data, raw) {
		return true, o.follows(data, raw)
	}
	m, err := manifest.ParseManifest(raw, o.chain[1])
	if err != nil {
		return false, err
	}
	return !bytes.Equal(m.Issuers[0].Certificate, o.chain[0].Raw), nil
}

func (o *office) follows(file, raw []byte) error {
	have, err := manifest.ParseManifest(file, o.chain[1])
	if err != nil {
		return fmt.Errorf("%s: %w", o.cfg.path(manifestFile), err)
	}
	recorded, err := manifest.ParseManifest(raw, o.chain[1])
	if err == nil {
		err = recorded.Follows(have)
	}
	if err != nil {
		return fmt.Errorf("the database's manifest does not follow manifest %d in %s: it was set back, or is another authority's: %w",
			have.Number, o.cfg.path(manifestFile), err)
	}
	return nil
}

// writeManifest writes the files for a manifest of the record, chain.pem last.
func (o *office) writeManifest(raw []byte, officers []record.Officer) error {
	m, err := manifest.ParseManifest(raw, o.chain[1])
	if err != nil {
		return err
	}
	issuing, err := x509.ParseCertificate(m.Issuers[0].Certificate)
	if err != nil {
		return err
	}
	if err := o.writeOfficers(context.Background(), officers, issuing); err != nil {
		return err
	}
	if err := replace(o.cfg.path(manifestFile), raw); err != nil {
		return err
	}
	if err := replace(o.cfg.path(chainFile), encodePEM(issuing.Raw, o.chain[1].Raw)); err != nil {
		return err
	}
	o.chain = []*x509.Certificate{issuing, o.chain[1]}
	return nil
}

// writeOfficers writes the newest certificates of those in office that the issuing
// certificate in use made.
func (o *office) writeOfficers(ctx context.Context, officers []record.Officer, issuer *x509.Certificate) error {
	for _, f := range officers {
		var newest authority.Issuance
		err := o.store.View(ctx, func(tx *authority.Tx) (err error) {
			newest, err = tx.LatestIssuance(record.KindOfficer, f.Address.String(), f.Key[:])
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
		if err := os.MkdirAll(o.cfg.path(officersDir), 0o755); err != nil {
			return err
		}
		if err := replace(o.cfg.path(officerFile(f.Address)), encodePEM(cert.Raw, issuer.Raw)); err != nil {
			return err
		}
	}
	return nil
}

// inOffice lists the officers who are.
func inOffice(s *record.State) (all []record.Officer) {
	for _, o := range s.Officers() {
		if _, err := s.Officer(o.Key); err == nil {
			all = append(all, o)
		}
	}
	return all
}

// adopt makes the record's manifest the office's: its files and its keys.
func (o *office) adopt(ctx context.Context) error {
	var officers []record.Officer
	var raw []byte
	o.book.View(func(s *record.State) {
		_, raw = s.Manifest()
		officers = inOffice(s)
	})
	if raw == nil {
		return notFounded(o.cfg)
	}
	behind, err := o.behind(raw)
	if err != nil {
		return err
	}
	if behind {
		if err := o.writeManifest(raw, officers); err != nil {
			return err
		}
	}
	if o.manifest, err = manifest.ParseManifest(raw, o.chain[1]); err != nil {
		return err
	}
	return o.openKeys(ctx, o.manifest, &o.issuerKey, &o.bulletinKey, &o.ledgerKey)
}

// openKeys opens the keys that a manifest names.
func (o *office) openKeys(ctx context.Context, m *manifest.Manifest, issuing, bulletin, ledger *hsm.Key) error {
	for _, k := range []struct {
		use, label string
		into       *hsm.Key
	}{{useIssuing, o.cfg.Token.IssuerKey, issuing}, {useBulletin, o.cfg.Token.BulletinKey, bulletin}, {useLedger, o.cfg.Token.LedgerKey, ledger}} {
		key, err := openNamed(ctx, o.token, m, k.use, k.label)
		if err != nil {
			return err
		}
		if o.watch != nil {
			key = keys.Timed(key, o.watch.Signs(k.use))
		}
		*k.into = key
	}
	return nil
}
