// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// Formats of attestation objects in ACME's device-attest-01 ("fmt").
const (
	// ObjectFormat is for PIV evidence, as Smallstep's clients and servers use it.
	ObjectFormat = "step"
	// ObjectFormatTPM and ObjectFormatWitnessed are ours.
	ObjectFormatTPM       = "valise-tpm"
	ObjectFormatWitnessed = "valise-witnessed"
)

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
//	{ "fmt": "valise-tpm",
//	  "attStmt": {
//	    "alg", "sig": as above,
//	    "x5c":   [ EK's certificate, … ],
//	    "ak":    TPMT_PUBLIC of the attestation key,
//	    "act":   the secret that TPM2_ActivateCredential gave out,
//	    "key":   [ TPMT_PUBLIC, TPMS_ATTEST, TPMT_SIGNATURE ],
//	    "key9d": [ the same for the second key ] } }   -- optional
//
//	{ "fmt": "valise-witnessed",
//	  "attStmt": { "alg", "sig": as above, "pub": SubjectPublicKeyInfo } }
//
// "x5c9d" is our addition: the evidence for the card's key management key. An
// object without it is what other clients send; nothing is claimed about 9d
// then, and the appraisal policy decides. "authData" should be omitted and is
// ignored where it is not.
type AttestationObject struct {
	Format        string // of the evidence; empty means FormatYubicoPIV
	Algorithm     int64
	Signature     []byte
	Chain         [][]byte // as in Evidence
	KeyManagement [][]byte // as in Evidence; empty: left out
	Activation    []byte   // FormatTPM only
}

// Evidence returns the evidence that o carries.
func (o *AttestationObject) Evidence() Evidence {
	return Evidence{Format: o.format(), Chain: o.Chain, KeyManagement: o.KeyManagement}
}

func (o *AttestationObject) format() string {
	if o.Format == "" {
		return FormatYubicoPIV
	}
	return o.Format
}

// Challenge returns o's answer to the challenge with this key authorization,
// which the caller computed from its own token and the account's key.
func (o *AttestationObject) Challenge(keyAuthorization []byte) *Challenge {
	return &Challenge{KeyAuthorization: keyAuthorization, Algorithm: o.Algorithm, Signature: o.Signature, Activation: o.Activation}
}

