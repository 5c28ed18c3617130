// SPDX-License-Identifier: Apache-2.0

package keys

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	pkcs11uri "github.com/stefanberger/go-pkcs11uri"
)

// A URI names a token, and a key in it if Ref or ID is set.
type URI struct {
	Scheme string // "piv", "pkcs11" or "tpm"
	Ref    string // PIV slot, the object's label, or a place in a TPM
	ID     []byte // CKA_ID of the object; pkcs11 only

	Serial string
	Reader string // piv only: part of the reader's name

	Token, Manufacturer, Model string // pkcs11 only
	Module                     string // pkcs11 only: path of the library
	Path                       string // tpm only: device or socket; empty: the usual one
	PINSource                  string // path of a file that holds the PIN
}

type uriError struct{ text, hint string }

func (e *uriError) Error() string { return e.text }
func (e *uriError) Hint() string  { return e.hint }

// What is wrong with a URI, for errors.Is.
var (
	ErrURI error = &uriError{
		"malformed key URI",
		"write piv:9a, or pkcs11:token=LABEL;object=KEY?module-path=/path/to/module.so",
	}
	ErrPINInURI error = &uriError{
		"a PIN in a URI is refused, because URIs end up in logs",
		"put the PIN into a file that only you can read, and name it: pin-source=/path/to/file",
	}
)

// Parse reads a URI. Its errors do not repeat the URI, which might hold a PIN.
func Parse(text string) (*URI, error) {
	if len(text) > maxURI {
		return nil, fmt.Errorf("keys: %w: it has %d bytes", ErrURI, len(text))
	}
	if holdsPIN(text) {
		return nil, fmt.Errorf("keys: %w", ErrPINInURI)
	}
	scheme, rest, colon := strings.Cut(text, ":")
	var u *URI
	var err error
	switch {
	case colon && scheme == "piv":
		u, err = parsePIV(rest)
	case colon && scheme == "pkcs11":
		u, err = parsePKCS11(text)
	case colon && scheme == "tpm":
		u, err = parseTPM(rest)
	default:
		err = errors.New("it must begin with piv:, pkcs11: or tpm: before all else")
	}
	if err != nil {
		return nil, fmt.Errorf("keys: %w: %w", ErrURI, err)
	}
	if u.PINSource != "" && !filepath.IsAbs(u.PINSource) {
		return nil, fmt.Errorf("keys: %w: pin-source must be the absolute path of a file", ErrURI)
	}
	return u, nil
}

// holdsPIN looks for pin-value anywhere, encoded or not, and in any case.
func holdsPIN(text string) bool {
	for range 3 { // encoded more than once, too
		if strings.Contains(strings.ToLower(text), "pin-value") {
			return true
		}
		decoded, err := url.PathUnescape(text)
		if err != nil || decoded == text {
			break
		}
		text = decoded
	}
	return false
}

func parsePIV(rest string) (*URI, error) {
	u := &URI{Scheme: "piv"}
	err := u.parseQuery(rest, map[string]*string{"serial": &u.Serial, "reader": &u.Reader, "pin-source": &u.PINSource},
		"after piv: comes a slot like 9a, and ? before all else", "serial, reader and pin-source are known")
	return u, err
}

func parseTPM(rest string) (*URI, error) {
	u := &URI{Scheme: "tpm"}
	err := u.parseQuery(rest, map[string]*string{"path": &u.Path, "pin-source": &u.PINSource},
		"after tpm: comes a place like 9a or 81000100, and ? before all else", "path and pin-source are known")
	if err == nil && u.Path != "" && !filepath.IsAbs(u.Path) {
		err = errors.New("path must be absolute")
	}
	return u, err
}

// parseQuery reads REF?NAME=VALUE&… with the names that into has.
func (u *URI) parseQuery(rest string, into map[string]*string, shape, known string) error {
	ref, query, _ := strings.Cut(rest, "?")
	if strings.ContainsAny(ref, "/;&=%#") {
		return errors.New(shape)
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return errors.New("its query is malformed")
	}
	u.Ref = ref
	for name, value := range values {
		if len(value) != 1 || value[0] == "" {
			return fmt.Errorf("%q must be given once, with a value", printable(name))
		}
		field := into[name]
		if field == nil {
			return fmt.Errorf("%q is unknown; %s", printable(name), known)
		}
		*field = value[0]
	}
	u.PINSource = strings.TrimPrefix(u.PINSource, "file:")
	return nil
}

