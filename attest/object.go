// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// ObjectFormat is the WebAuthn-style format of PIV evidence in ACME's
// device-attest-01, as Smallstep's clients and servers use it.
const ObjectFormat = "step"

// An AttestationObject is the payload of a device-attest-01 response
// (draft-ietf-acme-device-attest-09, Section 5; WebAuthn Level 2, Section 6.5),
// in CBOR (RFC 8949):
//
//	{ "fmt": "step",
//	  "attStmt": {
//	    "alg":   COSE algorithm,
//	    "sig":   signature over the key authorization by the attested key,
//	    "x5c":   [ slot's certificate, f9 certificate, … ],
//	    "x5c9d": [ 9d's certificate, f9 certificate, … ] } }   -- ours, optional
//
// "x5c9d" is our addition: the evidence for the card's key management key. An
// object without it is what other clients send; nothing is claimed about 9d
// then, and the appraisal policy decides. "authData" should be omitted and is
// ignored where it is not.
type AttestationObject struct {
	Algorithm     int64
	Signature     []byte
	Chain         [][]byte // "x5c"
	KeyManagement [][]byte // "x5c9d"; empty: left out
}

// Evidence returns the evidence that o carries.
func (o *AttestationObject) Evidence() Evidence {
	return Evidence{Format: FormatYubicoPIV, Chain: o.Chain, KeyManagement: o.KeyManagement}
}

// Challenge returns o's answer to the challenge with this key authorization,
// which the caller computed from its own token and the account's key.
func (o *AttestationObject) Challenge(keyAuthorization []byte) *Challenge {
	return &Challenge{KeyAuthorization: keyAuthorization, Algorithm: o.Algorithm, Signature: o.Signature}
}

// NewAttestationObject returns the object that answers with evidence.
func NewAttestationObject(ev Evidence, answer *Challenge) *AttestationObject {
	return &AttestationObject{
		Algorithm: answer.Algorithm, Signature: answer.Signature,
		Chain: ev.Chain, KeyManagement: ev.KeyManagement,
	}
}

