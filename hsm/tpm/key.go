// SPDX-License-Identifier: Apache-2.0

package tpm

import (
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"io"
	"math/big"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"valise/hsm"
)

// A key signs. One that can agree on secrets is an agreeingKey.
type key struct {
	token *Token
	ref   string
	at    object
	pub   *ecdsa.PublicKey
}

// An agreeingKey is a crypto/ecdh.KeyExchanger besides.
type agreeingKey struct {
	*key
	agree *ecdh.PublicKey
}

var (
	_ hsm.Key           = (*key)(nil)
	_ ecdh.KeyExchanger = (*agreeingKey)(nil)
)

// key wraps what stands at a handle.
func (t *Token) key(ref string, o *object) (hsm.Key, error) {
	pub, err := publicOf(o.public)
	if err != nil {
		return nil, fmt.Errorf("tpm: key %s: %w", ref, err)
	}
	k := &key{t, ref, *o, pub}
	if !o.public.ObjectAttributes.Decrypt || o.public.ObjectAttributes.Restricted {
		return k, nil
	}
	agree, err := pub.ECDH()
	if err != nil {
		return nil, fmt.Errorf("tpm: key %s: %w", ref, err)
	}
	return &agreeingKey{k, agree}, nil
}

// publicOf reads an elliptic-curve key's point.
func publicOf(area *tpm2.TPMTPublic) (*ecdsa.PublicKey, error) {
	parms, err := area.Parameters.ECCDetail()
	if err != nil {
		return nil, fmt.Errorf("%w: not an elliptic-curve key", hsm.ErrAlgorithm)
	}
	point, err := area.Unique.ECC()
	if err != nil {
		return nil, err
	}
	algorithm := hsm.P256
	switch parms.CurveID {
	case tpm2.TPMECCNistP256:
	case tpm2.TPMECCNistP384:
		algorithm = hsm.P384
	default:
		return nil, fmt.Errorf("%w: curve %#x", hsm.ErrAlgorithm, uint16(parms.CurveID))
	}
	curve := algorithm.Curve()
	raw, err := uncompressed(point.X.Buffer, point.Y.Buffer, (curve.Params().BitSize+7)/8)
	if err != nil {
		return nil, err
	}
	return ecdsa.ParseUncompressedPublicKey(curve, raw)
}

// uncompressed joins coordinates (SEC 1, Section 2.3.3), whose leading zeros some
// TPMs leave out.
func uncompressed(x, y []byte, size int) ([]byte, error) {
	if len(x) > size || len(y) > size {
		return nil, fmt.Errorf("coordinates of %d and %d bytes on a curve of %d", len(x), len(y), size)
	}
	raw := make([]byte, 1+2*size)
	raw[0] = 4
	copy(raw[1+size-len(x):], x)
	copy(raw[1+2*size-len(y):], y)
	return raw, nil
}

func (k *key) Public() crypto.PublicKey { return k.pub }

// Close lets go of the key; it holds nothing.
func (k *key) Close() error { return nil }

// Evidence returns ErrNoEvidence: a TPM's is made for one challenge (hsm.Certifier).
func (k *key) Evidence(context.Context) (hsm.Evidence, error) {
	return hsm.Evidence{}, fmt.Errorf("tpm: key %s: %w: a TPM certifies a key for one challenge only", k.ref, hsm.ErrNoEvidence)
}

