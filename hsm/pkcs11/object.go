// SPDX-License-Identifier: Apache-2.0

//go:build cgo

package pkcs11

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"encoding/asn1"
	"errors"
	"fmt"

	p11 "github.com/miekg/pkcs11"
	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"valise/hsm"
)

// Names of curves in CKA_EC_PARAMS (PKCS#11 v2.40 mechanisms, Section 2.3.3;
// v3.0, Section 2.3.5 for Edwards curves, which SoftHSM names by a string).
var (
	oidP256    = asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7}
	oidP384    = asn1.ObjectIdentifier{1, 3, 132, 0, 34}
	oidEd25519 = asn1.ObjectIdentifier{1, 3, 101, 112}

	nameEd25519 = "edwards25519"
)

// Values of PKCS#11 v3.0 that miekg/pkcs11 may lack.
const (
	ckmEdwardsKeyPairGen = 0x1055
	ckmEdDSA             = 0x1057
)

// find returns the objects that match.
func find(ctx *p11.Ctx, s p11.SessionHandle, template ...*p11.Attribute) ([]p11.ObjectHandle, error) {
	if err := ctx.FindObjectsInit(s, template); err != nil {
		return nil, fmt.Errorf("find: %w", err)
	}
	objects, _, err := ctx.FindObjects(s, maxObjects)
	if end := ctx.FindObjectsFinal(s); err == nil {
		err = end
	}
	if err != nil {
		return nil, fmt.Errorf("find: %w", err)
	}
	return objects, nil
}

// attribute reads one attribute; nil if the object has none.
func attribute(ctx *p11.Ctx, s p11.SessionHandle, o p11.ObjectHandle, kind uint) ([]byte, error) {
	values, err := ctx.GetAttributeValue(s, o, []*p11.Attribute{p11.NewAttribute(kind, nil)})
	if is(err, p11.CKR_ATTRIBUTE_TYPE_INVALID) || is(err, p11.CKR_ATTRIBUTE_SENSITIVE) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read an attribute: %w", err)
	}
	if len(values) != 1 {
		return nil, nil
	}
	return values[0].Value, nil
}

// A pair is a private key object and what is known of it.
type pair struct {
	private p11.ObjectHandle
	pub     crypto.PublicKey
	agrees  bool // CKA_DERIVE: it may do ECDH
}

// findPair finds the one private key that label and id name, and its public
// key.
func findPair(ctx *p11.Ctx, s p11.SessionHandle, label string, id []byte) (*pair, error) {
	name := naming(label, id)
	private, err := find(ctx, s, append(name, p11.NewAttribute(p11.CKA_CLASS, p11.CKO_PRIVATE_KEY))...)
	if err != nil {
		return nil, err
	}
	switch {
	case len(private) == 0:
		return nil, hsm.ErrNoKey
	case len(private) > 1:
		return nil, fmt.Errorf("%d of them: %w", len(private), hsm.ErrManyKeys)
	}
	derive, err := attribute(ctx, s, private[0], p11.CKA_DERIVE)
	if err != nil {
		return nil, err
	}
	pub, err := publicOf(ctx, s, private[0], name)
	if err != nil {
		return nil, err
	}
	return &pair{private[0], pub, len(derive) == 1 && derive[0] != 0}, nil
}

func naming(label string, id []byte) []*p11.Attribute {
	var name []*p11.Attribute
	if label != "" {
		name = append(name, p11.NewAttribute(p11.CKA_LABEL, label))
	}
	if len(id) > 0 {
		name = append(name, p11.NewAttribute(p11.CKA_ID, id))
	}
	return name
}

// publicOf reads the public key that belongs to a private one: from the public
// object with its id, else with its name, else from the private object, where
// some HSMs keep the point.
func publicOf(ctx *p11.Ctx, s p11.SessionHandle, private p11.ObjectHandle, name []*p11.Attribute) (crypto.PublicKey, error) {
	public := p11.NewAttribute(p11.CKA_CLASS, p11.CKO_PUBLIC_KEY)
	id, err := attribute(ctx, s, private, p11.CKA_ID)
	if err != nil {
		return nil, err
	}
	if len(id) > 0 {
		name = []*p11.Attribute{p11.NewAttribute(p11.CKA_ID, id)}
	}
	objects, err := find(ctx, s, append(name[:len(name):len(name)], public)...)
	if err != nil {
		return nil, err
	}
	if len(objects) > 1 {
		return nil, fmt.Errorf("%d public keys belong to it: %w", len(objects), hsm.ErrManyKeys)
	}
	for _, o := range append(objects, private) {
		params, err := attribute(ctx, s, o, p11.CKA_EC_PARAMS)
		if err != nil {
			return nil, err
		}
		point, err := attribute(ctx, s, o, p11.CKA_EC_POINT)
		if err != nil {
			return nil, err
		}
		if len(params) > 0 && len(point) > 0 {
			return parsePublic(params, point)
		}
	}
	return nil, fmt.Errorf("its public key is not in the token: %w", hsm.ErrNoKey)
}