// printable shortens what may be a slip of the keyboard with a PIN in it.
func printable(name string) string {
	if len(name) > 16 || strings.ContainsAny(name, "0123456789") {
		return "…"
	}
	return name
}

// Attributes of RFC 7512, Section 2.3, that we use. Slot numbers are not among
// them: they change, and a PIN shown to the wrong token locks it.
var (
	pathNames  = []string{"token", "serial", "manufacturer", "model", "object", "id", "type"}
	queryNames = []string{"module-path", "pin-source"}
)

// parsePKCS11 reads an RFC 7512 URI, strictly: what it does not know it
// refuses, where the RFC lets it ignore vendors' attributes.
func parsePKCS11(text string) (*URI, error) {
	path, query, _ := strings.Cut(strings.TrimPrefix(text, "pkcs11:"), "?")
	if err := checkNames(path, ";", pathNames); err != nil {
		return nil, err
	}
	if err := checkNames(query, "&", queryNames); err != nil {
		return nil, err
	}
	parsed := pkcs11uri.New()
	if err := parsed.Parse(strings.TrimSuffix(text, "?")); err != nil {
		return nil, errors.New("an attribute is malformed or given twice, or module-path is not absolute")
	}
	attribute := func(name string) string { v, _ := parsed.GetPathAttribute(name, false); return v }
	if t := attribute("type"); t != "" && t != "private" {
		return nil, errors.New("type can only be private")
	}
	module, _ := parsed.GetQueryAttribute("module-path", false)
	source, _ := parsed.GetQueryAttribute("pin-source", false)
	return &URI{
		Scheme: "pkcs11", Ref: attribute("object"), ID: []byte(attribute("id")),
		Serial: attribute("serial"), Token: attribute("token"),
		Manufacturer: attribute("manufacturer"), Model: attribute("model"),
		Module: module, PINSource: strings.TrimPrefix(source, "file:"),
	}, nil
}

func checkNames(part, separator string, known []string) error {
	if part == "" {
		return nil
	}
	for attribute := range strings.SplitSeq(part, separator) {
		name, value, ok := strings.Cut(attribute, "=")
		switch {
		case name == "slot-id":
			return errors.New("tokens are named by label or serial, not by slot-id, which changes")
		case !slices.Contains(known, name):
			return fmt.Errorf("%q is unknown here", printable(name))
		case !ok || value == "":
			return fmt.Errorf("%q has no value", name)
		}
	}
	return nil
}

// String is the URI in canonical form. It never holds a PIN.
func (u *URI) String() string {
	switch u.Scheme {
	case "piv":
		return "piv:" + u.Ref + query("serial", u.Serial, "reader", u.Reader, "pin-source", u.PINSource)
	case "tpm":
		return "tpm:" + u.Ref + query("path", u.Path, "pin-source", u.PINSource)
	}
	var path []string
	for _, a := range [][2]string{
		{"token", u.Token},
		{"serial", u.Serial},
		{"manufacturer", u.Manufacturer},
		{"model", u.Model},
		{"object", u.Ref},
		{"id", string(u.ID)},
	} {
		if a[1] != "" {
			path = append(path, a[0]+"="+escape(a[1]))
		}
	}
	return "pkcs11:" + strings.Join(path, ";") + query("module-path", u.Module, "pin-source", u.PINSource)
}

// query joins pairs of name and value, leaving out empty ones.
func query(pairs ...string) string {
	var parts []string
	for pair := range slices.Chunk(pairs, 2) {
		if pair[1] != "" {
			parts = append(parts, pair[0]+"="+escape(pair[1]))
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return "?" + strings.Join(parts, "&")
}

// escape percent-encodes all but the unreserved characters of RFC 3986, Section
// 2.3, which is valid in every place of both kinds of URI.
func escape(s string) string {
	const unreserved = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
	var b strings.Builder
	for i := range len(s) {
		if strings.IndexByte(unreserved, s[i]) >= 0 {
			b.WriteByte(s[i])
		} else {
			fmt.Fprintf(&b, "%%%02X", s[i])
		}
	}
	return b.String()
}
