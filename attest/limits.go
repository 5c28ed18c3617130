// SPDX-License-Identifier: Apache-2.0

package attest

// Bounds on what an applicant may send.
const (
	// MaxCertificateSize bounds one certificate; a YubiKey's are below 1 KiB,
	// a vendor's with RSA-4096 and long names below 3 KiB.
	MaxCertificateSize = 8 << 10

	// MaxEvidenceCertificates bounds a chain in evidence: slot and f9, and as
	// many copies of known intermediates and root as a client might add.
	MaxEvidenceCertificates = 6

	// maxPath bounds the certificates from the slot's to the root's. Yubico's
	// longest path has five.
	maxPath = 6

	// maxEndorsements bounds roots and intermediates, each kind, so that the
	// search for a path stays short.
	maxEndorsements = 64

	// MaxObjectSize bounds an attestation object: two chains and a signature.
	MaxObjectSize = 64 << 10

	// maxSignature bounds an ASN.1 ECDSA signature; P-384's has 104 bytes.
	maxSignature = 128

	// maxKeyAuthorization bounds RFC 8555's token "." thumbprint.
	maxKeyAuthorization = 1 << 10

	// minRSABits is what NIST SP 800-131A asks of a signer; every RSA key in
	// Yubico's hierarchy has 2048 bits.
	minRSABits = 2048

	// MaxFileSize bounds a file of certificates.
	MaxFileSize = 256 << 10

	// maxFileCertificates bounds the certificates of one file.
	maxFileCertificates = 32

	// maxMarvell bounds a Marvell attestation, unpacked: two objects of about 40
	// attributes have 2 KiB. Packed it may not be larger either.
	maxMarvell = 16 << 10
	// maxMarvellAttributes bounds those of one object; real ones have 35.
	maxMarvellAttributes = 128
	// maxMarvellCertificates bounds the certificates beside one: partition and
	// card, twice each, and copies of the two roots.
	maxMarvellCertificates = 8

	// maxSPKI bounds the SubjectPublicKeyInfo of a witnessed key; P-384's has 120 bytes.
	maxSPKI = 256

	// maxTPM bounds each structure of a TPM: public area, attestation, signature,
	// credential. The largest we know, an attestation with two names of 50 bytes
	// and 64 bytes of extra data, has below 300 bytes.
	maxTPM = 1 << 10

	// maxPolicyList bounds each list of an appraisal policy but that of denied
	// serial numbers.
	maxPolicyList = 64
	// maxDenied bounds the denied serial numbers.
	maxDenied = 100000
	// maxPolicySize bounds a policy in JSON.
	maxPolicySize = 4 << 20
)