// NewAttestationObject returns the object that answers with evidence.
func NewAttestationObject(ev Evidence, answer *Challenge) *AttestationObject {
	return &AttestationObject{
		Format: ev.Format, Algorithm: answer.Algorithm, Signature: answer.Signature,
		Chain: ev.Chain, KeyManagement: ev.KeyManagement, Activation: answer.Activation,
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
	o, err := parseStatement(envelope.Format, envelope.Statement)
	if err != nil {
		return nil, err
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	return o, nil
}

func parseStatement(format string, statement []byte) (*AttestationObject, error) {
	var (
		o   *AttestationObject
		err error
	)
	switch format {
	case ObjectFormat:
		var s wireStatement
		err = decoding.Unmarshal(statement, &s)
		o = &AttestationObject{Format: FormatYubicoPIV, Algorithm: int64(s.Algorithm), Signature: s.Signature, Chain: plain(s.Chain), KeyManagement: plain(s.KeyManagement)}
	case ObjectFormatTPM:
		var s wireTPM
		if err = decoding.Unmarshal(statement, &s); err == nil && len(s.Key) != 3 {
			return nil, refuse(ReasonMalformed, "attestation statement: %d parts about the key, want 3", len(s.Key))
		}
		o = &AttestationObject{
			Format: FormatTPM, Algorithm: int64(s.Algorithm), Signature: s.Signature, Activation: s.Activation,
			Chain: append(append(plain(s.Key), s.AK), plain(s.Chain)...), KeyManagement: plain(s.Key9D),
		}
	case ObjectFormatWitnessed:
		var s wireWitnessed
		err = decoding.Unmarshal(statement, &s)
		o = &AttestationObject{Format: FormatWitnessed, Algorithm: int64(s.Algorithm), Signature: s.Signature, Chain: [][]byte{s.Public}}
	case "none": // WebAuthn Level 2, Section 8.7
		return nil, refuse(ReasonNoEvidence, "the attestation object says that there is no attestation")
	default:
		return nil, refuse(ReasonUnknownFormat, "attestation object: format %.40q, want %q, %q or %q", format, ObjectFormat, ObjectFormatTPM, ObjectFormatWitnessed)
	}
	if err != nil {
		return nil, refuse(ReasonMalformed, "attestation statement: %w", err)
	}
	return o, nil
}

// MarshalAttestationObject writes o in deterministic CBOR (RFC 8949, Section
// 4.2.1).
func MarshalAttestationObject(o *AttestationObject) ([]byte, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	format, statement := o.wire()
	raw, err := encoding.Marshal(statement)
	if err != nil {
		return nil, fmt.Errorf("attestation object: %w", err)
	}
	data, err := encoding.Marshal(wireObject{Format: format, Statement: raw})
	if err != nil {
		return nil, fmt.Errorf("attestation object: %w", err)
	}
	if len(data) > MaxObjectSize {
		return nil, fmt.Errorf("attestation object: %d bytes, at most %d are allowed", len(data), MaxObjectSize)
	}
	return data, nil
}

// wire returns the statement of an object that passed check.
func (o *AttestationObject) wire() (format string, statement any) {
	alg := coseAlgorithm(o.Algorithm)
	switch o.format() {
	case FormatTPM:
		return ObjectFormatTPM, wireTPM{
			Algorithm: alg, Signature: o.Signature, Chain: wrap(o.Chain[4:]), AK: o.Chain[3], Activation: o.Activation,
			Key: wrap(o.Chain[:3]), Key9D: wrap(o.KeyManagement),
		}
	case FormatWitnessed:
		return ObjectFormatWitnessed, wireWitnessed{Algorithm: alg, Signature: o.Signature, Public: o.Chain[0]}
	}
	return ObjectFormat, wireStatement{Algorithm: alg, Signature: o.Signature, Chain: wrap(o.Chain), KeyManagement: wrap(o.KeyManagement)}
}

func (o *AttestationObject) check() error {
	least, most := 1, MaxEvidenceCertificates
	switch o.format() {
	case FormatYubicoPIV:
	case FormatTPM:
		least, most = 5, 4+MaxEvidenceCertificates
	case FormatWitnessed:
		most = 1
	default:
		return refuse(ReasonUnknownFormat, "attestation statement: evidence of format %.40q has no attestation object", o.Format)
	}
	if len(o.Chain) < least {
		return refuse(ReasonNoEvidence, "attestation statement: %d parts or certificates (x5c), want %d", len(o.Chain), least)
	}
	if o.Algorithm == 0 { // reserved in COSE, and what a missing "alg" leaves
		return refuse(ReasonMalformed, "attestation statement: no algorithm (alg)")
	}
	if len(o.Signature) == 0 || len(o.Signature) > maxSignature {
		return refuse(ReasonMalformed, "attestation statement: signature of %d bytes, want 1 to %d", len(o.Signature), maxSignature)
	}
	if tpm := o.format() == FormatTPM; tpm != (len(o.Activation) > 0) || len(o.Activation) > maxTPM {
		return refuse(ReasonMalformed, "attestation statement: activation secret of %d bytes", len(o.Activation))
	}
	for _, chain := range [][][]byte{o.Chain, o.KeyManagement} {
		if len(chain) > most {
			return refuse(ReasonMalformed, "attestation statement: %d certificates, at most %d are allowed", len(chain), most)
		}
		for _, der := range chain {
			if len(der) == 0 || len(der) > MaxCertificateSize {
				return refuse(ReasonMalformed, "attestation statement: certificate of %d bytes, want 1 to %d", len(der), MaxCertificateSize)
			}
		}
	}
	if o.format() == FormatWitnessed && len(o.KeyManagement) > 0 {
		return refuse(ReasonMalformed, "attestation statement: a witnessed key comes alone")
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

type wireTPM struct {
	Algorithm  coseAlgorithm `cbor:"alg"`
	Signature  byteString    `cbor:"sig"`
	Chain      []byteString  `cbor:"x5c"`
	AK         byteString    `cbor:"ak"`
	Activation byteString    `cbor:"act"`
	Key        []byteString  `cbor:"key"`
	Key9D      []byteString  `cbor:"key9d,omitempty"`
}

type wireWitnessed struct {
	Algorithm coseAlgorithm `cbor:"alg"`
	Signature byteString    `cbor:"sig"`
	Public    byteString    `cbor:"pub"`
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
