// SPDX-License-Identifier: Apache-2.0

package ca

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"time"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"
	"golang.org/x/crypto/ocsp"

	"valise/internal/store/authority"
)

// Answers without a signature (RFC 6960, Section 2.3).
var (
	ocspMalformed    = ocsp.MalformedRequestErrorResponse
	ocspTryLater     = ocsp.TryLaterErrorResponse
	ocspUnauthorized = ocsp.UnauthorizedErrorResponse // not about our issuing key
)

// OCSP answers a request in DER (RFC 6960). until is when the answer ends; it is zero
// for those without a signature.
func (s *Status) OCSP(ctx context.Context, request []byte) (response []byte, until time.Time) {
	q, err := parseOCSPRequest(request)
	if err != nil {
		return ocspMalformed, time.Time{}
	}
	if !s.ours(q) {
		return ocspUnauthorized, time.Time{}
	}
	id := strconv.Itoa(int(q.hash)) + ":" + hex.EncodeToString(q.serial)
	v, err, _ := s.flights.Do(id, func() (any, error) { return s.respond(ctx, q, []byte(id)) })
	if err != nil {
		if !errors.Is(err, errBusy) {
			s.cfg.Log.Warn("no OCSP response", "error", err.Error())
		}
		return ocspTryLater, time.Time{}
	}
	r, _ := v.(authority.StoredOCSP)
	return r.DER, r.Until
}

func (s *Status) respond(ctx context.Context, q *ocspRequest, id []byte) (authority.StoredOCSP, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), statusLimit) // others wait for it, too
	defer cancel()
	now := s.cfg.Now()
	standing, known, err := s.cfg.Standings.Standing(ctx, q.serial, now)
	if err != nil {
		return authority.StoredOCSP{}, err
	}
	standing.Serial = q.serial
	state := stateOf(standing)
	if !known {
		state = []byte("unknown")
	}
	last := s.lastResponse(ctx, id, known)
	same := bytes.Equal(last.State, state)
	if same && fresh(last.Until, s.cfg.ResponseLife, now) {
		return last, nil
	}
	r := authority.StoredOCSP{ID: id, State: state, Until: now.Add(s.cfg.ResponseLife).UTC().Truncate(time.Second)}
	if r.DER, err = s.signResponse(q, standing, known, r.Until, now); err != nil {
		// What is true and valid is good enough; what is not true is not.
		if same && usable(last.Until, now) {
			return last, nil
		}
		return r, err
	}
	return r, s.keepResponse(ctx, r, known, now)
}

func (s *Status) signResponse(q *ocspRequest, standing CertificateStanding, known bool, until, now time.Time) ([]byte, error) {
	limiter := s.known
	if !known {
		limiter = s.unknown
	}
	if err := s.maySign(limiter, now); err != nil {
		return nil, err
	}
	template := ocsp.Response{
		Status: ocsp.Good, SerialNumber: new(big.Int).SetBytes(q.serial), IssuerHash: q.hash,
		ThisUpdate: now.Add(-backdate).UTC().Truncate(time.Second), NextUpdate: until,
	}
	switch {
	case !known:
		template.Status = ocsp.Unknown
	case standing.Bad:
		template.Status, template.RevokedAt, template.RevocationReason = ocsp.Revoked, standing.Since, standing.Reason
	}
	der, err := ocsp.CreateResponse(s.cfg.Issuer, s.cfg.Issuer, template, s.cfg.Signer)
	if err != nil {
		return nil, s.signingFailed("an OCSP response", err)
	}
	if _, err := ocsp.ParseResponse(der, s.cfg.Issuer); err != nil { // it checks the signature
		return nil, s.signingFailed("an OCSP response as it should", err)
	}
	return der, nil
}

// lastResponse finds the newest response, in memory or, for a certificate of ours, in
// the database.
func (s *Status) lastResponse(ctx context.Context, id []byte, known bool) (last authority.StoredOCSP) {
	s.mu.Lock()
	last, found := s.responses[string(id)]
	s.mu.Unlock()
	if found || !known {
		return last
	}
	err := s.cfg.Store.View(ctx, func(tx *authority.Tx) (err error) {
		last, err = tx.OCSP(id)
		return err
	})
	if err != nil {
		return authority.StoredOCSP{}
	}
	// A row proves nothing: whoever writes there must not have an answer given out
	// that the key has not signed, nor one of before as that of now.
	r, err := ocsp.ParseResponse(last.DER, s.cfg.Issuer)
	if err != nil || r.Status == ocsp.Unknown {
		return authority.StoredOCSP{}
	}
	said := CertificateStanding{Serial: r.SerialNumber.Bytes()}
	if r.Status == ocsp.Revoked {
		said.Bad, said.Since, said.Reason = true, r.RevokedAt, r.RevocationReason
	}
	last.State, last.Until = stateOf(said), r.NextUpdate
	s.remember(last)
	return last
}

func (s *Status) remember(r authority.StoredOCSP) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.responses) >= maxResponses {
		clear(s.responses)
	}
	s.responses[string(r.ID)] = r
}