// ParseAttestationObject reads an object: one CBOR item of definite length, no
// tags, no key twice, no key that is not known, nothing behind it, all within
// bounds. The order of keys is free, since clients in the field differ. The
// error is an *Error.
func ParseAttestationObject(data []byte) (*AttestationObject, error) {
	if len(data) == 0 {
		return nil, refuse(ReasonNoEvidence, "the attestation object is empty")
	}
	if len(data) > MaxObjectSize {
		return nil, refuse(ReasonMalformed, "the attestation object has %d bytes, at most %d are allowed", len(data), MaxObjectSize)
	}
	var envelope wireObject
	if err := decoding.Unmarshal(data, &envelope); err != nil {
		return nil, refuse(ReasonMalformed, "attestation object: %w", err)
	}
	if envelope.Format == "none" { // WebAuthn Level 2, Section 8.7
		return nil, refuse(ReasonNoEvidence, "the attestation object says that there is no attestation")
	}
	if envelope.Format != ObjectFormat {
		return nil, refuse(ReasonUnknownFormat, "attestation object: format %.40q, want %q", envelope.Format, ObjectFormat)
	}
	var statement wireStatement
	if err := decoding.Unmarshal(envelope.Statement, &statement); err != nil {
		return nil, refuse(ReasonMalformed, "attestation statement: %w", err)
	}
	o := &AttestationObject{
		Algorithm: int64(statement.Algorithm), Signature: statement.Signature,
		Chain: plain(statement.Chain), KeyManagement: plain(statement.KeyManagement),
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	return o, nil
}

// MarshalAttestationObject writes o in deterministic CBOR (RFC 8949, Section
// 4.2.1).
func MarshalAttestationObject(o *AttestationObject) ([]byte, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	statement, err := encoding.Marshal(wireStatement{
		Algorithm: coseAlgorithm(o.Algorithm), Signature: o.Signature,
		Chain: wrap(o.Chain), KeyManagement: wrap(o.KeyManagement),
	})
	if err != nil {
		return nil, fmt.Errorf("attestation object: %w", err)
	}
	data, err := encoding.Marshal(wireObject{Format: ObjectFormat, Statement: statement})
	if err != nil {
		return nil, fmt.Errorf("attestation object: %w", err)
	}
	if len(data) > MaxObjectSize {
		return nil, fmt.Errorf("attestation object: %d bytes, at most %d are allowed", len(data), MaxObjectSize)
	}
	return data, nil
}

func (o *AttestationObject) check() error {
	if len(o.Chain) == 0 {
		return refuse(ReasonNoEvidence, "attestation statement: no certificates (x5c)")
	}
	if o.Algorithm == 0 { // reserved in COSE, and what a missing "alg" leaves
		return refuse(ReasonMalformed, "attestation statement: no algorithm (alg)")
	}
	if len(o.Signature) == 0 || len(o.Signature) > maxSignature {
		return refuse(ReasonMalformed, "attestation statement: signature of %d bytes, want 1 to %d", len(o.Signature), maxSignature)
	}
	for _, chain := range [][][]byte{o.Chain, o.KeyManagement} {
		if len(chain) > MaxEvidenceCertificates {
			return refuse(ReasonMalformed, "attestation statement: %d certificates, at most %d are allowed", len(chain), MaxEvidenceCertificates)
		}
		for _, der := range chain {
			if len(der) == 0 || len(der) > MaxCertificateSize {
				return refuse(ReasonMalformed, "attestation statement: certificate of %d bytes, want 1 to %d", len(der), MaxCertificateSize)
			}
		}
	}
	return nil
}

type wireObject struct {
	Format    string          `cbor:"fmt"`
	Statement cbor.RawMessage `cbor:"attStmt"`
	AuthData  cbor.RawMessage `cbor:"authData,omitempty"`
}

type wireStatement struct {
	Algorithm     coseAlgorithm `cbor:"alg"`
	Signature     byteString    `cbor:"sig"`
	Chain         []byteString  `cbor:"x5c"`
	KeyManagement []byteString  `cbor:"x5c9d,omitempty"`
}

// A byteString takes CBOR byte strings only; the library would also take an
// array of small numbers.
type byteString []byte

func (b *byteString) UnmarshalCBOR(data []byte) error {
	if len(data) == 0 || data[0]>>5 != 2 {
		return errors.New("not a byte string")
	}
	return decoding.Unmarshal(data, (*[]byte)(b))
}

func (b byteString) MarshalCBOR() ([]byte, error) { return encoding.Marshal([]byte(b)) }

// A coseAlgorithm takes CBOR integers only; null would leave it zero.
type coseAlgorithm int64

func (a *coseAlgorithm) UnmarshalCBOR(data []byte) error {
	if len(data) == 0 || data[0]>>5 > 1 {
		return errors.New("not an integer")
	}
	return decoding.Unmarshal(data, (*int64)(a))
}

func (a coseAlgorithm) MarshalCBOR() ([]byte, error) { return encoding.Marshal(int64(a)) }

func plain(in []byteString) [][]byte {
	var out [][]byte
	for _, b := range in {
		out = append(out, b)
	}
	return out
}

func wrap(in [][]byte) []byteString {
	var out []byteString
	for _, b := range in {
		out = append(out, b)
	}
	return out
}

// decoding and encoding are the strict modes. Their options are constants: if
// one is wrong, no test and no program that links this package starts.
var decoding, encoding = modes()

func modes() (cbor.DecMode, cbor.EncMode) {
	d, err := cbor.DecOptions{
		DupMapKey:                cbor.DupMapKeyEnforcedAPF,
		IndefLength:              cbor.IndefLengthForbidden,
		TagsMd:                   cbor.TagsForbidden,
		MaxNestedLevels:          4,
		MaxArrayElements:         16,
		MaxMapPairs:              16,
		ExtraReturnErrors:        cbor.ExtraDecErrorUnknownField,
		UTF8:                     cbor.UTF8RejectInvalid,
		FieldNameMatching:        cbor.FieldNameMatchingCaseSensitive,
		ByteStringToString:       cbor.ByteStringToStringForbidden,
		FieldNameByteString:      cbor.FieldNameByteStringForbidden,
		ByteStringExpectedFormat: cbor.ByteStringExpectedFormatNone,
	}.DecMode()
	if err != nil {
		panic(err)
	}
	e, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		panic(err)
	}
	return d, e
}
