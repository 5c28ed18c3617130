// SPDX-License-Identifier: Apache-2.0

package statement

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"
	"unicode"
	"unicode/utf8"

	"valise/identity"
)

// members writes or reads JSON in the one spelling of spec/statement.md,
// Section 3: members in fixed order, no space, one form of each value. The
// same list of calls does both, so what is read is what would be written, and
// the reader has no words for anything unknown, repeated or optional.
type members struct {
	reading bool
	in      []byte // what is left to read
	out     []byte
	first   bool // no member of this object yet
	err     error
}

var errSpelling = errors.New("not in canonical form")

func (m *members) fail(format string, args ...any) {
	if m.err == nil {
		m.err = fmt.Errorf(format, args...)
	}
}

// check fails unless ok, on both ways.
func (m *members) check(ok bool, format string, args ...any) {
	if !ok {
		m.fail(format, args...)
	}
}

// done returns what was written, or reports that all was read.
func (m *members) done() ([]byte, error) {
	if m.err == nil && m.reading && len(m.in) != 0 {
		m.err = errSpelling
	}
	if m.err != nil {
		return nil, fmt.Errorf("statement: %w", m.err)
	}
	return m.out, nil
}

// literal writes text, or reads exactly it.
func (m *members) literal(text string) {
	if !m.reading {
		m.out = append(m.out, text...)
	} else if rest, ok := bytes.CutPrefix(m.in, []byte(text)); ok && m.err == nil {
		m.in = rest
	} else {
		m.fail("%w: want %q", errSpelling, text)
	}
}

func (m *members) object(inside func()) {
	m.literal("{")
	outer := m.first
	m.first = true
	inside()
	m.first = outer
	m.literal("}")
}

func (m *members) name(name string) {
	if !m.first {
		m.literal(",")
	}
	m.first = false
	m.literal(`"` + name + `":`)
}

// quoted writes or reads a string. Only the quotation mark and the reverse
// solidus are escaped; what else JSON escapes is not allowed in a text.
func (m *members) quoted(v *string, most int) {
	if !m.reading {
		m.check(len(*v) <= most && plain(*v), "%.40q: want one line of at most %d octets without control or invisible characters", *v, most)
		m.out = append(m.out, '"')
		for i := range len(*v) {
			if (*v)[i] == '"' || (*v)[i] == '\\' {
				m.out = append(m.out, '\\')
			}
			m.out = append(m.out, (*v)[i])
		}
		m.out = append(m.out, '"')
		return
	}
	m.literal(`"`)
	var text []byte
	for m.err == nil {
		if len(m.in) == 0 || len(text) > most {
			m.fail("%w: a text has no end or is too long", errSpelling)
			return
		}
		c := m.in[0]
		m.in = m.in[1:]
		switch {
		case c == '"':
			*v = string(text)
			m.check(len(text) <= most && plain(*v), "%.40q: want one line of at most %d octets without control or invisible characters", *v, most)
			return
		case c == '\\' && len(m.in) > 0 && (m.in[0] == '"' || m.in[0] == '\\'):
			c, m.in = m.in[0], m.in[1:]
		case c == '\\':
			m.fail("%w: an escape that is not needed", errSpelling)
		}
		text = append(text, c)
	}
}

// plain reports whether a person who reads s sees what stands in it: no
// control characters, no line ends, nothing invisible that turns or joins
// text (Unicode categories Cc, Cf, Zl, Zp, Co).
func plain(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if r == utf8.RuneError || unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Co) {
			return false
		}
	}
	return true
}

// text is for people: up to maxText, not empty, no spaces around it.
func (m *members) text(name string, v *string) {
	m.optional(name, v)
	m.check(*v != "", "%s: it is empty", name)
}

// optional is text that may be empty.
func (m *members) optional(name string, v *string) {
	m.name(name)
	m.quoted(v, maxText)
	m.check(len(*v) == 0 || (*v)[0] != ' ' && (*v)[len(*v)-1] != ' ', "%s: spaces around it", name)
}

