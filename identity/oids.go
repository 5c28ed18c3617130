// SPDX-License-Identifier: Apache-2.0

package identity

import "encoding/asn1"

// Our object identifiers hang below one random UUID,
//
//	4725e87c-687b-4496-b9a5-543e2f4b2bfb
//
// The plain way to turn it into an OID, 2.25.<UUID as one number> (ITU-T
// X.667), cannot be used: crypto/x509 refuses every certificate with an
// extension or key usage whose arcs exceed 31 bits, and a UUID needs 128. So
// the UUID is cut into seven arcs of 16, 16, 16, 16, 16, 24 and 24 bits below
// 1.2.840.113556.1.8000.2554, the arc that Microsoft documents for exactly
// that cut and that needs no registration either.
//
//	.1.1  extended key usage: device
//	.1.2  extended key usage: gateway
//	.1.3  extended key usage: officer
//	.2.1  certificate extension: appraisal result
//	.2.2  certificate extension: officer's role
var (
	arc = asn1.ObjectIdentifier{
		1, 2, 840, 113556, 1, 8000, 2554,
		18213, 59516, 26747, 17558, 47525, 5520943, 4926459,
	}

	// OIDDeviceUsage is the extended key usage of a device's certificate.
	OIDDeviceUsage = below(1, 1)
	// OIDGatewayUsage is the extended key usage of a gateway's certificate.
	OIDGatewayUsage = below(1, 2)
	// OIDOfficerUsage is the extended key usage of an officer's certificate.
	OIDOfficerUsage = below(1, 3)
	// OIDAppraisal names the extension that holds an Appraisal.
	OIDAppraisal = below(2, 1)
	// OIDRole names the extension that holds an officer's Role, a UTF8String.
	OIDRole = below(2, 2)
)

// Standard object identifiers that crypto/x509 does not export.
var (
	oidBasicConstraints    = asn1.ObjectIdentifier{2, 5, 29, 19}
	oidKeyUsage            = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidExtendedKeyUsage    = asn1.ObjectIdentifier{2, 5, 29, 37}
	oidSubjectAltName      = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidDirectoryAttributes = asn1.ObjectIdentifier{2, 5, 29, 9} // RFC 5280, Section 4.2.1.8
	oidClearance           = asn1.ObjectIdentifier{2, 5, 4, 55} // RFC 5755, Section 4.4.6
	oidDomainComponent     = asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 25}
)

func below(arcs ...int) asn1.ObjectIdentifier {
	return append(append(asn1.ObjectIdentifier{}, arc...), arcs...)
}
