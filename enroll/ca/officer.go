// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"valise/enroll/book"
	"valise/identity"
	"valise/internal/store/authority"
	"valise/record"
)

// officerLife is the life of an officer's certificate; it is made anew when two
// thirds of it are over.
const officerLife = 365 * day

// IssueOfficer makes the certificate of an officer whom two administrators appointed,
// or returns the newest one while it is good for another while. Everything in it
// comes from the record.
func (c *CA) IssueOfficer(ctx context.Context, a identity.Address) (authority.Issuance, error) {
	v, err, _ := c.flights.Do("officer:"+a.String(), func() (any, error) { return c.issueOfficer(ctx, a) })
	i, _ := v.(authority.Issuance)
	return i, err
}

func (c *CA) issueOfficer(ctx context.Context, a identity.Address) (authority.Issuance, error) {
	none := authority.Issuance{}
	o, err := c.inOffice(a)
	if err != nil {
		return none, err
	}
	i, err := c.newest(ctx, record.KindOfficer, a.String(), digest(o.SPKI))
	if err != nil || i.Done() {
		return i, err
	}
	template, err := c.officerTemplate(o)
	if err != nil {
		return none, err
	}
	if i.Ref != "" { // recorded before a crash, or while the token was away
		err = c.cfg.Book.Look(ctx, func(tx *authority.Tx, s *record.State) error {
			if err := known(s, i); err != nil {
				return err
			}
			return c.same(tx, i, template, officerLife)
		})
	}
	if i.Ref == "" || errors.Is(err, ErrStale) || errors.Is(err, ErrExpired) {
		i, err = c.recordOfficer(ctx, o, template)
	}
	if err != nil {
		return none, err
	}
	return c.finish(ctx, i, func(_ *authority.Tx, s *record.State) error {
		now, err := s.Officer(o.Key)
		if err == nil && now.Address != a {
			err = errChanged
		}
		return err
	})
}

func (c *CA) inOffice(a identity.Address) (o record.Officer, err error) {
	c.cfg.Book.View(func(s *record.State) {
		known, _ := s.OfficerAt(a)
		o, err = s.Officer(known.Key)
	})
	return o, err
}

func (c *CA) officerTemplate(o record.Officer) (*x509.Certificate, error) {
	key, err := x509.ParsePKIXPublicKey(o.SPKI)
	if err != nil {
		return nil, fmt.Errorf("ca: the officer's key: %w", err)
	}
	profile := identity.OfficerProfile{
		Address: o.Address, PublicKey: key, Role: o.Role, Tier: identity.TierHardware,
		EvidenceHash: o.Evidence, PolicyHash: o.Appraisal, Serial: newSerial(),
	}
	profile.NotBefore, profile.NotAfter = c.validity(officerLife)
	return profile.Template()
}

func (c *CA) recordOfficer(ctx context.Context, o record.Officer, template *x509.Certificate) (authority.Issuance, error) {
	tbs, err := c.issuer.build(template)
	if err != nil {
		return authority.Issuance{}, err
	}
	i := authority.Issuance{
		Ref: fmt.Sprintf("officer:%x", template.SerialNumber), Kind: record.KindOfficer, Subject: o.Address.String(),
		Request: digest(o.SPKI), Serial: template.SerialNumber.Bytes(), TBS: tbs, NotAfter: template.NotAfter,
	}
	err = c.cfg.Book.Update(ctx, func(tx *authority.Tx, _ *record.State, add book.Append) error {
		var err error
		i, err = enter(tx, add, i, c.cfg.Now()) // the record refuses whoever is not in office
		return err
	})
	return i, err
}

// OfficerChain returns an officer's newest certificate and its issuer, DER; nil while
// there is none.
func (c *CA) OfficerChain(ctx context.Context, o record.Officer) ([][]byte, time.Time, error) {
	var found authority.Issuance
	err := c.cfg.Store.View(ctx, func(tx *authority.Tx) (err error) {
		found, err = tx.LatestIssuance(record.KindOfficer, o.Address.String(), digest(o.SPKI))
		return err
	})
	if err != nil && !errors.Is(err, authority.ErrNotFound) {
		return nil, time.Time{}, err
	}
	der := found.Certificate
	if !found.Done() {
		der = o.Certificate // of the founding
	}
	if len(der) == 0 {
		return nil, time.Time{}, nil
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, time.Time{}, err
	}
	return [][]byte{der, c.issuerOf(cert)}, cert.NotAfter, nil
}

// issuerOf finds the issuing certificate above a certificate: the present one, or an
// earlier one of the manifest's.
func (c *CA) issuerOf(cert *x509.Certificate) (der []byte) {
	der = c.cfg.Chain[0].Raw
	c.cfg.Book.View(func(s *record.State) {
		m, _ := s.Manifest()
		if m == nil {
			return
		}
		for _, known := range m.Issuers {
			issuer, err := x509.ParseCertificate(known.Certificate)
			if err == nil && bytes.Equal(issuer.SubjectKeyId, cert.AuthorityKeyId) {
				der = issuer.Raw
			}
		}
	})
	return der
}