// token is an identifier: letters, digits, "-", "_", ".".
func (m *members) token(name string, v *string) {
	m.name(name)
	m.quoted(v, maxToken)
	m.check(isToken(*v), "%s: want 1 to %d of A-Z a-z 0-9 . _ -", name, maxToken)
}

func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '.') {
			return false
		}
	}
	return len(s) > 0 && len(s) <= maxToken
}

// id is 128 bits in base64url.
func (m *members) id(name string, v *string) {
	m.token(name, v)
	raw, err := base64.RawURLEncoding.Strict().DecodeString(*v)
	m.check(err == nil && len(raw) == 16, "%s: want 128 bits in base64url", name)
}

func (m *members) address(name string, v *identity.Address) {
	m.anyAddress(name, v)
	m.check(!v.IsZero(), "%s: no address", name)
}

// anyAddress may be empty.
func (m *members) anyAddress(name string, v *identity.Address) {
	m.name(name)
	s := v.String()
	m.quoted(&s, 400)
	if m.reading && m.err == nil {
		if err := v.UnmarshalText([]byte(s)); err != nil {
			m.fail("%s: %w", name, err)
		}
	}
}

// hash is 32 octets in lower-case hexadecimal; all zero is empty.
func (m *members) hash(name string, v *[32]byte) {
	m.name(name)
	m.anyHash(v)
}

func (m *members) anyHash(v *[32]byte) {
	var s string
	if *v != ([32]byte{}) {
		s = hex.EncodeToString(v[:])
	}
	m.quoted(&s, 64)
	if !m.reading || s == "" || m.err != nil {
		return
	}
	id, err := identity.ParseDeviceID(s) // 64 lower-case hexadecimal digits
	if err != nil || id.IsZero() {
		m.fail("%w: want 64 lower-case hexadecimal digits, not all zero", errSpelling)
	}
	*v = id
}

// mustHash is a hash that is not zero.
func (m *members) mustHash(name string, v *[32]byte) {
	m.hash(name, v)
	m.check(*v != [32]byte{}, "%s: it is missing", name)
}

// octets are in base64url without padding.
func (m *members) octets(name string, v *[]byte, least, most int) {
	m.name(name)
	if !m.reading {
		m.out = append(m.out, '"')
		m.out = base64.RawURLEncoding.AppendEncode(m.out, *v)
		m.out = append(m.out, '"')
	} else {
		m.literal(`"`)
		end := bytes.IndexByte(m.in, '"')
		if end < 0 || m.err != nil {
			m.fail("%w: %s has no end", errSpelling, name)
			return
		}
		m.check(end <= base64.RawURLEncoding.EncodedLen(most), "%s: more than %d octets", name, most)
		*v = m.decode(base64.RawURLEncoding.Strict(), m.in[:end])
		m.in = m.in[end+1:]
	}
	m.check(len(*v) >= least && len(*v) <= most, "%s: %d octets, want %d to %d", name, len(*v), least, most)
}

func (m *members) decode(encoding *base64.Encoding, text []byte) []byte {
	if m.err != nil || bytes.ContainsAny(text, "\r\n") { // the decoder would skip them
		m.fail("%w: a line end in base64", errSpelling)
		return nil
	}
	raw, err := encoding.AppendDecode(nil, text)
	if err != nil {
		m.fail("%w: %w", errSpelling, err)
		return nil
	}
	return raw
}

// key is a SubjectPublicKeyInfo in DER, of a key that Valise certifies.
func (m *members) key(name string, v *[]byte) {
	m.octets(name, v, 1, maxKey)
	if m.err != nil {
		return
	}
	if _, err := keyID(*v); err != nil {
		m.fail("%s: %w", name, err)
	}
}

