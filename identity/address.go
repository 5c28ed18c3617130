// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"fmt"
	"strings"
)

// An Address names a person: local part, "@", domain of the authority that
// keeps the roster. It is comparable, and its zero value names nobody.
type Address struct {
	local, domain string
}

// ParseAddress reads an address in canonical form and refuses every other
// spelling: ASCII, lower case, no quotes, no comments (a narrow subset of
// RFC 5321, Section 4.1.2). One person has exactly one spelling, so that
// addresses compare byte by byte. What a human typed goes through
// [CanonicalAddress] first.
func ParseAddress(s string) (Address, error) {
	local, domain, found := strings.Cut(s, "@")
	if !found {
		return Address{}, fmt.Errorf("address %q: no \"@\": write it as name@domain", clip(s))
	}
	if !validLocalPart(local) {
		return Address{}, fmt.Errorf("address %q: the part before \"@\" takes 1 to %d of a-z 0-9 . _ + - and begins and ends with a letter or digit", clip(s), maxLocalPart)
	}
	if err := CheckDomain(domain); err != nil {
		return Address{}, fmt.Errorf("address %q: %w", clip(s), err)
	}
	return Address{local, domain}, nil
}

// CanonicalAddress reads an address as people type it: surrounding spaces are
// dropped and ASCII letters lowered, then it must parse.
func CanonicalAddress(s string) (Address, error) {
	lower := func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + ('a' - 'A')
		}
		return r
	}
	return ParseAddress(strings.Map(lower, strings.TrimSpace(s)))
}

// CheckDomain reports whether s is a domain in canonical form: labels of
// letters, digits and inner hyphens (RFC 1123, Section 2.1), lower case, no
// dot at the end. Other scripts are written as A-labels ("xn--…").
func CheckDomain(s string) error {
	if len(s) > maxDomain {
		return fmt.Errorf("domain %q: longer than %d characters", clip(s), maxDomain)
	}
	labels := strings.Split(s, ".")
	for _, label := range labels {
		if !validLabel(label) {
			return fmt.Errorf("domain %q: labels take 1 to 63 of a-z 0-9 and inner hyphens", clip(s))
		}
	}
	// A last label of digits only would be read as an IPv4 address.
	if strings.Trim(labels[len(labels)-1], "0123456789") == "" {
		return fmt.Errorf("domain %q: the last label is a number: addresses need a name", clip(s))
	}
	return nil
}

// String returns the canonical form; parsing it gives the same Address.
func (a Address) String() string {
	if a == (Address{}) {
		return ""
	}
	return a.local + "@" + a.domain
}

// Local returns the part before the "@".
func (a Address) Local() string { return a.local }

// Domain returns the part after the "@".
func (a Address) Domain() string { return a.domain }

// IsZero reports whether a names nobody.
func (a Address) IsZero() bool { return a == Address{} }

// MarshalText makes addresses plain strings in JSON and TOML.
func (a Address) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText accepts what ParseAddress accepts, and the empty string as the
// zero Address.
func (a *Address) UnmarshalText(text []byte) (err error) {
	if len(text) == 0 {
		*a = Address{}
		return nil
	}
	*a, err = ParseAddress(string(text))
	return err
}

func validLocalPart(s string) bool {
	if len(s) == 0 || len(s) > maxLocalPart || strings.Contains(s, "..") {
		return false
	}
	for i := range len(s) {
		inner := i > 0 && i < len(s)-1 && strings.IndexByte("._+-", s[i]) >= 0
		if !alphanumeric(s[i]) && !inner {
			return false
		}
	}
	return true
}

func validLabel(s string) bool {
	if len(s) == 0 || len(s) > 63 {
		return false
	}
	for i := range len(s) {
		inner := i > 0 && i < len(s)-1 && s[i] == '-'
		if !alphanumeric(s[i]) && !inner {
			return false
		}
	}
	return true
}

func alphanumeric(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }

// clip bounds hostile text in an error message.
func clip(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