// Sign makes an ECDSA signature in ASN.1 DER (TPM2_Sign). A TPM wants a digest as
// long as the hash that it is told; shorter ones are filled, longer ones cut as
// FIPS 186-5, Section 6.4.1 says, neither of which changes what is signed.
func (k *key) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts.HashFunc() != 0 && opts.HashFunc().Size() != len(digest) {
		return nil, fmt.Errorf("tpm: sign with key %s: a digest of %d bytes is not of %v", k.ref, len(digest), opts.HashFunc())
	}
	size, hash := 32, tpm2.TPMAlgSHA256
	if k.pub.Curve == hsm.P384.Curve() {
		size, hash = 48, tpm2.TPMAlgSHA384
	}
	if len(digest) == 0 {
		return nil, fmt.Errorf("tpm: sign with key %s: no digest", k.ref)
	}
	full := make([]byte, size)
	copy(full[max(0, size-len(digest)):], digest)
	signature, err := k.sign(full, hash)
	if err != nil {
		return nil, fmt.Errorf("tpm: sign with key %s: %w", k.ref, err)
	}
	if !ecdsa.VerifyASN1(k.pub, digest, signature) {
		return nil, fmt.Errorf("tpm: sign with key %s: the signature is wrong", k.ref)
	}
	return signature, nil
}

func (k *key) sign(digest []byte, hash tpm2.TPMAlgID) ([]byte, error) {
	ctx := context.Background()
	done, err := k.token.open(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	var rsp *tpm2.SignResponse
	err = k.token.use(ctx, false, func(auth tpm2.Session) (err error) {
		rsp, err = tpm2.Sign{
			KeyHandle: tpm2.AuthHandle{Handle: k.at.handle, Name: k.at.name, Auth: auth},
			Digest:    tpm2.TPM2BDigest{Buffer: digest},
			InScheme: tpm2.TPMTSigScheme{
				Scheme:  tpm2.TPMAlgECDSA,
				Details: tpm2.NewTPMUSigScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSchemeHash{HashAlg: hash}),
			},
			Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck},
		}.Execute(k.token.tpm)
		return err
	})
	if err != nil {
		return nil, err
	}
	ec, err := rsp.Signature.Signature.ECDSA()
	if err != nil {
		return nil, err
	}
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1BigInt(new(big.Int).SetBytes(ec.SignatureR.Buffer))
		b.AddASN1BigInt(new(big.Int).SetBytes(ec.SignatureS.Buffer))
	})
	return b.Bytes()
}

func (k *agreeingKey) PublicKey() *ecdh.PublicKey { return k.agree }

func (k *agreeingKey) Curve() ecdh.Curve { return k.agree.Curve() }

// ECDH agrees on a secret with the holder of peer (SP 800-56A, Section 5.7.1.2;
// TPM2_ECDH_ZGen).
func (k *agreeingKey) ECDH(peer *ecdh.PublicKey) ([]byte, error) {
	if peer == nil || peer.Curve() != k.agree.Curve() {
		return nil, fmt.Errorf("tpm: ecdh with key %s: %w", k.ref, hsm.ErrPoint)
	}
	secret, err := k.exchange(peer.Bytes()[1:])
	if err != nil {
		return nil, fmt.Errorf("tpm: ecdh with key %s: %w", k.ref, err)
	}
	return secret, nil
}

func (k *agreeingKey) exchange(point []byte) ([]byte, error) {
	ctx := context.Background()
	done, err := k.token.open(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	size := len(point) / 2
	var rsp *tpm2.ECDHZGenResponse
	err = k.token.use(ctx, true, func(auth tpm2.Session) (err error) {
		rsp, err = tpm2.ECDHZGen{
			KeyHandle: tpm2.AuthHandle{Handle: k.at.handle, Name: k.at.name, Auth: auth},
			InPoint: tpm2.New2B(tpm2.TPMSECCPoint{
				X: tpm2.TPM2BECCParameter{Buffer: point[:size]}, Y: tpm2.TPM2BECCParameter{Buffer: point[size:]},
			}),
		}.Execute(k.token.tpm)
		return err
	})
	if err != nil {
		return nil, err
	}
	out, err := rsp.OutPoint.Contents()
	if err != nil {
		return nil, err
	}
	x := out.X.Buffer
	if len(x) > size || len(x) == 0 {
		return nil, errors.New("the TPM's answer is no point")
	}
	return append(make([]byte, size-len(x)), x...), nil
}
