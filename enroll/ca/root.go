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
	profile.PublicKey, profile.Serial, profile.NotAfter = issuing.Public(), newSerial(), now.Add(issuerLife)
	if template, err = identity.IssuerTemplate(profile); err != nil {
		return nil, nil, err
	}
	if issuingCert, err = certify(template, rootCert, root); err != nil {
		return nil, nil, fmt.Errorf("issuing certificate: %w", err)
	}
	return rootCert, issuingCert, checkChain([]*x509.Certificate{issuingCert, rootCert}, issuing.Public(), now)
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
