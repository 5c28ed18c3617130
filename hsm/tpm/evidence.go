// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"valise/hsm"
)

// endorsementKeys are where certificates of endorsement keys stand, and the keys
// themselves if they are kept (TCG EK Credential Profile, Section 2.2.1.4), with
// the template that makes them anew.
var endorsementKeys = []struct {
	certificate, key tpm2.TPMHandle
	template         tpm2.TPMTPublic
}{
	{0x01c00016, 0x81010016, highEK(tpm2.TPMECCNistP384)}, // H-3
	{0x01c00014, 0x81010014, highEK(tpm2.TPMECCNistP256)}, // H-2
	{0x01c0000a, 0x8101000a, tpm2.ECCEKTemplate},          // L-2
	{0x01c00002, 0x81010001, tpm2.RSAEKTemplate},          // L-1
}

// highEK is template H-2 or H-3 (TCG EK Credential Profile, Appendix B.4).
func highEK(curve tpm2.TPMECCCurve) tpm2.TPMTPublic {
	p := tpm2.ECCEKTemplate
	p.ObjectAttributes.UserWithAuth = true
	bits := tpm2.TPMKeyBits(128)
	p.AuthPolicy = tpm2.TPM2BDigest{Buffer: policyB256}
	if curve == tpm2.TPMECCNistP384 {
		p.NameAlg, bits = tpm2.TPMAlgSHA384, 256
		p.AuthPolicy = tpm2.TPM2BDigest{Buffer: policyB384}
	}
	p.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
		CurveID: curve,
		Symmetric: tpm2.TPMTSymDefObject{
			Algorithm: tpm2.TPMAlgAES,
			KeyBits:   tpm2.NewTPMUSymKeyBits(tpm2.TPMAlgAES, bits),
			Mode:      tpm2.NewTPMUSymMode(tpm2.TPMAlgAES, tpm2.TPMAlgCFB),
		},
	})
	p.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{})
	return p
}

// The digests of PolicyB, by which an owner may allow or forbid uses of an EK
// (TCG EK Credential Profile, Appendix B.6).
var (
	policyB256 = []byte{
		0xca, 0x3d, 0x0a, 0x99, 0xa2, 0xb9, 0x39, 0x06, 0xf7, 0xa3, 0x34, 0x24, 0x14, 0xef, 0xcf, 0xb3,
		0xa3, 0x85, 0xd4, 0x4c, 0xd1, 0xfd, 0x45, 0x90, 0x89, 0xd1, 0x9b, 0x50, 0x71, 0xc0, 0xb7, 0xa0,
	}
	policyB384 = []byte{
		0xb2, 0x6e, 0x7d, 0x28, 0xd1, 0x1a, 0x50, 0xbc, 0x53, 0xd8, 0x82, 0xbc, 0xf5, 0xfd, 0x3a, 0x1a,
		0x07, 0x41, 0x48, 0xbb, 0x35, 0xd3, 0xb4, 0xe4, 0xcb, 0x1c, 0x0a, 0xd9, 0xbd, 0xe4, 0x19, 0xca,
		0xcb, 0x47, 0xba, 0x09, 0x69, 0x96, 0x46, 0x15, 0x0f, 0x9f, 0xc0, 0x00, 0xf3, 0xf8, 0x0e, 0x12,
	}
)

// attestationTemplate makes the key that certifies: P-256, restricted, always the
// same one in a TPM. What its PIN would protect is public, so it has none.
func attestationTemplate() tpm2.TPMTPublic {
	mark := sha256.Sum256([]byte("valise attestation key 1"))
	return tpm2.TPMTPublic{
		Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, NoDA: true,
			Restricted: true, SignEncrypt: true,
		},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
			CurveID: tpm2.TPMECCNistP256,
			Scheme: tpm2.TPMTECCScheme{
				Scheme:  tpm2.TPMAlgECDSA,
				Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256}),
			},
		}),
		Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{X: tpm2.TPM2BECCParameter{Buffer: mark[:]}}),
	}
}

// Endorsement implements hsm.Certifier.
func (t *Token) Endorsement(ctx context.Context) (chain [][]byte, attestationKey []byte, err error) {
	done, err := t.open(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("tpm: endorsement: %w", err)
	}
	defer done()
	ek, certificate, err := t.endorsement()
	if err != nil {
		return nil, nil, fmt.Errorf("tpm: endorsement: %w", err)
	}
	t.flush(ek)
	ak, err := t.primary(authority(tpm2.TPMRHEndorsement, nil), attestationTemplate())
	if err != nil {
		return nil, nil, fmt.Errorf("tpm: attestation key: %w", err)
	}
	t.flush(ak)
	return [][]byte{certificate}, tpm2.Marshal(*ak.public), nil
}

