// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"iter"
	"slices"
	"sync"
	"time"

	"valise/identity"
	"valise/internal/store/authority"
	rec "valise/record"
	"valise/statement"
)

// Reason codes of RFC 5280, Section 5.3.1.
const (
	reasonKeyCompromise      = 1
	reasonAffiliationChanged = 3
	reasonCertificateHold    = 6
	reasonPrivilegeWithdrawn = 9
)

// A CertificateStanding is what a CRL or an OCSP response says about a certificate.
type CertificateStanding struct {
	Serial []byte
	Bad    bool // suspended or revoked; the rest is zero if not
	Since  time.Time
	Reason int // RFC 5280, Section 5.3.1: 6 (certificateHold) while suspended
}

// Standings knows how certificates stand: Recorded where officers decide, Unrevoked
// where there are none.
type Standings interface {
	// Standing is false for a serial number that the authority has not issued, or
	// whose certificate has long expired.
	Standing(ctx context.Context, serial []byte, now time.Time) (CertificateStanding, bool, error)
	// Listed returns those that are suspended or revoked and have not expired, in
	// the order of their serial numbers.
	Listed(ctx context.Context, now time.Time) ([]CertificateStanding, error)
}

// Recorded takes standings from the verified record, so that no row of the database
// makes a revoked certificate good.
type Recorded struct {
	// View gives access to the record as it is, like book.Book's.
	View  func(func(*rec.State))
	Store *authority.Store

	mu      sync.Mutex
	size    int64                        // of the record when serials was made, guarded by mu
	serials map[string]identity.DeviceID // guarded by mu
}

// Standing implements Standings.
func (r *Recorded) Standing(ctx context.Context, serial []byte, _ time.Time) (c CertificateStanding, found bool, err error) {
	r.View(func(s *rec.State) {
		var id identity.DeviceID
		if id, found = r.find(s, serial); found {
			c = standingOf(s, id, serial)
		}
	})
	if found {
		return c, true, nil
	}
	// Gateways and the authority's own server have no keys in the record.
	i, err := issued(ctx, r.Store, serial)
	if err != nil || i == nil || i.Kind != rec.KindGateway && i.Kind != rec.KindServer {
		return c, false, err
	}
	id, err := deviceOf(i)
	if err != nil {
		return c, false, err
	}
	r.View(func(s *rec.State) { c = standingOf(s, id, serial) })
	return c, true, nil
}

// find looks a serial number up. Certificates are only ever added, so the table is
// made anew only for one that it does not have, and only once the record has grown.
func (r *Recorded) find(s *rec.State, serial []byte) (identity.DeviceID, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	id, found := r.serials[string(serial)]
	if found || r.serials != nil && r.size == s.Size() {
		return id, found
	}
	r.size, r.serials = s.Size(), make(map[string]identity.DeviceID)
	for k := range s.Keys() {
		for _, c := range k.Certificates {
			r.serials[string(c.Serial)] = k.ID
		}
	}
	for o, cert := range founders(s) {
		r.serials[string(cert.SerialNumber.Bytes())] = o.Key
	}
	id, found = r.serials[string(serial)]
	return id, found
}

// Listed implements Standings.
func (r *Recorded) Listed(ctx context.Context, now time.Time) (all []CertificateStanding, err error) {
	var gateways []authority.Issuance
	if err := r.Store.View(ctx, func(tx *authority.Tx) error {
		gateways, err = tx.LiveIssuances(rec.KindGateway, now)
		return err
	}); err != nil {
		return nil, err
	}
	r.View(func(s *rec.State) {
		for k := range s.Keys() {
			for _, c := range k.Certificates {
				if st := standingOf(s, k.ID, c.Serial); st.Bad && c.NotAfter.After(now) {
					all = append(all, st)
				}
			}
		}
		for o, cert := range founders(s) {
			if st := standingOf(s, o.Key, cert.SerialNumber.Bytes()); st.Bad && cert.NotAfter.After(now) {
				all = append(all, st)
			}
		}
		for _, g := range gateways {
			id, deviceErr := deviceOf(&g)
			if err = errors.Join(err, deviceErr); deviceErr != nil {
				continue
			}
			if st := standingOf(s, id, g.Serial); st.Bad {
				all = append(all, st)
			}
		}
	})
	slices.SortFunc(all, func(a, b CertificateStanding) int {
		return cmp.Or(cmp.Compare(len(a.Serial), len(b.Serial)), bytes.Compare(a.Serial, b.Serial))
	})
	return slices.CompactFunc(all, func(a, b CertificateStanding) bool { return bytes.Equal(a.Serial, b.Serial) }), err
}