// keyID returns the id of a key in DER, and refuses a second encoding of it.
func keyID(spki []byte) (identity.DeviceID, error) {
	key, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return identity.DeviceID{}, err
	}
	if err := identity.CheckKey(key); err != nil {
		return identity.DeviceID{}, err
	}
	again, err := x509.MarshalPKIXPublicKey(key)
	if err != nil || !bytes.Equal(again, spki) {
		return identity.DeviceID{}, errors.New("the key is not in its canonical encoding")
	}
	return identity.DeviceIDOf(key)
}

func (m *members) clearance(name string, v **identity.Clearance) {
	var der []byte
	if !m.reading && *v != nil {
		var err error
		if der, err = (*v).Marshal(); err != nil {
			m.fail("%s: %w", name, err)
		}
	}
	m.octets(name, &der, 0, maxClearance)
	if m.reading && m.err == nil && len(der) > 0 {
		var err error
		if *v, err = identity.ParseClearance(der); err != nil {
			m.fail("%s: %w", name, err)
		}
	}
}

func (m *members) number(name string, v *int, least, most int) {
	n := int64(*v)
	m.name(name)
	m.integer(&n)
	m.check(n >= int64(least) && n <= int64(most), "%s: %d, want %d to %d", name, n, least, most)
	*v = int(n)
}

// period is in whole seconds.
func (m *members) period(name string, v *time.Duration, least time.Duration) {
	m.check(m.reading || *v%time.Second == 0, "%s: %v is not in whole seconds", name, *v)
	n := int64(*v / time.Second)
	m.name(name)
	m.integer(&n)
	m.check(n >= int64(least/time.Second) && n <= int64(maxPeriod/time.Second), "%s: %d seconds, want %d to %d", name, n, least/time.Second, maxPeriod/time.Second)
	if m.err == nil {
		*v = time.Duration(n) * time.Second
	}
}

// moment is in seconds since 1970.
func (m *members) moment(name string, v *time.Time) {
	n := v.Unix()
	m.check(m.reading || v.Nanosecond() == 0, "%s: %v is not in whole seconds", name, v)
	m.name(name)
	m.integer(&n)
	m.check(n > 0 && n <= maxTime, "%s: it is missing", name)
	*v = time.Unix(n, 0).UTC()
}

func (m *members) integer(n *int64) {
	if !m.reading {
		m.out = strconv.AppendInt(m.out, *n, 10)
		return
	}
	end := 0
	for end < len(m.in) && end < 19 && '0' <= m.in[end] && m.in[end] <= '9' {
		end++
	}
	v, err := strconv.ParseInt(string(m.in[:end]), 10, 64)
	if err != nil || strconv.FormatInt(v, 10) != string(m.in[:end]) {
		m.fail("%w: want a number", errSpelling)
		return
	}
	*n, m.in = v, m.in[end:]
}

func (m *members) flag(name string, v *bool) {
	m.name(name)
	if m.reading {
		*v = bytes.HasPrefix(m.in, []byte("true"))
	}
	m.literal(strconv.FormatBool(*v))
}

// choice is one of a few words.
func choice[T ~string](m *members, name string, v *T, among ...T) {
	m.name(name)
	choose(m, name, v, among)
}

func choose[T ~string](m *members, name string, v *T, among []T) {
	s := string(*v)
	m.quoted(&s, maxToken)
	*v = T(s)
	m.check(slices.Contains(among, *v), "%s: %.40q is none of %q", name, s, among)
}

// list is an array of at most most values, each written or read by one.
func list[T any](m *members, name string, v *[]T, most int, one func(*T)) {
	m.name(name)
	m.literal("[")
	m.check(len(*v) <= most, "%s: more than %d", name, most)
	if !m.reading {
		for i := range *v {
			if i > 0 {
				m.literal(",")
			}
			one(&(*v)[i])
		}
	}
	for m.reading && m.err == nil && !bytes.HasPrefix(m.in, []byte("]")) {
		if len(*v) > 0 {
			m.literal(",")
		}
		if len(*v) == most {
			m.fail("%s: more than %d", name, most)
			return
		}
		var value T
		one(&value)
		*v = append(*v, value)
	}
	m.literal("]")
}
