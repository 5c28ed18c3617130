// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"slices"
	"time"
)

// A TPM 2.0 vouches for its keys in two steps (TCG, "TPM 2.0 Keys for Device
// Identity and Attestation"):
//
//	EK  endorsement key; its certificate, under the maker's root, says that it
//	    sits in a TPM. It can decrypt, and cannot sign.
//	AK  attestation key: signs what the TPM itself says, and nothing else.
//
// That both sit in one TPM is shown by activation: the verifier encrypts a secret
// to the EK such that a TPM gives it out only if it also holds the AK of this
// name (TPM2_ActivateCredential). Then the AK certifies the device's key
// (TPM2_Certify), with the verifier's challenge in the statement.
//
// Evidence of FormatTPM has in Chain
//
//	public (TPMT_PUBLIC of the key), attestation (TPMS_ATTEST), signature
//	(TPMT_SIGNATURE), AK's public (TPMT_PUBLIC), EK's certificate
//
// and copies of endorsed certificates may follow; in KeyManagement the first three
// for the second key. It is good for one challenge: without one, or with another,
// nothing says that EK and AK belong together.

// verifyTPM is Verify for FormatTPM.
func verifyTPM(ev Evidence, challenge *Challenge, endorsements *Endorsements, now time.Time) (*Claims, error) {
	if len(ev.Chain) < 5 || len(ev.Chain) > 4+MaxEvidenceCertificates {
		return nil, refuse(ReasonMalformed, "%d parts, want the key's public area, its certification, the signature, the attestation key and the TPM's certificate", len(ev.Chain))
	}
	if n := len(ev.KeyManagement); n != 0 && n != 3 {
		return nil, refuse(ReasonMalformed, "%d parts about the second key, want its public area, its certification and the signature", n)
	}
	path, root, err := verifyEK(ev.Chain[4:], endorsements, now)
	if err != nil {
		return nil, err
	}
	ak, err := parseAK(ev.Chain[3])
	if err != nil {
		return nil, err
	}
	claims := new(Claims)
	key := func(parts [][]byte) (*KeyClaims, error) {
		k, nonce, err := ak.certified(parts)
		if err != nil {
			return nil, err
		}
		k.BuiltIn, k.Path = root.builtIn, links(path)
		ek := sha256.Sum256(path[0].RawSubjectPublicKeyInfo)
		k.Hardware = state(hex.EncodeToString(ek[:]))
		if challenge != nil && !bytes.Equal(nonce, CertificationNonce(challenge.KeyAuthorization)) {
			claims.Fresh = False // made for another challenge
		}
		return k, nil
	}
	first, err := key(ev.Chain[:3])
	if err != nil {
		return nil, err
	}
	claims.Key = *first
	if len(ev.KeyManagement) > 0 {
		if claims.KeyManagement, err = key(ev.KeyManagement); err != nil {
			return nil, err
		}
		claims.SameCard = True // one AK certified both
	}
	if challenge != nil && len(challenge.ActivationKey) > 0 {
		want := ActivationSecret(challenge.ActivationKey, challenge.KeyAuthorization, path[0], ak.name)
		claims.Activated = truth(hmac.Equal(want, challenge.Activation))
	}
	return claims, nil
}

// CertificationNonce is what a TPM must have signed for a challenge, as the
// attestation's extraData: SHA-256 of the key authorization.
func CertificationNonce(keyAuthorization []byte) []byte {
	sum := sha256.Sum256(keyAuthorization)
	return sum[:]
}

var (
	oidAltName = asn1.ObjectIdentifier{2, 5, 29, 17}
	// oidEK is tcg-kp-EKCertificate (TCG EK Credential Profile, Section 3.2.16).
	oidEK = asn1.ObjectIdentifier{2, 23, 133, 8, 1}
)

// VerifyEK checks a TPM's certificate as Verify will do it, and returns it.
func VerifyEK(chain [][]byte, endorsements *Endorsements, now time.Time) (*x509.Certificate, error) {
	if len(chain) == 0 || len(chain) > MaxEvidenceCertificates {
		return nil, refuse(ReasonMalformed, "%d certificates, want the TPM's, and at most %d", len(chain), MaxEvidenceCertificates)
	}
	if endorsements == nil {
		endorsements = new(Endorsements)
	}
	path, _, err := verifyEK(chain, endorsements, now)
	if err != nil {
		return nil, err
	}
	return path[0], nil
}

// verifyEK returns the path from a TPM's certificate to an endorsed root. What
// follows the certificate must be copies of endorsed ones.
func verifyEK(chain [][]byte, endorsements *Endorsements, now time.Time) ([]*x509.Certificate, *endorsed, error) {
	ek, err := ParseEK(chain[0])
	if err != nil {
		return nil, nil, err
	}
	for i, der := range chain[1:] {
		if !endorsements.holds(der) {
			return nil, nil, refuse(ReasonMalformed, "certificate %d behind the TPM's is no endorsed one", i+1)
		}
	}
	path, root := endorsements.extend([]*x509.Certificate{ek})
	if path == nil || root.builtIn { // the built-in ones stand above cards
		return nil, nil, refuse(ReasonUnknownRoot, "no endorsed root stands above the TPM's certificate, issued by %.80q", ek.Issuer)
	}
	return path, root, checkValid(path, now)
}

