// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"time"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"
)

// A Role is what a person of the authority may do. One person has exactly one.
type Role string

// The roles.
const (
	// RoleOfficer decides on people and devices: approves, suspends, revokes.
	RoleOfficer Role = "officer"
	// RoleAdministrator decides on rules: profiles, roots, who is an officer.
	RoleAdministrator Role = "administrator"
	// RoleAuditor reads everything and decides nothing.
	RoleAuditor Role = "auditor"
)

// ParseRole reads a role by its name.
func ParseRole(s string) (Role, error) {
	switch r := Role(s); r {
	case RoleOfficer, RoleAdministrator, RoleAuditor:
		return r, nil
	}
	return "", fmt.Errorf("role %q: want officer, administrator or auditor", clip(s))
}

// marshal writes the role as the extension's value.
//
//	Role ::= UTF8String
func (r Role) marshal() ([]byte, error) {
	if _, err := ParseRole(string(r)); err != nil {
		return nil, err
	}
	var b cryptobyte.Builder
	b.AddASN1(tag.UTF8String, func(b *cryptobyte.Builder) { b.AddBytes([]byte(r)) })
	return b.Bytes()
}

// parseRole reads the extension's value; it accepts exactly what marshal
// writes.
func parseRole(der []byte) (Role, error) {
	var text cryptobyte.String
	s := cryptobyte.String(der)
	if !s.ReadASN1(&text, tag.UTF8String) || !s.Empty() {
		return "", errors.New("the role is not one UTF8String")
	}
	return ParseRole(string(text))
}

// An OfficerProfile is what varies in an officer's certificate. Everything
// else is fixed: empty subject, digitalSignature, our officer usage alone (the
// key opens no TLS connection), the role, and a critical subjectAltName as in
// a device's certificate.
type OfficerProfile struct {
	Address      Address
	PublicKey    crypto.PublicKey // of slot 9c; ECDSA on P-256 or P-384
	Role         Role
	Tier         Tier
	EvidenceHash [32]byte
	PolicyHash   [32]byte
	Serial       *big.Int // positive, at most 20 octets
	NotBefore    time.Time
	NotAfter     time.Time
}

// Template returns the certificate for x509.CreateCertificate.
func (p *OfficerProfile) Template() (*x509.Certificate, error) {
	if p.Address.IsZero() {
		return nil, errors.New("officer certificate: no address")
	}
	template, err := baseTemplate(p.PublicKey, p.Serial, p.NotBefore, p.NotAfter)
	if err != nil {
		return nil, fmt.Errorf("officer certificate: %w", err)
	}
	id, err := DeviceIDOf(p.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("officer certificate: %w", err)
	}
	role, err := p.Role.marshal()
	if err != nil {
		return nil, fmt.Errorf("officer certificate: %w", err)
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.UnknownExtKeyUsage = []asn1.ObjectIdentifier{OIDOfficerUsage}
	template.EmailAddresses = []string{p.Address.String()}
	template.URIs = []*url.URL{id.URL()}
	if err := addAppraisal(template, Appraisal{p.Tier, p.EvidenceHash, p.PolicyHash}); err != nil {
		return nil, fmt.Errorf("officer certificate: %w", err)
	}
	template.ExtraExtensions = append(template.ExtraExtensions, pkix.Extension{Id: OIDRole, Value: role})
	return template, nil
}

// An Officer is what an officer's chain proves. Its certificate and chain are
// shared with the Trust that returned it and must not be changed.
type Officer struct {
	Address   Address
	Key       DeviceID // of the key in slot 9c
	Role      Role
	Tier      Tier
	Appraisal Appraisal
	Root      [32]byte // SHA-256 of the root above the chain
	Leaf      *x509.Certificate
	Chain     [][]byte // DER as given, leaf first
}

// verifiedOfficer is a chain all of whose checks but those of time passed.
type verifiedOfficer struct {
	chain   *path
	officer Officer
}

// Officer checks the chain of an officer's certificate, DER, leaf first, the
// root with or without, as of the time at. The error is a *ChainError. Whether
// the officer was suspended or dismissed stands in the record, not in here.
func (t *Trust) Officer(chain [][]byte, at time.Time) (*Officer, error) {
	if err := checkSizes(chain); err != nil {
		return nil, err
	}
	key := chainKey(chain)
	t.mu.Lock()
	known := t.desk[key]
	t.mu.Unlock()
	if known == nil {
		var err error
		if known, err = t.verifyOfficer(chain); err != nil {
			return nil, err
		}
		t.mu.Lock()
		if len(t.desk) >= maxCached {
			clear(t.desk)
		}
		t.desk[key] = known
		t.mu.Unlock()
	}
	if err := known.chain.validAt(at); err != nil {
		return nil, err
	}
	officer := known.officer
	return &officer, nil
}

func (t *Trust) verifyOfficer(chain [][]byte) (*verifiedOfficer, error) {
	p, err := t.build(chain, nil)
	if err != nil {
		return nil, err
	}
	leaf := p.leaf()
	if err := checkOfficerUsage(leaf); err != nil {
		return nil, err
	}
	address, id, err := deviceNames(leaf)
	if err != nil {
		return nil, err
	}
	if address.Domain() != p.domain {
		return nil, refuse(0, ReasonWrongDomain, "officer %s is outside %s, the domain of the authority", address, p.domain)
	}
	appraisal, err := leafAppraisal(leaf)
	if err != nil {
		return nil, err
	}
	role, err := leafRole(leaf)
	if err != nil {
		return nil, err
	}
	return &verifiedOfficer{p, Officer{
		Address: address, Key: id, Role: role, Tier: appraisal.Tier, Appraisal: appraisal,
		Root: sha256.Sum256(p.certs[len(p.certs)-1].Raw), Leaf: leaf, Chain: p.given(len(chain)),
	}}, nil
}

// checkOfficerUsage checks that a leaf is an officer's and for nothing else: no
// standard usage lets its key open a connection.
func checkOfficerUsage(leaf *x509.Certificate) error {
	if leaf.KeyUsage != x509.KeyUsageDigitalSignature || len(leaf.ExtKeyUsage) != 0 ||
		len(leaf.UnknownExtKeyUsage) != 1 || !leaf.UnknownExtKeyUsage[0].Equal(OIDOfficerUsage) {
		return refuse(0, ReasonWrongUsage, "an officer's certificate is for digitalSignature and %v alone", OIDOfficerUsage)
	}
	return nil
}

func leafRole(leaf *x509.Certificate) (Role, error) {
	for _, ext := range leaf.Extensions {
		if ext.Id.Equal(OIDRole) {
			role, err := parseRole(ext.Value)
			if err != nil {
				return "", refuse(0, ReasonNoRole, "%w", err)
			}
			return role, nil
		}
	}
	return "", refuse(0, ReasonNoRole, "the certificate names no role")
}
