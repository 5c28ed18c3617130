// SPDX-License-Identifier: Apache-2.0

// Package spif reads and writes Security Policy Information Files in XML
// (xmlspif.org, schema 1.0 to 2.1): which classifications and categories a
// policy has, what may stand beside what, how values are shown, and what they
// are called in another policy.
//
// First call: [Parse]. It returns a [Document], which holds what the file says
// and decides nothing; package policy compiles documents and decides. [Marshal]
// writes a document in the order that the schema asks for. Errors are an
// [*Error] with a line and a [Reason].
//
// What the file cannot mean is refused, and so is what this package does not
// know: an element or attribute that would be skipped might be the one that
// restricts. Elements are accepted in any order, because published files have
// them so. What stands inside <extensions>, or has a foreign namespace's
// attribute, is not read.
//
// Never compare categories by number: published policies use one number for
// two communities. Never order classifications by number either.
package spif

import (
	"errors"
	"fmt"
	"strings"

	"valise/policy/spif/xmltree"
)

// A Reason says, as one word, why a file was refused.
type Reason string

// The reasons of an Error.
const (
	ReasonTooLarge   Reason = "too_large"
	ReasonXML        Reason = "malformed_xml" // not XML, or XML that readers could understand differently
	ReasonUnknown    Reason = "unknown"       // an element or attribute that the schema does not have
	ReasonMissing    Reason = "missing"       // an element or attribute that it demands
	ReasonValue      Reason = "bad_value"
	ReasonDuplicate  Reason = "duplicate"  // a name or number that must be the only one
	ReasonAmbiguous  Reason = "ambiguous"  // a number for two categories, where it would decide
	ReasonUnresolved Reason = "unresolved" // a reference to what is not there
)

// An Error says in which line a SPIF cannot be used, and why.
type Error struct {
	Line   int
	Reason Reason
	Err    error
}

func (e *Error) Error() string {
	return fmt.Sprintf("spif: line %d: %v (%s)", e.Line, e.Err, e.Reason)
}

func (e *Error) Unwrap() error { return e.Err }

// Errorf returns an Error. Package policy uses it for what only shows when
// references are followed.
func Errorf(line int, reason Reason, format string, args ...any) error {
	return &Error{line, reason, fmt.Errorf(format, args...)}
}

// ReasonOf returns the reason of a refused SPIF, "" for any other error.
func ReasonOf(err error) Reason {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Reason
	}
	return ""
}

func fromTree(reason Reason, err error) error {
	if e, ok := errors.AsType[*xmltree.Error](err); ok {
		return &Error{e.Line, reason, e.Err}
	}
	return err
}

func clip(s string) string {
	if len(s) > 60 {
		return strings.ToValidUTF8(s[:60], "") + "…"
	}
	return s
}