// ParseEK reads the certificate of an endorsement key (TCG EK Credential Profile,
// Section 3.2). It says nothing about who issued it.
func ParseEK(der []byte) (*x509.Certificate, error) {
	if len(der) > MaxCertificateSize {
		return nil, refuse(ReasonMalformed, "the TPM's certificate has %d bytes, at most %d are allowed", len(der), MaxCertificateSize)
	}
	ek, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, refuse(ReasonMalformed, "the TPM's certificate: %w", err)
	}
	// The subject is empty, and what names the TPM is a directoryName in a critical
	// subjectAltName, which crypto/x509 does not process. Nor do we rely on it.
	unhandled := slices.DeleteFunc(slices.Clone(ek.UnhandledCriticalExtensions), oidAltName.Equal)
	switch {
	case len(unhandled) > 0:
		return nil, refuse(ReasonMalformed, "the TPM's certificate: critical extension %v is not known", unhandled[0])
	case ek.IsCA:
		return nil, refuse(ReasonMalformed, "the TPM's certificate is a certification authority's")
	case !slices.ContainsFunc(ek.UnknownExtKeyUsage, oidEK.Equal):
		return nil, refuse(ReasonMalformed, "the certificate is not for a TPM's endorsement key (its extended key usage lacks %v)", oidEK)
	case ek.KeyUsage != 0 && ek.KeyUsage&(x509.KeyUsageKeyEncipherment|x509.KeyUsageKeyAgreement) == 0:
		return nil, refuse(ReasonMalformed, "the TPM's certificate is for a key that does not decrypt")
	}
	if _, err := encapsulationKey(ek); err != nil {
		return nil, err
	}
	return ek, nil
}

// An attestationKey is a parsed AK.
type attestationKey struct {
	area   *tpmPublic
	public *ecdsa.PublicKey
	name   []byte
}

// AKName returns the name (TPM 2.0 Part 1, Section 16) of an attestation key's
// public area. It refuses keys that could be made to sign what no TPM said.
func AKName(public []byte) ([]byte, error) {
	ak, err := parseAK(public)
	if err != nil {
		return nil, err
	}
	return ak.name, nil
}

// parseAK demands a restricted signing key that was made in its TPM and cannot
// leave it.
func parseAK(public []byte) (*attestationKey, error) {
	area, err := parseTPMPublic(public)
	if err != nil {
		return nil, refuse(ReasonMalformed, "attestation key: %w", err)
	}
	if area.attributes&akMask != akAttributes || area.scheme != tpmECDSA {
		return nil, refuse(ReasonMalformed, "attestation key: attributes %#x and scheme %#x are not those of a key that signs only what its TPM says", area.attributes, area.scheme)
	}
	key, err := area.key()
	if err != nil {
		return nil, refuse(ReasonMalformed, "attestation key: %w", err)
	}
	return &attestationKey{area, key, area.name()}, nil
}

// certified checks the certification of one key, and returns what its public area
// says with the nonce that was signed.
func (ak *attestationKey) certified(parts [][]byte) (*KeyClaims, []byte, error) {
	area, err := parseTPMPublic(parts[0])
	if err != nil {
		return nil, nil, refuse(ReasonMalformed, "the key's public area: %w", err)
	}
	key, err := area.key()
	if err != nil {
		return nil, nil, refuse(ReasonMalformed, "the key's public area: %w", err)
	}
	// The signature's type first: what it must be is the AK's to say.
	if err := ak.verify(parts[1], parts[2]); err != nil {
		return nil, nil, err
	}
	statement, err := parseCertification(parts[1])
	if err != nil {
		return nil, nil, refuse(ReasonMalformed, "the certification: %w", err)
	}
	if !bytes.Equal(statement.name, area.name()) {
		return nil, nil, refuse(ReasonKeyMismatch, "the certification is for another key than the one shown")
	}
	stays := truth(area.attributes&(tpmFixedTPM|tpmFixedParent) == tpmFixedTPM|tpmFixedParent && area.attributes&tpmEncryptedDuplication == 0)
	return &KeyClaims{
		PublicKey: key, Algorithm: algorithmOf(key),
		Generated:   truth(area.attributes&tpmSensitiveDataOrigin != 0),
		Extractable: not(stays), NeverExtractable: stays, // attributes never change
		Restricted: truth(area.attributes&tpmRestricted != 0),
	}, statement.nonce, nil
}

func not(t Truth) Truth {
	return map[Truth]Truth{True: False, False: True}[t]
}
