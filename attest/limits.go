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

	// maxPolicyList bounds each list of an appraisal policy but that of denied
	// serial numbers.
	maxPolicyList = 64
	// maxDenied bounds the denied serial numbers.
	maxDenied = 100000
	// maxPolicySize bounds a policy in JSON.
	maxPolicySize = 4 << 20
)
