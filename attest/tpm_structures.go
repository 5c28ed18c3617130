// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
)

// Constants of TPM 2.0 Part 2.
const (
	tpmGenerated = 0xff544347 // Table 9: nothing that a restricted key signs for others begins so
	tpmCertify   = 0x8017     // Table 23: TPM_ST_ATTEST_CERTIFY

	tpmSHA256 = 0x000b // Table 11
	tpmSHA384 = 0x000c
	tpmNull   = 0x0010
	tpmECDSA  = 0x0018
	tpmECC    = 0x0023

	tpmP256 = 0x0003 // Table 12
	tpmP384 = 0x0004

	tpmFixedTPM             = 1 << 1 // Table 37: TPMA_OBJECT
	tpmFixedParent          = 1 << 4
	tpmSensitiveDataOrigin  = 1 << 5
	tpmEncryptedDuplication = 1 << 11
	tpmRestricted           = 1 << 16
	tpmDecrypt              = 1 << 17
	tpmSign                 = 1 << 18
)

// An AK has these attributes set, and those of the mask beside them not.
const (
	akAttributes = tpmFixedTPM | tpmFixedParent | tpmSensitiveDataOrigin | tpmRestricted | tpmSign
	akMask       = akAttributes | tpmEncryptedDuplication | tpmDecrypt
)

// A tpmPublic is a TPMT_PUBLIC (Part 2, Section 12.2.4) of an elliptic-curve key
// that protects nothing else; other kinds are refused.
//
//	struct {
//	    uint16 type = ECC; uint16 nameAlg; uint32 objectAttributes; TPM2B authPolicy;
//	    uint16 symmetric = NULL; uint16 scheme; if (scheme != NULL) uint16 hash;
//	    uint16 curve; uint16 kdf = NULL; TPM2B x; TPM2B y;
//	} TPMT_PUBLIC;
type tpmPublic struct {
	raw        []byte
	nameAlg    uint16
	attributes uint32
	scheme     uint16 // tpmNull or tpmECDSA
	hash       uint16 // of the scheme
	curve      uint16
	x, y       []byte
}

var errTPM = errors.New("not the structure of an elliptic-curve key that we know")

func parseTPMPublic(data []byte) (*tpmPublic, error) {
	if len(data) > maxTPM {
		return nil, fmt.Errorf("%d bytes, at most %d are allowed", len(data), maxTPM)
	}
	p := &tpmPublic{raw: data}
	s := cryptobyte.String(data)
	var kind, symmetric, kdf uint16
	var policy []byte
	if !s.ReadUint16(&kind) || kind != tpmECC || !s.ReadUint16(&p.nameAlg) || !s.ReadUint32(&p.attributes) ||
		!readTPM2B(&s, &policy) || !s.ReadUint16(&symmetric) || symmetric != tpmNull || !s.ReadUint16(&p.scheme) {
		return nil, errTPM
	}
	switch p.scheme {
	case tpmNull:
	case tpmECDSA:
		if !s.ReadUint16(&p.hash) {
			return nil, errTPM
		}
	default:
		return nil, fmt.Errorf("signature scheme %#x is not ECDSA", p.scheme)
	}
	if !s.ReadUint16(&p.curve) || !s.ReadUint16(&kdf) || kdf != tpmNull ||
		!readTPM2B(&s, &p.x) || !readTPM2B(&s, &p.y) || !s.Empty() {
		return nil, errTPM
	}
	if p.nameAlg != tpmSHA256 && p.nameAlg != tpmSHA384 {
		return nil, fmt.Errorf("its name is made with algorithm %#x, want SHA-256 or SHA-384", p.nameAlg)
	}
	return p, nil
}

// name is Part 1, Section 16's: algorithm ‖ hash of the public area.
func (p *tpmPublic) name() []byte {
	name := binary.BigEndian.AppendUint16(nil, p.nameAlg)
	if p.nameAlg == tpmSHA384 {
		sum := sha512.Sum384(p.raw)
		return append(name, sum[:]...)
	}
	sum := sha256.Sum256(p.raw)
	return append(name, sum[:]...)
}

