// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"encoding/asn1"

	"golang.org/x/crypto/cryptobyte"
	tag "golang.org/x/crypto/cryptobyte/asn1"
)

var (
	oidData       = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
	oidSignedData = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}

	context0 = tag.Tag(0).ContextSpecific().Constructed()
	context1 = tag.Tag(1).ContextSpecific().Constructed()
)

// isSignedData reports whether der begins like a ContentInfo of signed data.
func isSignedData(der []byte) bool {
	var seq cryptobyte.String
	var id asn1.ObjectIdentifier
	outer := cryptobyte.String(der)
	return outer.ReadASN1(&seq, tag.SEQUENCE) && seq.ReadASN1ObjectIdentifier(&id) && id.Equal(oidSignedData)
}

// parseSignedData reads the degenerate SignedData that only carries
// certificates (RFC 5652, Section 5.1), in DER. Signed content, signers and
// revocation lists are refused: that would be another kind of message.
//
//	ContentInfo ::= SEQUENCE { contentType OID, content [0] EXPLICIT SignedData }
//	SignedData ::= SEQUENCE {
//	    version           INTEGER,
//	    digestAlgorithms  SET (empty),
//	    encapContentInfo  SEQUENCE { eContentType OID (id-data) },
//	    certificates  [0] IMPLICIT SET OF Certificate,
//	    signerInfos       SET (empty) }
func parseSignedData(der []byte) ([][]byte, error) {
	var (
		seq, content, signed, digests, inner, certs, signers cryptobyte.String

		id      asn1.ObjectIdentifier
		version int
	)
	outer := cryptobyte.String(der)
	if !outer.ReadASN1(&seq, tag.SEQUENCE) || !outer.Empty() ||
		!seq.ReadASN1ObjectIdentifier(&id) || !id.Equal(oidSignedData) ||
		!seq.ReadASN1(&content, context0) || !seq.Empty() ||
		!content.ReadASN1(&signed, tag.SEQUENCE) || !content.Empty() ||
		!signed.ReadASN1Integer(&version) || version < 1 || version > 5 ||
		!signed.ReadASN1(&digests, tag.SET) ||
		!signed.ReadASN1(&inner, tag.SEQUENCE) || !inner.ReadASN1ObjectIdentifier(&id) {
		return nil, refuse(ReasonMalformed, "the PKCS #7 is no signed data in DER")
	}
	if !digests.Empty() || !id.Equal(oidData) || !inner.Empty() {
		return nil, refuse(ReasonMalformed, "the PKCS #7 holds signed content: want one that only carries certificates")
	}
	if !signed.ReadASN1(&certs, context0) || signed.PeekASN1Tag(context1) ||
		!signed.ReadASN1(&signers, tag.SET) || !signers.Empty() || !signed.Empty() {
		return nil, refuse(ReasonMalformed, "the PKCS #7 does not carry certificates alone")
	}
	var out [][]byte
	for !certs.Empty() {
		var cert cryptobyte.String
		if !certs.ReadASN1Element(&cert, tag.SEQUENCE) || len(out) == maxFileCertificates {
			return nil, refuse(ReasonMalformed, "the PKCS #7 holds something that is no certificate, or more than %d of them", maxFileCertificates)
		}
		out = append(out, cert)
	}
	return out, nil
}
