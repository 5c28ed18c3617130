// SPDX-License-Identifier: Apache-2.0

package mls

import "crypto"

// A CredentialType says how a member is identified, RFC 9420, Section 17.5.
type CredentialType uint16

const (
	CredentialBasic CredentialType = 1
	CredentialX509  CredentialType = 2
)

// A Credential is a member's claim to an identity, RFC 9420, Section 5.3. It
// means nothing until the caller's Authenticator has approved it. Types other
// than these two cannot even be decoded, and are refused.
type Credential struct {
	Type         CredentialType
	Identity     []byte   // CredentialBasic
	Certificates [][]byte // CredentialX509: DER, leaf first
}

// BasicCredential returns a credential that is a bare identity.
func BasicCredential(identity []byte) Credential {
	return Credential{Type: CredentialBasic, Identity: identity}
}

// X509Credential returns a credential that is a certificate chain, DER, leaf
// first. The leaf's key must be the member's signature key.
func X509Credential(chain [][]byte) Credential {
	return Credential{Type: CredentialX509, Certificates: chain}
}

// readCredential decodes, RFC 9420, Section 5.3:
//
//	struct { opaque cert_data<V>; } Certificate;
//	struct {
//	    CredentialType credential_type;
//	    select (Credential.credential_type) {
//	        case basic: opaque identity<V>;
//	        case x509:  Certificate certificates<V>;
//	    };
//	} Credential;
func readCredential(r *reader) Credential {
	c := Credential{Type: CredentialType(r.u16())}
	switch c.Type {
	case CredentialBasic:
		c.Identity = r.opaque()
	case CredentialX509:
		c.Certificates = readVector(r, (*reader).opaque)
	default:
		r.fail()
	}
	return c
}

func (c Credential) append(b []byte) []byte {
	b = appendU16(b, uint16(c.Type))
	if c.Type == CredentialX509 {
		return appendVector(b, c.Certificates, appendOpaque)
	}
	return appendOpaque(b, c.Identity)
}

// An Authenticator is the caller's Authentication Service, RFC 9420, Section
// 5.3.1. It is asked about every credential that is new to a view of a group:
// at joins, adds, updates and paths; not again about one that a member keeps.
// This package has already checked that an X.509 leaf certificate holds
// signatureKey; what remains is trust.
type Authenticator interface {
	Authenticate(c Credential, signatureKey []byte) error
}

// An Identity is what a device brings into every group.
type Identity struct {
	Credential Credential
	// Signer makes every signature of the device: ed25519 for SuiteX25519,
	// ECDSA (ASN.1 DER) on the suite's curve for all others.
	Signer crypto.Signer
}
