// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"

	"github.com/google/go-tpm/tpm2"
)

// ActivationSecret is the secret that a TPM must give out before its attestation
// key is believed. It depends on everything that it is good for, so that nothing
// need be stored between handing it out and checking it:
//
//	HMAC-SHA-256(key, "valise tpm activation 1" 00 ‖ v(key authorization) ‖
//	             SHA-256(EK's SubjectPublicKeyInfo) ‖ v(name of the AK))
//
// with v(x) the bytes behind their length as uint32. The key is the verifier's
// alone: who knows it can pretend to be any TPM.
func ActivationSecret(key, keyAuthorization []byte, ek *x509.Certificate, akName []byte) []byte {
	mac := hmac.New(sha256.New, key)
	opaque := func(b []byte) {
		mac.Write(binary.BigEndian.AppendUint32(nil, uint32(len(b))))
		mac.Write(b)
	}
	mac.Write([]byte("valise tpm activation 1\x00"))
	opaque(keyAuthorization)
	sum := sha256.Sum256(ek.RawSubjectPublicKeyInfo)
	mac.Write(sum[:])
	opaque(akName)
	return mac.Sum(nil)
}

// NewCredential encrypts a secret to the endorsement key in ek so that its TPM
// gives it out only to whoever has the key with this name loaded in it (TPM 2.0
// Part 1, Section 24; TPM2_MakeCredential). It returns TPM2_ActivateCredential's
// credentialBlob and secret, without their sizes.
//
// This is for any EK, endorsed or not: a secret in the wrong hands helps nobody
// whose EK is not endorsed later.
func NewCredential(ek *x509.Certificate, akName, secret []byte) (blob, encrypted []byte, err error) {
	key, err := encapsulationKey(ek)
	if err != nil {
		return nil, nil, err
	}
	return tpm2.CreateCredential(rand.Reader, key, akName, secret)
}

// encapsulationKey builds the public area that every EK of this kind of key has:
// the certificate holds the key alone. TCG EK Credential Profile, Appendix B:
// templates L-1, L-2, H-1, H-2 and H-3 agree in what counts here, the algorithm
// of the name and the symmetric cipher.
func encapsulationKey(ek *x509.Certificate) (tpm2.LabeledEncapsulationKey, error) {
	public := &tpm2.TPMTPublic{NameAlg: tpm2.TPMAlgSHA256}
	symmetric := func(bits tpm2.TPMKeyBits) tpm2.TPMTSymDefObject {
		return tpm2.TPMTSymDefObject{
			Algorithm: tpm2.TPMAlgAES,
			KeyBits:   tpm2.NewTPMUSymKeyBits(tpm2.TPMAlgAES, bits),
			Mode:      tpm2.NewTPMUSymMode(tpm2.TPMAlgAES, tpm2.TPMAlgCFB),
		}
	}
	switch key := ek.PublicKey.(type) {
	case *rsa.PublicKey:
		if key.N.BitLen() != 2048 || key.E != 65537 {
			return nil, refuse(ReasonAlgorithm, "the TPM's endorsement key is RSA-%d, want RSA-2048, P-256 or P-384", key.N.BitLen())
		}
		public.Type = tpm2.TPMAlgRSA
		public.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{Symmetric: symmetric(128), KeyBits: 2048})
		public.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: key.N.Bytes()})
	case *ecdsa.PublicKey:
		curve, bits := tpm2.TPMECCNistP256, tpm2.TPMKeyBits(128)
		if key.Curve == elliptic.P384() {
			public.NameAlg, curve, bits = tpm2.TPMAlgSHA384, tpm2.TPMECCNistP384, 256
		} else if key.Curve != elliptic.P256() {
			return nil, refuse(ReasonAlgorithm, "the TPM's endorsement key is on curve %s, want P-256 or P-384", key.Curve.Params().Name)
		}
		point, err := key.Bytes()
		if err != nil {
			return nil, refuse(ReasonMalformed, "the TPM's endorsement key: %w", err)
		}
		half := 1 + (len(point)-1)/2
		public.Type = tpm2.TPMAlgECC
		public.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{Symmetric: symmetric(bits), CurveID: curve})
		public.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
			X: tpm2.TPM2BECCParameter{Buffer: point[1:half]}, Y: tpm2.TPM2BECCParameter{Buffer: point[half:]},
		})
	default:
		return nil, refuse(ReasonAlgorithm, "the TPM's endorsement key is a %T, want RSA-2048, P-256 or P-384", key)
	}
	imported, err := tpm2.ImportEncapsulationKey(public)
	if err != nil {
		return nil, refuse(ReasonMalformed, "the TPM's endorsement key: %w", err)
	}
	return imported, nil
}