// key returns the public key. Some TPMs leave out leading zeros of coordinates.
func (p *tpmPublic) key() (*ecdsa.PublicKey, error) {
	curve, size := elliptic.P256(), 32
	switch p.curve {
	case tpmP256:
	case tpmP384:
		curve, size = elliptic.P384(), 48
	default:
		return nil, fmt.Errorf("curve %#x is neither P-256 nor P-384", p.curve)
	}
	if len(p.x) > size || len(p.y) > size {
		return nil, fmt.Errorf("coordinates of %d and %d bytes", len(p.x), len(p.y))
	}
	point := make([]byte, 1+2*size)
	point[0] = 4
	copy(point[1+size-len(p.x):], p.x)
	copy(point[1+2*size-len(p.y):], p.y)
	return ecdsa.ParseUncompressedPublicKey(curve, point)
}

// A certification is what we read of a TPMS_ATTEST (Part 2, Section 10.12.12).
type certification struct{ nonce, name []byte }

//	struct {
//	    uint32 magic; uint16 type = CERTIFY; TPM2B qualifiedSigner; TPM2B extraData;
//	    uint64 clock; uint32 resetCount; uint32 restartCount; uint8 safe; uint64 firmware;
//	    TPM2B name; TPM2B qualifiedName;
//	} TPMS_ATTEST;
func parseCertification(data []byte) (*certification, error) {
	var (
		c                 certification
		magic             uint32
		kind              uint16
		signer, qualified []byte
	)
	s := cryptobyte.String(data)
	if !s.ReadUint32(&magic) || magic != tpmGenerated {
		return nil, errors.New("no TPM made it")
	}
	if !s.ReadUint16(&kind) || kind != tpmCertify {
		return nil, fmt.Errorf("a statement of type %#x, want the certification of a key", kind)
	}
	if !readTPM2B(&s, &signer) || !readTPM2B(&s, &c.nonce) || !s.Skip(8+4+4+1+8) ||
		!readTPM2B(&s, &c.name) || !readTPM2B(&s, &qualified) || !s.Empty() {
		return nil, errors.New("malformed statement")
	}
	return &c, nil
}

// verify checks a TPMT_SIGNATURE (Part 2, Section 11.3.4) by the AK, whose scheme
// it must have:
//
//	struct { uint16 alg = ECDSA; uint16 hash; TPM2B r; TPM2B s; } TPMT_SIGNATURE;
func (ak *attestationKey) verify(statement, signature []byte) error {
	if len(statement) > maxTPM || len(signature) > maxTPM {
		return refuse(ReasonMalformed, "certification and signature have %d and %d bytes, at most %d are allowed", len(statement), len(signature), maxTPM)
	}
	var alg, hash uint16
	var r, s []byte
	in := cryptobyte.String(signature)
	if !in.ReadUint16(&alg) || !in.ReadUint16(&hash) || alg != ak.area.scheme || hash != ak.area.hash {
		return refuse(ReasonMalformed, "the certification's signature is not of the attestation key's kind")
	}
	if !readTPM2B(&in, &r) || !readTPM2B(&in, &s) || !in.Empty() || len(r) > 48 || len(s) > 48 {
		return refuse(ReasonMalformed, "malformed signature of the certification")
	}
	var digest []byte
	switch hash {
	case tpmSHA256:
		sum := sha256.Sum256(statement)
		digest = sum[:]
	case tpmSHA384:
		sum := sha512.Sum384(statement)
		digest = sum[:]
	default:
		return refuse(ReasonMalformed, "the attestation key signs with hash %#x, want SHA-256 or SHA-384", hash)
	}
	if !ecdsa.Verify(ak.public, digest, new(big.Int).SetBytes(r), new(big.Int).SetBytes(s)) {
		return refuse(ReasonBadSignature, "the attestation key did not sign the certification")
	}
	return nil
}

// readTPM2B reads a sized buffer: uint16 size, then as many bytes.
func readTPM2B(s *cryptobyte.String, out *[]byte) bool {
	var inner cryptobyte.String
	if !s.ReadUint16LengthPrefixed(&inner) {
		return false
	}
	*out = inner
	return true
}