// endorsement finds an endorsement key with its certificate.
func (t *Token) endorsement() (*object, []byte, error) {
	for _, at := range endorsementKeys {
		der, err := t.certificate(at.certificate)
		if errors.Is(err, tpm2.TPMRCHandle) || errors.Is(err, tpm2.TPMRCNVUninitialized) {
			continue
		}
		if err != nil {
			return nil, nil, fmt.Errorf("certificate %#x: %w", uint32(at.certificate), err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, nil, fmt.Errorf("certificate %#x: %w", uint32(at.certificate), err)
		}
		if o, err := t.read(at.key); err == nil && o.is(cert) {
			return o, der, nil
		}
		o, err := t.primary(authority(tpm2.TPMRHEndorsement, nil), at.template)
		if err != nil {
			return nil, nil, err
		}
		if o.is(cert) {
			return o, der, nil
		}
		t.flush(o) // made from another template; try the next one
	}
	return nil, nil, ErrNoCertificate
}

// is reports whether cert is for this key.
func (o *object) is(cert *x509.Certificate) bool {
	var public crypto.PublicKey
	public, err := tpm2.Pub(*o.public)
	if err != nil {
		return false
	}
	key, ok := public.(interface{ Equal(crypto.PublicKey) bool })
	return ok && key.Equal(cert.PublicKey)
}

// certificate reads one from the TPM's storage, without what fills the rest of it.
func (t *Token) certificate(index tpm2.TPMHandle) ([]byte, error) {
	rsp, err := tpm2.NVReadPublic{NVIndex: index}.Execute(t.tpm)
	if err != nil {
		return nil, err
	}
	public, err := rsp.NVPublic.Contents()
	if err != nil {
		return nil, err
	}
	if public.DataSize > maxCertificate {
		return nil, fmt.Errorf("it has %d bytes, at most %d are allowed", public.DataSize, maxCertificate)
	}
	reader := tpm2.AuthHandle{Handle: index, Name: rsp.NVName, Auth: tpm2.PasswordAuth(nil)}
	if !public.Attributes.AuthRead {
		reader = authority(tpm2.TPMRHOwner, nil)
	}
	var data []byte
	for len(data) < int(public.DataSize) {
		part, err := tpm2.NVRead{
			AuthHandle: reader, NVIndex: tpm2.NamedHandle{Handle: index, Name: rsp.NVName},
			Size: min(nvChunk, public.DataSize-uint16(len(data))), Offset: uint16(len(data)),
		}.Execute(t.tpm)
		if err != nil {
			return nil, asOwner(err)
		}
		if len(part.Data.Buffer) == 0 {
			return nil, errors.New("it cannot be read")
		}
		data = append(data, part.Data.Buffer...)
	}
	var der cryptobyte.String
	s := cryptobyte.String(data)
	if !s.ReadASN1Element(&der, asn1.SEQUENCE) {
		return nil, errors.New("it is no certificate")
	}
	return der, nil
}

// Activate implements hsm.Certifier (TPM2_ActivateCredential).
func (t *Token) Activate(ctx context.Context, credential, secret []byte) ([]byte, error) {
	plain, err := t.activate(ctx, credential, secret)
	if err != nil {
		return nil, fmt.Errorf("tpm: activate credential: %w", err)
	}
	return plain, nil
}

func (t *Token) activate(ctx context.Context, credential, secret []byte) ([]byte, error) {
	done, err := t.open(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	ek, _, err := t.endorsement()
	if err != nil {
		return nil, err
	}
	defer t.flush(ek)
	ak, err := t.primary(authority(tpm2.TPMRHEndorsement, nil), attestationTemplate())
	if err != nil {
		return nil, err
	}
	defer t.flush(ak)
	auth := tpm2.PasswordAuth(nil)
	if !ek.public.ObjectAttributes.UserWithAuth { // PolicyA: whoever owns the endorsement hierarchy
		auth = tpm2.Policy(tpm2.TPMAlgSHA256, 16, endorsementPolicy)
	}
	rsp, err := tpm2.ActivateCredential{
		ActivateHandle: tpm2.AuthHandle{Handle: ak.handle, Name: ak.name, Auth: tpm2.PasswordAuth(nil)},
		KeyHandle:      tpm2.AuthHandle{Handle: ek.handle, Name: ek.name, Auth: auth},
		CredentialBlob: tpm2.TPM2BIDObject{Buffer: credential},
		Secret:         tpm2.TPM2BEncryptedSecret{Buffer: secret},
	}.Execute(t.tpm)
	if err != nil {
		return nil, asOwner(err)
	}
	return rsp.CertInfo.Buffer, nil
}

// Certify implements hsm.Certifier (TPM2_Certify).
func (t *Token) Certify(ctx context.Context, k hsm.Key, nonce []byte) ([][]byte, error) {
	var of *key
	switch k := k.(type) {
	case *key:
		of = k
	case *agreeingKey:
		of = k.key
	}
	if of == nil || of.token != t {
		return nil, fmt.Errorf("tpm: certify: %w: the key is not in this TPM", hsm.ErrNoKey)
	}
	parts, err := t.certify(ctx, of, nonce)
	if err != nil {
		return nil, fmt.Errorf("tpm: certify key %s: %w", of.ref, err)
	}
	return parts, nil
}

func (t *Token) certify(ctx context.Context, k *key, nonce []byte) ([][]byte, error) {
	done, err := t.open(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	ak, err := t.primary(authority(tpm2.TPMRHEndorsement, nil), attestationTemplate())
	if err != nil {
		return nil, err
	}
	defer t.flush(ak)
	var rsp *tpm2.CertifyResponse
	err = t.use(ctx, false, func(auth tpm2.Session) (err error) {
		rsp, err = tpm2.Certify{
			ObjectHandle:   tpm2.AuthHandle{Handle: k.at.handle, Name: k.at.name, Auth: auth},
			SignHandle:     tpm2.AuthHandle{Handle: ak.handle, Name: ak.name, Auth: tpm2.PasswordAuth(nil)},
			QualifyingData: tpm2.TPM2BData{Buffer: nonce},
			InScheme:       tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
		}.Execute(t.tpm)
		return err
	})
	if err != nil {
		return nil, err
	}
	return [][]byte{tpm2.Marshal(*k.at.public), rsp.CertifyInfo.Bytes(), tpm2.Marshal(rsp.Signature)}, nil
}

func endorsementPolicy(tpm transport.TPM, handle tpm2.TPMISHPolicy, nonce tpm2.TPM2BNonce) error {
	_, err := tpm2.PolicySecret{
		AuthHandle: authority(tpm2.TPMRHEndorsement, nil), PolicySession: handle, NonceTPM: nonce,
	}.Execute(tpm)
	return err
}
