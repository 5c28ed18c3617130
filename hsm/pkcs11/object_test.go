// SPDX-License-Identifier: Apache-2.0

//go:build cgo

package pkcs11

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/asn1"
	"math/big"
	"testing"

	"valise/hsm"
)

// PKCS#11 v2.40 mechanisms, Section 2.3.3: CKA_EC_POINT is DER; some tokens
// give it bare.
func TestPublicKeyDERAndBare(t *testing.T) {
	for _, a := range []hsm.Algorithm{hsm.P256, hsm.P384} {
		private, err := ecdsa.GenerateKey(a.Curve(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		bare, _ := private.PublicKey.Bytes()
		der, _ := asn1.Marshal(bare)
		params, _, _ := marshalParams(a)
		for name, point := range map[string][]byte{"bare": bare, "DER": der} {
			pub, err := parsePublic(params, point)
			if err != nil || !private.PublicKey.Equal(pub) {
				t.Errorf("%v %s: %v", a, name, err)
			}
		}
		off := bytes.Clone(bare)
		off[len(off)-1] ^= 1
		for name, point := range map[string][]byte{
			"off the curve": off, "cut": bare[:len(bare)-1], "trailing": append(bytes.Clone(der), 0),
			"empty": nil, "huge": make([]byte, maxPoint+1), "infinity": {0},
		} {
			if _, err := parsePublic(params, point); err == nil {
				t.Errorf("%v: a point that is %s was accepted", a, name)
			}
		}
	}
	p521, _ := asn1.Marshal(asn1.ObjectIdentifier{1, 3, 132, 0, 35})
	if _, err := parsePublic(p521, []byte{4}); err == nil {
		t.Error("P-521 was accepted")
	}
}

// RFC 3279, Section 2.2.3; small numbers come up once in 256 signatures.
func TestSignatureIsMinimalDER(t *testing.T) {
	curve := elliptic.P256()
	for _, n := range []*big.Int{
		big.NewInt(1), big.NewInt(0x7f), big.NewInt(0x80),
		new(big.Int).Lsh(big.NewInt(0x80), 248), new(big.Int).Sub(curve.Params().N, big.NewInt(1)),
	} {
		raw := make([]byte, 64)
		n.FillBytes(raw[:32])
		big.NewInt(0x81).FillBytes(raw[32:])
		got, err := marshalSignature(raw, curve)
		if err != nil {
			t.Fatal(err)
		}
		want, _ := asn1.Marshal(struct{ R, S *big.Int }{n, big.NewInt(0x81)})
		if !bytes.Equal(got, want) {
			t.Errorf("%x: got %x, want %x", n, got, want)
		}
	}
	for _, size := range []int{0, 63, 65, 96} {
		if _, err := marshalSignature(make([]byte, size), curve); err == nil {
			t.Errorf("%d bytes were accepted", size)
		}
	}
}

func FuzzParsePublic(f *testing.F) {
	for _, a := range []hsm.Algorithm{hsm.P256, hsm.P384, hsm.Ed25519} {
		params, _, _ := marshalParams(a)
		if curve := a.Curve(); curve != nil {
			private, _ := ecdsa.GenerateKey(curve, rand.Reader)
			bare, _ := private.PublicKey.Bytes()
			der, _ := asn1.Marshal(bare)
			f.Add(params, bare)
			f.Add(params, der)
		}
		f.Add(params, make([]byte, 32))
	}
	f.Fuzz(func(t *testing.T, params, point []byte) {
		pub, err := parsePublic(params, point)
		if err != nil {
			return
		}
		if _, ok := hsm.AlgorithmOf(pub); !ok {
			t.Errorf("accepted a %T", pub)
		}
		if ec, ok := pub.(*ecdsa.PublicKey); ok {
			bare, err := ec.Bytes()
			if err != nil || !bytes.HasSuffix(point, bare) {
				t.Errorf("%x became %x (%v)", point, bare, err)
			}
		}
	})
}

func FuzzMarshalSignature(f *testing.F) {
	f.Add(make([]byte, 64))
	f.Add(bytes.Repeat([]byte{0xff}, 64))
	f.Add(append(make([]byte, 31), bytes.Repeat([]byte{0x80}, 33)...))
	f.Fuzz(func(t *testing.T, raw []byte) {
		der, err := marshalSignature(raw, elliptic.P256())
		if err != nil {
			return
		}
		var v struct{ R, S *big.Int }
		if rest, err := asn1.Unmarshal(der, &v); err != nil || len(rest) != 0 {
			t.Fatalf("%x: %v", der, err)
		}
		back := make([]byte, 64)
		v.R.FillBytes(back[:32])
		v.S.FillBytes(back[32:])
		if !bytes.Equal(back, raw) {
			t.Errorf("%x came back as %x", raw, back)
		}
	})
}
