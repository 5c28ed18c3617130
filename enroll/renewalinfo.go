// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"time"

	"valise/enroll/acme"
	"valise/identity"
	"valise/internal/store/authority"
)

// RenewalInfo implements acme.Backend (RFC 9773): from two thirds of a certificate's
// life on, and at once when its device has to be appraised anew.
func (a *Authority) RenewalInfo(ctx context.Context, id acme.CertID) (acme.Window, error) {
	_, cert, err := a.certificate(ctx, id)
	if err != nil {
		return acme.Window{}, err
	}
	life := cert.NotAfter.Sub(cert.NotBefore)
	// The last sixth is for those whose first attempts fail.
	window := acme.Window{Start: cert.NotBefore.Add(life * 2 / 3), End: cert.NotBefore.Add(life * 5 / 6)}
	now := a.cfg.Now().UTC().Truncate(time.Second)
	if now.Before(window.Start) && a.outdated(cert) {
		// Section 4.2: an end that has passed means at once.
		window = acme.Window{Start: cert.NotBefore, End: now.Add(-time.Second)}
		if !window.End.After(window.Start) {
			window.Start = window.End.Add(-time.Second)
		}
	}
	return window, nil
}

// certificate finds an issued certificate.
func (a *Authority) certificate(ctx context.Context, id acme.CertID) (i authority.Issuance, cert *x509.Certificate, err error) {
	err = a.cfg.Store.View(ctx, func(tx *authority.Tx) error {
		i, err = tx.IssuanceBySerial(bytes.TrimLeft(id.Serial, "\x00"))
		return err
	})
	unknown := acme.Refuse(acme.NotFound, "this authority did not issue such a certificate")
	if errors.Is(err, authority.ErrNotFound) || err == nil && !i.Done() {
		return i, nil, unknown
	}
	if err != nil {
		return i, nil, err
	}
	if cert, err = x509.ParseCertificate(i.Certificate); err != nil {
		return i, nil, err
	}
	if !bytes.Equal(cert.AuthorityKeyId, id.KeyID) {
		return i, nil, unknown
	}
	return i, cert, nil
}

// outdated reports whether a device's certificate rests on an appraisal policy that
// is not the present one. Evidence never expires, so a change of the policy would
// otherwise reach a device at its next renewal only.
func (a *Authority) outdated(cert *x509.Certificate) bool {
	for _, ext := range cert.Extensions {
		if !ext.Id.Equal(identity.OIDAppraisal) {
			continue
		}
		was, err := identity.ParseAppraisal(ext.Value)
		if err != nil || was.PolicyHash == [32]byte{} {
			return false // witnessed: no policy was applied
		}
		now, err := a.cfg.CA.Appraisers()[0].Policy.Hash()
		return err == nil && now != was.PolicyHash
	}
	return false
}

// MayReplace implements acme.Backend (RFC 9773, Section 5).
func (a *Authority) MayReplace(ctx context.Context, account authority.Account, device identity.DeviceID, id acme.CertID) error {
	i, cert, err := a.certificate(ctx, id)
	if err != nil {
		return err
	}
	of, err := identity.DeviceIDOf(cert.PublicKey)
	if err != nil {
		return err
	}
	if i.Kind != "device" || i.Subject != account.Address.String() || account.Device == nil || *account.Device != of {
		return acme.Refuse(acme.NotYours, "the certificate to be replaced was not issued to this account")
	}
	if of != device {
		return acme.Refuse(acme.WrongIdentifier, "the certificate to be replaced is for another device")
	}
	var replaced bool
	err = a.cfg.Store.View(ctx, func(tx *authority.Tx) error {
		replaced, err = tx.Replaced(id.String())
		return err
	})
	if err == nil && replaced {
		err = acme.Refuse(acme.AlreadyReplaced, "another order replaces this certificate; make one without replaces if you need one more")
	}
	return err
}

// Replace implements acme.Backend.
func (a *Authority) Replace(ctx context.Context, order string, id acme.CertID) error {
	return a.cfg.Store.Update(ctx, func(tx *authority.Tx) error { return tx.ReplaceCertificate(order, id.String()) })
}
