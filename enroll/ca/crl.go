// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"time"

	"valise/internal/store/authority"
)

// CRL returns the present certificate revocation list. While the token signs, it
// holds what was known a second ago; without the token it is the last one, until that
// ends.
func (s *Status) CRL(ctx context.Context) (authority.StoredCRL, error) {
	v, err, _ := s.flights.Do("crl", func() (any, error) { return s.crl(ctx) })
	list, _ := v.(authority.StoredCRL)
	return list, err
}

func (s *Status) crl(ctx context.Context) (authority.StoredCRL, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), statusLimit) // others wait for it, too
	defer cancel()
	now := s.cfg.Now()
	if last, recent := s.recentList(now); recent {
		return last, nil
	}
	listed, err := s.cfg.Standings.Listed(ctx, now)
	if err != nil {
		return authority.StoredCRL{}, fmt.Errorf("ca: revocation list: %w", err)
	}
	state := stateOf(listed...)
	good := func(c *authority.StoredCRL) bool {
		return string(c.State) == string(state) && fresh(c.Until, s.cfg.ListLife, now)
	}
	last, _ := s.recentList(now)
	if good(&last) {
		s.keepList(last, now)
		return last, nil
	}
	// Another process, or this one before a restart, may have signed a newer one.
	if stored, err := s.storedList(ctx); err == nil && stored.Number > last.Number {
		last = stored
	}
	if good(&last) {
		s.keepList(last, now)
		return last, nil
	}
	list, err := s.signList(ctx, listed, state, now)
	if err == nil {
		s.keepList(list, now)
		return list, nil
	}
	if usable(last.Until, now) {
		s.keepList(last, now)
		return last, nil // RFC 5280, Section 5.1.2.5: valid until nextUpdate
	}
	return list, err
}

// recentList returns the newest list that this process knows, and whether it was
// compared with the standings so short a time ago that a flood need not repeat it.
func (s *Status) recentList(now time.Time) (authority.StoredCRL, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	since := now.Sub(s.checked)
	return s.list, since >= 0 && since < listEvery && usable(s.list.Until, now)
}

func (s *Status) keepList(c authority.StoredCRL, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.checked = now; c.Number > s.list.Number {
		s.list = c
	}
}

func (s *Status) storedList(ctx context.Context) (c authority.StoredCRL, err error) {
	err = s.cfg.Store.View(ctx, func(tx *authority.Tx) error {
		c, err = tx.LatestCRL()
		return err
	})
	if err != nil {
		return c, err
	}
	// As with OCSP, the row says nothing of what the list says.
	list, err := x509.ParseRevocationList(c.DER)
	if err == nil {
		err = list.CheckSignatureFrom(s.cfg.Issuer)
	}
	if err == nil && (list.Number == nil || !list.Number.IsInt64() || list.Number.Int64() != c.Number) {
		err = errors.New("it has another number than its row")
	}
	if err != nil {
		return authority.StoredCRL{}, fmt.Errorf("ca: the stored revocation list: %w", err)
	}
	var said []CertificateStanding
	for _, e := range list.RevokedCertificateEntries {
		said = append(said, CertificateStanding{Serial: e.SerialNumber.Bytes(), Bad: true, Since: e.RevocationTime, Reason: e.ReasonCode})
	}
	c.State, c.Until = stateOf(said...), list.NextUpdate
	return c, nil
}

// signList takes a number, signs, and stores the list. A number whose list was never
// signed stays unused (RFC 5280, Section 5.2.3: they increase, and gaps are allowed).
func (s *Status) signList(ctx context.Context, listed []CertificateStanding, state []byte, now time.Time) (authority.StoredCRL, error) {
	list := authority.StoredCRL{State: state, Until: now.Add(s.cfg.ListLife).UTC().Truncate(time.Second)}
	if err := s.maySign(nil, now); err != nil {
		return list, err
	}
	err := s.cfg.Store.Update(ctx, func(tx *authority.Tx) (err error) {
		list.Number, err = tx.ReserveCRL(state, list.Until)
		return err
	})
	if err != nil {
		return list, err
	}
	template := &x509.RevocationList{
		Number: big.NewInt(list.Number), ThisUpdate: now.Add(-backdate).UTC().Truncate(time.Second), NextUpdate: list.Until,
	}
	for _, c := range listed {
		template.RevokedCertificateEntries = append(template.RevokedCertificateEntries, x509.RevocationListEntry{
			SerialNumber: new(big.Int).SetBytes(c.Serial), RevocationTime: c.Since, ReasonCode: c.Reason,
		})
	}
	der, err := x509.CreateRevocationList(rand.Reader, template, s.cfg.Issuer, s.cfg.Signer)
	if err != nil {
		return list, s.signingFailed("a revocation list", err)
	}
	// What the token answered is checked before anybody sees it.
	signed, err := x509.ParseRevocationList(der)
	if err == nil {
		err = signed.CheckSignatureFrom(s.cfg.Issuer)
	}
	if err != nil {
		return list, s.signingFailed("a revocation list as it should", err)
	}
	list.DER = der
	err = s.cfg.Store.Update(ctx, func(tx *authority.Tx) error { return tx.AddCRL(list) })
	if errors.Is(err, authority.ErrState) {
		err = nil // another process has stored a newer one meanwhile; this one is as true
	}
	return list, err
}

// stateOf is the SHA-256 over what an answer says.
func stateOf(listed ...CertificateStanding) []byte {
	h := sha256.New()
	for _, c := range listed {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(c.Serial))))
		h.Write(c.Serial)
		if !c.Bad {
			h.Write([]byte{0})
			continue
		}
		h.Write([]byte{1, byte(c.Reason)})
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(c.Since.Unix())))
	}
	return h.Sum(nil)
}
