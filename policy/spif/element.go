// SPDX-License-Identifier: Apache-2.0

package spif

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"valise/policy/spif/xmltree"
)

// A reader keeps the first error; what it returns after one means nothing.
type reader struct {
	err        error
	categories int
}

func (r *reader) fail(n *xmltree.Node, reason Reason, format string, args ...any) {
	if r.err == nil {
		r.err = Errorf(n.Line, reason, format, args...)
	}
}

// each calls read with the children by name and refuses all others.
func (r *reader) each(n *xmltree.Node, read map[string]func(*xmltree.Node)) {
	if err := n.NoText(); err != nil && r.err == nil {
		r.err = fromTree(ReasonUnknown, err)
	}
	for _, child := range n.Children {
		if r.err != nil {
			return
		}
		f := read[child.Name]
		if child.Space != Namespace || f == nil {
			r.fail(child, ReasonUnknown, "%s cannot hold an element %q of namespace %q", n.Name, clip(child.Name), clip(child.Space))
			return
		}
		f(child)
	}
}

// done is called when all attributes were asked for.
func (r *reader) done(n *xmltree.Node) {
	if err := n.Only(); err != nil && r.err == nil {
		r.err = fromTree(ReasonUnknown, err)
	}
}

// leaf is done for an element without anything inside.
func (r *reader) leaf(n *xmltree.Node) {
	r.done(n)
	r.each(n, nil)
}

// must returns an attribute that has to be there.
func (r *reader) must(n *xmltree.Node, name string) string {
	v, ok := n.Attr(name)
	if !ok {
		r.fail(n, ReasonMissing, "%s has no attribute %s", n.Name, name)
	}
	return v
}

func (r *reader) may(n *xmltree.Node, name string) string {
	v, _ := n.Attr(name)
	return v
}

// name reads a name: not empty, bounded, and nothing in it that a terminal
// obeys or that only looks like the end of it.
func (r *reader) name(n *xmltree.Node, attr string) string {
	v := r.must(n, attr)
	if r.err == nil {
		if err := CheckName(v); err != nil {
			r.fail(n, ReasonValue, "%s of %s: %w", attr, n.Name, err)
		}
	}
	return v
}

// CheckName says whether a string can name a classification, tag or category.
func CheckName(s string) error {
	switch {
	case s == "" || len(s) >= MaxName:
		return fmt.Errorf("a name has 1 to %d octets", MaxName-1)
	case !utf8.ValidString(s) || strings.ContainsFunc(s, func(c rune) bool { return !unicode.IsPrint(c) }):
		return fmt.Errorf("%q holds what cannot be printed", clip(s))
	case s[0] == ' ' || s[len(s)-1] == ' ' || strings.Contains(s, "  "):
		return fmt.Errorf("%q begins or ends with a space, or has two in a row", clip(s))
	}
	return nil
}

func (r *reader) oid(n *xmltree.Node, attr string) string {
	v := r.must(n, attr)
	if r.err == nil {
		if err := checkOID(v); err != nil {
			r.fail(n, ReasonValue, "%s of %s: %w", attr, n.Name, err)
		}
	}
	return v
}

func (r *reader) integer(n *xmltree.Node, attr, text string, low, high int) int {
	i, err := strconv.ParseInt(strings.TrimSpace(text), 10, 32)
	if err != nil || int(i) < low || int(i) > high {
		r.fail(n, ReasonValue, "%s of %s is %q, want a number from %d to %d", attr, n.Name, clip(text), low, high)
		return 0
	}
	return int(i)
}

func (r *reader) boolean(n *xmltree.Node, attr string) bool {
	switch v, _ := n.Attr(attr); v {
	case "true", "1":
		return true
	case "false", "0", "":
		return false
	default:
		r.fail(n, ReasonValue, "%s of %s is %q, want true or false", attr, n.Name, clip(v))
		return false
	}
}

func (r *reader) oneOf(n *xmltree.Node, attr, v string, allowed ...string) string {
	if !slices.Contains(allowed, v) {
		r.fail(n, ReasonValue, "%s of %s is %q, want one of %s", attr, n.Name, clip(v), strings.Join(allowed, ", "))
	}
	return v
}

// date reads an xs:dateTime; without a zone it is UTC.
func (r *reader) date(n *xmltree.Node, attr string) time.Time {
	v, ok := n.Attr(attr)
	if !ok {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339Nano, v)
	if err != nil {
		t, err = time.Parse("2006-01-02T15:04:05.999999999", v)
	}
	if err != nil || t.IsZero() {
		r.fail(n, ReasonValue, "%s of %s is %q, want a date and time", attr, n.Name, clip(v))
	}
	return t.UTC()
}

// selection reads minSelection or maxSelection.
func (r *reader) selection(n *xmltree.Node, attr string, unbounded int) int {
	v, ok := n.Attr(attr)
	if !ok || v == "unbounded" {
		return unbounded
	}
	return r.integer(n, attr, v, 0, MaxCategories)
}