func (s *Status) keepResponse(ctx context.Context, r authority.StoredOCSP, known bool, now time.Time) error {
	s.remember(r)
	if !known {
		return nil // anybody can ask for what does not exist
	}
	return s.cfg.Store.Update(ctx, func(tx *authority.Tx) error { return tx.PutOCSP(r, now) })
}

// An ocspRequest asks about one certificate.
type ocspRequest struct {
	hash              crypto.Hash
	nameHash, keyHash []byte
	serial            []byte // positive, without leading zeros
}

// parseOCSPRequest reads
//
//	OCSPRequest ::= SEQUENCE { tbsRequest TBSRequest, optionalSignature [0] EXPLICIT Signature OPTIONAL }
//	TBSRequest  ::= SEQUENCE { version [0] EXPLICIT Version DEFAULT v1, requestorName [1] EXPLICIT GeneralName OPTIONAL,
//	                           requestList SEQUENCE OF Request, requestExtensions [2] EXPLICIT Extensions OPTIONAL }
//	Request     ::= SEQUENCE { reqCert CertID, singleRequestExtensions [0] EXPLICIT Extensions OPTIONAL }
//	CertID      ::= SEQUENCE { hashAlgorithm AlgorithmIdentifier, issuerNameHash OCTET STRING,
//	                           issuerKeyHash OCTET STRING, serialNumber CertificateSerialNumber }
//
// (RFC 6960, Section 4.1.1) with exactly one Request, as RFC 5019, Section 2.1.1 has
// it. Signatures, names and extensions are read over: they change no answer.
func parseOCSPRequest(der []byte) (*ocspRequest, error) {
	malformed := errors.New("ca: malformed OCSP request")
	if len(der) > maxOCSPRequest {
		return nil, malformed
	}
	explicit := func(n uint8) tag.Tag { return tag.Tag(n).ContextSpecific().Constructed() }
	var outer, tbs, list, request, id, algorithm, name, key cryptobyte.String
	var ignored cryptobyte.String
	var oid asn1.ObjectIdentifier
	s := cryptobyte.String(der)
	if !s.ReadASN1(&outer, tag.SEQUENCE) || !s.Empty() ||
		!outer.ReadASN1(&tbs, tag.SEQUENCE) || !outer.SkipOptionalASN1(explicit(0)) || !outer.Empty() ||
		!tbs.SkipOptionalASN1(explicit(0)) || !tbs.SkipOptionalASN1(explicit(1)) ||
		!tbs.ReadASN1(&list, tag.SEQUENCE) || !tbs.SkipOptionalASN1(explicit(2)) || !tbs.Empty() ||
		!list.ReadASN1(&request, tag.SEQUENCE) || !list.Empty() ||
		!request.ReadASN1(&id, tag.SEQUENCE) || !request.SkipOptionalASN1(explicit(0)) || !request.Empty() ||
		!id.ReadASN1(&algorithm, tag.SEQUENCE) ||
		!algorithm.ReadASN1ObjectIdentifier(&oid) || !algorithm.Empty() && !algorithm.ReadASN1(&ignored, tag.NULL) || !algorithm.Empty() ||
		!id.ReadASN1(&name, tag.OCTET_STRING) || !id.ReadASN1(&key, tag.OCTET_STRING) {
		return nil, malformed
	}
	serial := new(big.Int)
	if !id.ReadASN1Integer(serial) || !id.Empty() || serial.Sign() <= 0 || len(serial.Bytes()) > maxSerial {
		return nil, malformed
	}
	for _, h := range ocspHashes {
		if h.oid.Equal(oid) {
			return &ocspRequest{hash: h.hash, nameHash: name, keyHash: key, serial: serial.Bytes()}, nil
		}
	}
	return nil, malformed
}

// ocspHashes are those by which a request may name an issuer. SHA-1 protects nothing
// here, and most clients use it.
var ocspHashes = []struct {
	oid  asn1.ObjectIdentifier
	hash crypto.Hash
}{
	{asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}, crypto.SHA1},
	{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}, crypto.SHA256},
	{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 2}, crypto.SHA384},
	{asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 3}, crypto.SHA512},
}

// certIDHash names our issuing certificate in requests.
type certIDHash struct {
	hash              crypto.Hash
	nameHash, keyHash []byte
}

func issuerHashes(issuer *x509.Certificate) (all []certIDHash, err error) {
	var spki, key cryptobyte.String
	s := cryptobyte.String(issuer.RawSubjectPublicKeyInfo)
	var bits asn1.BitString
	if !s.ReadASN1(&spki, tag.SEQUENCE) || !spki.ReadASN1Element(&key, tag.SEQUENCE) || !spki.ReadASN1BitString(&bits) {
		return nil, fmt.Errorf("ca: the key of %s cannot be read", issuer.Subject)
	}
	for _, known := range ocspHashes {
		h := known.hash.New()
		h.Write(issuer.RawSubject)
		name := h.Sum(nil)
		h.Reset()
		h.Write(bits.RightAlign())
		all = append(all, certIDHash{known.hash, name, h.Sum(nil)})
	}
	return all, nil
}

func (s *Status) ours(q *ocspRequest) bool {
	for _, id := range s.ids {
		if id.hash == q.hash {
			return bytes.Equal(id.nameHash, q.nameHash) && bytes.Equal(id.keyHash, q.keyHash)
		}
	}
	return false
}