// parsePublic reads CKA_EC_PARAMS and CKA_EC_POINT. The point should be a DER
// OCTET STRING (PKCS#11 v2.40 mechanisms, Section 2.3.3), and in some tokens is
// bare; both begin with 04, so the length decides.
func parsePublic(params, point []byte) (crypto.PublicKey, error) {
	if len(point) > maxPoint {
		return nil, fmt.Errorf("an EC point of %d bytes: %w", len(point), hsm.ErrAlgorithm)
	}
	algorithm, err := parseParams(params)
	if err != nil {
		return nil, err
	}
	size := ed25519.PublicKeySize
	curve := algorithm.Curve()
	if curve != nil {
		size = 1 + 2*((curve.Params().BitSize+7)/8)
	}
	if len(point) != size {
		s, inner := cryptobyte.String(point), cryptobyte.String(nil)
		if !s.ReadASN1(&inner, cbasn1.OCTET_STRING) || !s.Empty() || len(inner) != size {
			return nil, errors.New("the token's EC point is malformed")
		}
		point = inner
	}
	if curve == nil {
		return ed25519.PublicKey(bytes.Clone(point)), nil
	}
	return ecdsa.ParseUncompressedPublicKey(curve, point)
}

func parseParams(params []byte) (hsm.Algorithm, error) {
	s := cryptobyte.String(params)
	var oid asn1.ObjectIdentifier
	if s.PeekASN1Tag(cbasn1.PrintableString) {
		var name cryptobyte.String
		if s.ReadASN1(&name, cbasn1.PrintableString) && s.Empty() && string(name) == nameEd25519 {
			return hsm.Ed25519, nil
		}
		return 0, fmt.Errorf("curve %q: %w", params, hsm.ErrAlgorithm)
	}
	if !s.ReadASN1ObjectIdentifier(&oid) || !s.Empty() {
		return 0, fmt.Errorf("a curve that has no name: %w", hsm.ErrAlgorithm)
	}
	switch {
	case oid.Equal(oidP256):
		return hsm.P256, nil
	case oid.Equal(oidP384):
		return hsm.P384, nil
	case oid.Equal(oidEd25519):
		return hsm.Ed25519, nil
	}
	return 0, fmt.Errorf("curve %v: %w", oid, hsm.ErrAlgorithm)
}

// marshalParams is CKA_EC_PARAMS of a new key.
func marshalParams(a hsm.Algorithm) (params []byte, mechanism uint, err error) {
	switch a {
	case hsm.P256:
		params, err = asn1.Marshal(oidP256)
		return params, p11.CKM_EC_KEY_PAIR_GEN, err
	case hsm.P384:
		params, err = asn1.Marshal(oidP384)
		return params, p11.CKM_EC_KEY_PAIR_GEN, err
	case hsm.Ed25519:
		params, err = asn1.MarshalWithParams(nameEd25519, "printable")
		return params, ckmEdwardsKeyPairGen, err
	}
	return nil, 0, fmt.Errorf("%v: %w", a, hsm.ErrAlgorithm)
}

// marshalSignature turns r‖s (PKCS#11 v2.40 mechanisms, Section 2.3.1) into
// the ASN.1 that the rest of the world uses (RFC 3279, Section 2.2.3).
func marshalSignature(raw []byte, curve elliptic.Curve) ([]byte, error) {
	n := (curve.Params().BitSize + 7) / 8
	if len(raw) != 2*n {
		return nil, fmt.Errorf("the token gave a signature of %d bytes, not %d", len(raw), 2*n)
	}
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		addUnsigned(b, raw[:n])
		addUnsigned(b, raw[n:])
	})
	return b.Bytes()
}

// addUnsigned adds a big-endian number as a DER INTEGER.
func addUnsigned(b *cryptobyte.Builder, number []byte) {
	number = bytes.TrimLeft(number, "\x00")
	b.AddASN1(cbasn1.INTEGER, func(b *cryptobyte.Builder) {
		if len(number) == 0 || number[0]&0x80 != 0 {
			b.AddUint8(0)
		}
		b.AddBytes(number)
	})
}
