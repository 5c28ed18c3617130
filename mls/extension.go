// SPDX-License-Identifier: Apache-2.0

package mls

import (
	"fmt"
	"slices"
)

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

// isDefault says whether every client knows the type, RFC 9420, Section 7.2.
func (t ExtensionType) isDefault() bool { return t >= 1 && t <= 5 }

// An Extension is carried unread unless this package knows its type, RFC 9420,
// Section 13.4.
type Extension struct {
	Type ExtensionType
	Data []byte
}

func readExtension(r *reader) Extension {
	return Extension{ExtensionType(r.u16()), r.opaque()}
}

// readExtensions refuses two extensions of one type, RFC 9420, Section 13.4.
func readExtensions(r *reader) []Extension {
	list := readVector(r, readExtension)
	if len(list) > maxList {
		r.fail()
		return nil
	}
	seen := make(map[ExtensionType]bool, min(len(list), 16))
	for _, e := range list {
		if seen[e.Type] {
			r.fail()
			return nil
		}
		seen[e.Type] = true
	}
	return list
}

func (e Extension) append(b []byte) []byte { return appendOpaque(appendU16(b, uint16(e.Type)), e.Data) }

func appendExtensions(b []byte, list []Extension) []byte {
	return appendVector(b, list, func(b []byte, e Extension) []byte { return e.append(b) })
}

func findExtension(list []Extension, t ExtensionType) ([]byte, bool) {
	for _, e := range list {
		if e.Type == t {
			return e.Data, true
		}
	}
	return nil, false
}

// checkExtensions refuses a list of the caller's that others would refuse.
func checkExtensions(list []Extension) error {
	if len(list) > maxList {
		return fmt.Errorf("mls: %d extensions; at most %d are possible", len(list), maxList)
	}
	for i, e := range list {
		if slices.ContainsFunc(list[:i], func(o Extension) bool { return o.Type == e.Type }) {
			return fmt.Errorf("mls: extension 0x%04x is given twice", uint16(e.Type))
		}
	}
	return nil
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

// DefaultCapabilities are those of this package.
func DefaultCapabilities() Capabilities {
	return Capabilities{
		Versions:    []uint16{versionMLS10},
		Suites:      Suites(),
		Extensions:  []ExtensionType{ExtensionLastResort},
		Credentials: []CredentialType{CredentialBasic, CredentialX509},
	}
}

func readU16s[T ~uint16](r *reader) []T {
	list := readVector(r, func(r *reader) T { return T(r.u16()) })
	if len(list) > maxList {
		r.fail()
	}
	return list
}

func appendU16s[T ~uint16](b []byte, list []T) []byte {
	return appendVector(b, list, func(b []byte, v T) []byte { return appendU16(b, uint16(v)) })
}

func readCapabilities(r *reader) Capabilities {
	return Capabilities{
		readU16s[uint16](r), readU16s[Suite](r), readU16s[ExtensionType](r),
		readU16s[ProposalType](r), readU16s[CredentialType](r),
	}
}

func (c *Capabilities) append(b []byte) []byte {
	b = appendU16s(b, c.Versions)
	b = appendU16s(b, c.Suites)
	b = appendU16s(b, c.Extensions)
	b = appendU16s(b, c.Proposals)
	return appendU16s(b, c.Credentials)
}

func (c *Capabilities) extension(t ExtensionType) bool {
	return t.isDefault() || slices.Contains(c.Extensions, t)
}

func (c *Capabilities) proposal(t ProposalType) bool {
	return t.isDefault() || slices.Contains(c.Proposals, t)
}

// RequiredCapabilities is the extension of RFC 9420, Section 11.1.
type RequiredCapabilities struct {
	Extensions  []ExtensionType
	Proposals   []ProposalType
	Credentials []CredentialType
}

func readRequiredCapabilities(r *reader) RequiredCapabilities {
	return RequiredCapabilities{readU16s[ExtensionType](r), readU16s[ProposalType](r), readU16s[CredentialType](r)}
}

// Extension encodes the requirement as a group context extension.
func (q RequiredCapabilities) Extension() Extension {
	b := appendU16s(nil, q.Extensions)
	b = appendU16s(b, q.Proposals)
	return Extension{ExtensionRequiredCapabilities, appendU16s(b, q.Credentials)}
}

// An ExternalSender may send proposals from outside, RFC 9420, Section
// 12.1.8.1.
type ExternalSender struct {
	SignatureKey []byte
	Credential   Credential
}

func readExternalSender(r *reader) ExternalSender {
	return ExternalSender{r.opaque(), readCredential(r)}
}

// ExternalSendersExtension encodes senders as a group context extension.
func ExternalSendersExtension(senders []ExternalSender) Extension {
	return Extension{ExtensionExternalSenders, appendVector(nil, senders, func(b []byte, s ExternalSender) []byte {
		return s.Credential.append(appendOpaque(b, s.SignatureKey))
	})}
}

// parameters of a group that its extensions fix.
type parameters struct {
	required RequiredCapabilities
	senders  []ExternalSender
}

func readParameters(list []Extension) (p parameters, err error) {
	if data, ok := findExtension(list, ExtensionRequiredCapabilities); ok {
		if p.required, err = decode(data, readRequiredCapabilities); err != nil {
			return p, fmt.Errorf("%w: required_capabilities", err)
		}
	}
	if data, ok := findExtension(list, ExtensionExternalSenders); ok {
		p.senders, err = decode(data, func(r *reader) []ExternalSender { return readVector(r, readExternalSender) })
		if err != nil {
			return p, fmt.Errorf("%w: external_senders", err)
		}
	}
	return p, nil
}
