// SPDX-License-Identifier: Apache-2.0

// Package identity says who is who in Valise: addresses, device ids, the
// profiles of our X.509 certificates, and the check of a certificate chain
// against a table of authorities.
//
// A person is an [Address], alice@interieur.example. A device is a key in
// hardware; its [DeviceID] is the SHA-256 of its SubjectPublicKeyInfo. A
// device certificate binds the two for a few days, and states in an extension
// how the key was appraised ([Appraisal]), never the evidence itself.
//
// First call: build the table of authorities once with [NewTrust], then give
// every chain that a peer shows to [Trust.Device] or [Trust.Gateway]:
//
//	trust := identity.NewTrust(identity.Authority{Domain: "interieur.example", Roots: roots})
//	device, err := trust.Device(chain, time.Now())
//
// The error is always a [*ChainError]; its [Reason] goes to the audit stream.
// An officer's chain, which signs statements and opens no connection, goes to
// [Trust.Officer]. The authority's side makes certificates from
// [DeviceProfile], [GatewayProfile], [OfficerProfile] and [CAProfile].
//
// Never take an address or a device id out of a certificate that did not pass
// Trust. Never use the outcome as a statement of standing: whether a device is
// suspended or revoked stands in the bulletin, not in its certificate. There
// is no network and no clock in here: the caller says at what time a chain is
// judged (now for a connection, [IssuedAt] for a member of a group).
package identity
