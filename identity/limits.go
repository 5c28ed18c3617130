// SPDX-License-Identifier: Apache-2.0

package identity

// Bounds on what strangers may hand to this package.
const (
	// MaxCertificateSize bounds one certificate in DER. Ours are below 1.2 KiB
	// with P-384; a clearance with many categories adds some hundred bytes.
	MaxCertificateSize = 8 << 10

	// MaxChainLength bounds the certificates in a chain, root included: leaf,
	// issuer, root, and one more for an authority under another one. Each
	// costs a signature check of up to 2 ms.
	MaxChainLength = 4

	// maxLocalPart and maxDomain are the bounds of RFC 5321, Section 4.5.3.1.
	maxLocalPart = 64
	maxDomain    = 253

	// maxSerialOctets is the bound of RFC 5280, Section 4.1.2.2.
	maxSerialOctets = 20

	// MaxGatewayNames bounds the names in a gateway's certificate: a service
	// name, a name and an address or two for each of a few nodes.
	MaxGatewayNames = 16

	// maxClearanceSize bounds an encoded clearance; NATO's largest known
	// category lists take below 1 KiB.
	maxClearanceSize = 4 << 10

	// maxCategories bounds the security categories of one clearance.
	maxCategories = 64

	// maxClassBit bounds the classification numbers: X.841 and real SPIFs use
	// values up to 255.
	maxClassBit = 255

	// maxCached bounds the verified chains a Trust remembers, about 4 KiB
	// each; at that size the cache is emptied and fills again.
	maxCached = 4096

	// maxIssuers bounds what a Trust remembers of issuers: an authority has one or
	// two at a time.
	maxIssuers = 64
)
