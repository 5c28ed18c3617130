// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"valise/internal/store/authority"
	"valise/record"
)

// What waits for a signature lies in the database, and the database has no token:
// whoever writes there must not be able to choose what is signed. So a stored
// TBSCertificate counts only for its serial number and its dates; everything else
// is built again, and has to come out byte for byte.

// holds looks at a recorded order as if nothing were recorded: the judgement is made
// anew, and what is recorded has to be what it comes to.
func (c *CA) holds(ctx context.Context, f *facts, j *judgement) error {
	profile := j.profile
	profile.Serial = newSerial()
	profile.NotBefore, profile.NotAfter = c.validity(j.rules.life)
	template, err := profile.Template()
	if err != nil {
		return err
	}
	return c.cfg.Book.Look(ctx, func(tx *authority.Tx, s *record.State) error {
		if err := c.confirm(tx, s, f, j); err != nil {
			return err
		}
		if err := known(s, f.past); err != nil {
			return err
		}
		return c.same(tx, f.past, template, j.rules.life)
	})
}

// known checks that the record, which is in memory, has what is recorded at its leaf:
// rows and leaves of the database can be exchanged together. Where there are no
// officers the record does not look into certificates.
func known(s *record.State, i authority.Issuance) error {
	if leaf, ok := s.Serial(i.Serial); hasOfficers(s) && (!ok || leaf != i.Leaf) {
		return fmt.Errorf("%w: the record does not know it", ErrStale)
	}
	return nil
}

// same checks that what is recorded is what the template says, with another serial
// number and earlier dates, and that it stands in the ledger.
func (c *CA) same(tx *authority.Tx, i authority.Issuance, template *x509.Certificate, life time.Duration) error {
	if err := tx.Writable(); err != nil {
		return err // a restored copy signs nothing, not even what it has recorded
	}
	stored, err := parseTBS(i.TBS)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrStale, err)
	}
	now := c.cfg.Now()
	if now.After(stored.NotAfter) {
		return ErrExpired
	}
	issuer := c.cfg.Chain[0]
	if now.Before(stored.NotBefore) || stored.NotBefore.Before(issuer.NotBefore) ||
		stored.NotAfter.After(issuer.NotAfter) || stored.NotAfter.Sub(stored.NotBefore) > life+backdate {
		return fmt.Errorf("%w: its validity", ErrStale)
	}
	t := *template
	t.SerialNumber, t.NotBefore, t.NotAfter = stored.SerialNumber, stored.NotBefore, stored.NotAfter
	der, err := c.issuer.draft(&t)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrStale, err)
	}
	again, err := x509.ParseCertificate(der)
	if err != nil || !bytes.Equal(again.RawTBSCertificate, i.TBS) || !bytes.Equal(stored.SerialNumber.Bytes(), i.Serial) {
		return fmt.Errorf("%w: its contents", ErrStale)
	}
	entry, err := tx.LedgerEntry(i.Leaf)
	if errors.Is(err, authority.ErrNotFound) || err == nil && !entry.Records(i.TBS) {
		return fmt.Errorf("%w: its leaf", ErrStale)
	}
	return err
}

// parseTBS reads a TBSCertificate that has no signature yet.
func parseTBS(tbs []byte) (*x509.Certificate, error) {
	der, err := assemble(tbs, nil)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}
