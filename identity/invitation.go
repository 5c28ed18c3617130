// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"
)

// An Invitation is what a person needs to enroll one device: where the
// authority is, how to know it, and a key that works once. Its code is as
// secret as a password until it is used: hand it over like one, never log it.
//
// See spec/enrollment.md, Section 2. The code is "valise1:" and the base64url
// of
//
//	struct {
//	    opaque url<1..255>;          // of the authority: https, no path
//	    opaque kid<1..64>;           // RFC 8555, Section 7.3.4
//	    opaque key<16..64>;          // HS256 key
//	    opaque root[32];             // SHA-256 of the root's certificate
//	    opaque address<3..255>;
//	    uint64 expires;              // seconds since 1970
//	    opaque check[4];             // SHA-256 of all before, against misspelling
//	} Invitation;
type Invitation struct {
	URL     string
	KID     string
	Key     []byte
	Root    [32]byte
	Address Address
	Expires time.Time
}

const (
	invitationPrefix = "valise1:"
	invitationCheck  = 4

	// maxInvitation bounds a code before it is decoded: the sum of the largest
	// fields is below 900 octets.
	maxInvitation = 1200

	minInvitationKey, maxInvitationKey = 16, 64
	maxInvitationKID, maxInvitationURL = 64, 255
)

// ErrInvitation is returned for texts that are no invitation.
var ErrInvitation = errors.New("not an invitation code: copy it whole, from \"valise1:\" to its end")

// ParseInvitation reads a code. Spaces around it are allowed, nothing else is.
func ParseInvitation(code string) (Invitation, error) {
	var inv Invitation
	code = strings.TrimSpace(code)
	text, ok := strings.CutPrefix(code, invitationPrefix)
	if !ok || len(code) > maxInvitation {
		return inv, ErrInvitation
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(raw) < invitationCheck {
		return inv, ErrInvitation
	}
	body, check := raw[:len(raw)-invitationCheck], raw[len(raw)-invitationCheck:]
	sum := sha256.Sum256(body)
	if !bytes.Equal(check, sum[:invitationCheck]) {
		return inv, fmt.Errorf("%w (a character is wrong or missing)", ErrInvitation)
	}
	return readInvitation(body)
}

func readInvitation(body []byte) (Invitation, error) {
	var (
		inv                     Invitation
		address, kid, key, base cryptobyte.String
		expires                 uint64
		s                       = cryptobyte.String(body)
	)
	if !s.ReadUint8LengthPrefixed(&base) || !s.ReadUint8LengthPrefixed(&kid) ||
		!s.ReadUint8LengthPrefixed(&key) || !s.CopyBytes(inv.Root[:]) ||
		!s.ReadUint8LengthPrefixed(&address) || !s.ReadUint64(&expires) || !s.Empty() || expires > 1<<40 {
		return Invitation{}, ErrInvitation
	}
	var err error
	if inv.Address, err = ParseAddress(string(address)); err != nil {
		return Invitation{}, fmt.Errorf("%w: %w", ErrInvitation, err)
	}
	inv.URL, inv.KID, inv.Key = string(base), string(kid), bytes.Clone(key)
	inv.Expires = time.Unix(int64(expires), 0).UTC()
	if err := inv.Check(); err != nil {
		return Invitation{}, fmt.Errorf("%w: %w", ErrInvitation, err)
	}
	return inv, nil
}

// Check reports whether inv can be written as a code.
func (inv *Invitation) Check() error {
	u, err := url.Parse(inv.URL)
	switch {
	case err != nil || len(inv.URL) > maxInvitationURL || u.Scheme != "https" || u.Host == "" || u.String() != inv.URL ||
		u.Path != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil || u.ForceQuery:
		return fmt.Errorf("invitation: URL %q is not https://HOST or https://HOST:PORT", clip(inv.URL))
	case len(inv.KID) == 0 || len(inv.KID) > maxInvitationKID || !printable(inv.KID):
		return errors.New("invitation: the key identifier takes 1 to 64 printable characters")
	case len(inv.Key) < minInvitationKey || len(inv.Key) > maxInvitationKey:
		return errors.New("invitation: the key takes 16 to 64 octets")
	case inv.Address.IsZero():
		return errors.New("invitation: no address")
	case inv.Expires.Unix() <= 0 || inv.Expires.Unix() > 1<<40:
		return errors.New("invitation: no expiry")
	}
	return nil
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// Code returns the invitation as a text without spaces; parsing it gives the
// same invitation. It has no String method, so that no log line shows it.
func (inv *Invitation) Code() (string, error) {
	if err := inv.Check(); err != nil {
		return "", err
	}
	var b cryptobyte.Builder
	opaque := func(v []byte) {
		b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(v) })
	}
	opaque([]byte(inv.URL))
	opaque([]byte(inv.KID))
	opaque(inv.Key)
	b.AddBytes(inv.Root[:])
	opaque([]byte(inv.Address.String()))
	b.AddUint64(uint64(inv.Expires.Unix()))
	body, err := b.Bytes()
	if err != nil {
		return "", fmt.Errorf("invitation: %w", err)
	}
	sum := sha256.Sum256(body)
	return invitationPrefix + base64.RawURLEncoding.EncodeToString(append(body, sum[:invitationCheck]...)), nil
}
