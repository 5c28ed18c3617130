// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"crypto"
	"crypto/x509"
	"fmt"
	"time"

	"valise/identity"
)

// Lives of an authority's own certificates. They begin an hour early, because a
// device's certificate is judged as of its first moment, minutes after init.
const (
	rootLife      = 20 * 365 * day
	issuerLife    = 5 * 365 * day
	ownersHeadway = time.Hour
)

// Found makes a new authority's certificates from its two keys: a self-signed root
// and the issuing certificate below it. It is called once, by init.
func Found(domain string, root, issuing crypto.Signer, now time.Time) (rootCert, issuingCert *x509.Certificate, err error) {
	profile := identity.CAProfile{
		Domain: domain, PublicKey: root.Public(), Serial: newSerial(),
		NotBefore: now.Add(-ownersHeadway), NotAfter: now.Add(rootLife),
	}
	template, err := identity.RootTemplate(profile)
	if err != nil {
		return nil, nil, err
	}
	template.AuthorityKeyId = template.SubjectKeyId // its own: RFC 5280, Section 4.2.1.1
	if rootCert, err = certify(template, template, root); err != nil {
		return nil, nil, fmt.Errorf("root: %w", err)
	}
	issuingCert, err = NewIssuing(domain, rootCert, root, issuing.Public(), now)
	return rootCert, issuingCert, err
}

// NewIssuing makes an issuing certificate under a root for a key: the first one, or
// the one that takes the place of a lost one's. Its root must be at hand for it.
func NewIssuing(domain string, rootCert *x509.Certificate, root crypto.Signer, issuing crypto.PublicKey, now time.Time) (*x509.Certificate, error) {
	if now.After(rootCert.NotAfter) {
		return nil, fmt.Errorf("ca: the root expired on %s: found a new authority", rootCert.NotAfter.Format(time.DateOnly))
	}
	profile := identity.CAProfile{
		Domain: domain, PublicKey: issuing, Serial: newSerial(),
		NotBefore: latest(now.Add(-ownersHeadway), rootCert.NotBefore), NotAfter: now.Add(issuerLife),
	}
	if profile.NotAfter.After(rootCert.NotAfter) {
		profile.NotAfter = rootCert.NotAfter
	}
	template, err := identity.IssuerTemplate(profile)
	if err != nil {
		return nil, err
	}
	cert, err := certify(template, rootCert, root)
	if err != nil {
		return nil, fmt.Errorf("issuing certificate: %w", err)
	}
	return cert, checkChain([]*x509.Certificate{cert, rootCert}, issuing, now)
}

// SignOfficer makes an officer's certificate at a ceremony: when the authority is
// founded, and when its issuing key is replaced. It lives as long as those of
// IssueOfficer, which renews it. The caller fills in all of p but serial number and validity, and records
// the TBSCertificate in the ledger before anybody gets the certificate.
func SignOfficer(issuing *x509.Certificate, signer crypto.Signer, p identity.OfficerProfile, now time.Time) (*x509.Certificate, error) {
	p.Serial = newSerial()
	p.NotBefore, p.NotAfter = latest(now.Add(-backdate), issuing.NotBefore), now.Add(officerLife)
	if p.NotAfter.After(issuing.NotAfter) {
		p.NotAfter = issuing.NotAfter
	}
	template, err := p.Template()
	if err != nil {
		return nil, err
	}
	return certify(template, issuing, signer)
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func certify(template, parent *x509.Certificate, signer crypto.Signer) (*x509.Certificate, error) {
	is, err := newIssuer(parent, signer)
	if err != nil {
		return nil, err
	}
	tbs, err := is.build(template)
	if err != nil {
		return nil, err
	}
	der, err := is.sign(tbs)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}
