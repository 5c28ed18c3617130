// SPDX-License-Identifier: Apache-2.0

package mls

// An ExtensionType is a number of RFC 9420, Section 17.3.
type ExtensionType uint16

const (
	ExtensionApplicationID        ExtensionType = 0x0001
	ExtensionRatchetTree          ExtensionType = 0x0002
	ExtensionRequiredCapabilities ExtensionType = 0x0003
	ExtensionExternalPub          ExtensionType = 0x0004
	ExtensionExternalSenders      ExtensionType = 0x0005
	// ExtensionLastResort marks a KeyPackage that may be used again, from
	// draft-ietf-mls-extensions.
	ExtensionLastResort ExtensionType = 0x000A
)

// An Extension is carried unread unless this package knows its type, RFC 9420,
// Section 13.4.
type Extension struct {
	Type ExtensionType
	Data []byte
}

// Capabilities are what a client understands beyond the defaults, RFC 9420,
// Section 7.2.
type Capabilities struct {
	Versions    []uint16
	Suites      []Suite
	Extensions  []ExtensionType
	Proposals   []ProposalType
	Credentials []CredentialType
}