// standingOf translates the record's words: suspended is certificateHold, the only
// one that can be taken back.
func standingOf(s *rec.State, id identity.DeviceID, serial []byte) CertificateStanding {
	now := s.Device(id)
	if o, ok := officerOf(s, id); ok && now.State != rec.Revoked {
		left := o.Dismissed
		if o.Key != id {
			left = o.Since // appointed anew, with another card
		}
		if office := s.OfficerStanding(o.Address); office.State != "" {
			now = office
		}
		if !left.IsZero() {
			now = rec.Standing{State: rec.Revoked, Since: left, Target: statement.Target{Kind: statement.TargetOfficer}}
		}
	}
	c := CertificateStanding{Serial: serial, Since: now.Since.UTC()}
	switch {
	case now.State == "":
		return CertificateStanding{Serial: serial}
	case now.State != rec.Revoked: // whatever else the record may say one day
		c.Reason = reasonCertificateHold
	case now.Target.Kind == statement.TargetOfficer:
		c.Reason = reasonPrivilegeWithdrawn
	case now.Target.Kind == statement.TargetPerson:
		c.Reason = reasonAffiliationChanged
	default: // the device, its card, or its vendor's root
		c.Reason = reasonKeyCompromise
	}
	c.Bad = true
	return c
}

// founders are the officers whose certificates are part of the founding: those stand
// in no leaf of their own.
func founders(s *rec.State) iter.Seq2[rec.Officer, *x509.Certificate] {
	return func(yield func(rec.Officer, *x509.Certificate) bool) {
		for _, o := range s.Officers() {
			cert, err := x509.ParseCertificate(o.Certificate)
			if err == nil && !yield(o, cert) { // appointed later: no certificate
				return
			}
		}
	}
}

// officerOf finds the officer that a key's certificates are about.
func officerOf(s *rec.State, id identity.DeviceID) (rec.Officer, bool) {
	if k, ok := s.Key(id); ok {
		o, found := s.OfficerAt(k.Address)
		return o, found && k.Kind == rec.KindOfficer
	}
	for _, o := range s.Officers() {
		if o.Key == id {
			return o, true
		}
	}
	return rec.Officer{}, false
}

// Unrevoked is for an authority without officers: nobody can revoke there, and what
// was issued is good.
type Unrevoked struct{ Store *authority.Store }

// Standing implements Standings.
func (u Unrevoked) Standing(ctx context.Context, serial []byte, _ time.Time) (CertificateStanding, bool, error) {
	i, err := issued(ctx, u.Store, serial)
	return CertificateStanding{Serial: serial}, i != nil, err
}

// Listed implements Standings.
func (Unrevoked) Listed(context.Context, time.Time) ([]CertificateStanding, error) { return nil, nil }

// issued finds a certificate that was issued and stands in the ledger; nil if there
// is none.
func issued(ctx context.Context, store *authority.Store, serial []byte) (found *authority.Issuance, err error) {
	err = store.View(ctx, func(tx *authority.Tx) error {
		i, err := tx.IssuanceBySerial(serial)
		if errors.Is(err, authority.ErrNotFound) || err == nil && !i.Done() {
			return nil
		}
		if err != nil {
			return err
		}
		entry, err := tx.LedgerEntry(i.Leaf)
		if err != nil {
			return err
		}
		if cert, parseErr := parseTBS(i.TBS); parseErr == nil && entry.Records(i.TBS) && bytes.Equal(cert.SerialNumber.Bytes(), serial) {
			found = &i
		}
		return nil
	})
	return found, err
}

func deviceOf(i *authority.Issuance) (identity.DeviceID, error) {
	cert, err := parseTBS(i.TBS)
	if err != nil {
		return identity.DeviceID{}, err
	}
	return identity.DeviceIDOf(cert.PublicKey)
}
