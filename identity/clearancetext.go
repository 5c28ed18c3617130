// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// classNames are RFC 5755's, Section 4.4.6, by number.
var classNames = []string{"unmarked", "unclassified", "restricted", "confidential", "secret", "topsecret"}

// ParseClearanceText reads a clearance as people write it, and as a roster
// holds it: empty is nil, otherwise POLICY-OID:CLASS+CLASS…, classes by number
// or by RFC 5755's name. Categories have no such form.
func ParseClearanceText(s string) (*Clearance, error) {
	if s == "" {
		return nil, nil
	}
	policy, classes, found := strings.Cut(s, ":")
	if !found || classes == "" {
		return nil, errors.New("clearance: want POLICY-OID:CLASS+CLASS…, or nothing")
	}
	c := new(Clearance)
	for _, arc := range strings.Split(policy, ".") {
		n, err := strconv.ParseUint(arc, 10, 31)
		if err != nil || strconv.FormatUint(n, 10) != arc {
			return nil, fmt.Errorf("clearance: %q is not an object identifier", clip(policy))
		}
		c.PolicyID = append(c.PolicyID, int(n))
	}
	if _, err := asn1.Marshal(c.PolicyID); err != nil {
		return nil, fmt.Errorf("clearance: %q is not an object identifier", clip(policy))
	}
	var numbers []int
	for _, name := range strings.Split(classes, "+") {
		n := slices.Index(classNames, name)
		if n < 0 {
			v, err := strconv.ParseUint(name, 10, 8)
			if err != nil {
				return nil, fmt.Errorf("clearance: %q is neither a number nor one of %s", clip(name), strings.Join(classNames, ", "))
			}
			n = int(v)
		}
		if slices.Contains(numbers, n) {
			return nil, fmt.Errorf("clearance: %q stands twice", clip(name))
		}
		numbers = append(numbers, n)
	}
	var err error
	if c.ClassList, err = NewClassList(numbers...); err != nil {
		return nil, err
	}
	if _, err := c.Marshal(); err != nil {
		return nil, err
	}
	return c, nil
}

// Text writes a clearance as ParseClearanceText reads it; nil is empty. Each
// category follows as "+category(TYPE:HEX)", so that what an officer signs
// hides none; that form is for reading only.
func (c *Clearance) Text() string {
	if c == nil {
		return ""
	}
	var names []string
	for _, n := range c.Classes() {
		if n < len(classNames) {
			names = append(names, classNames[n])
		} else {
			names = append(names, strconv.Itoa(n))
		}
	}
	for _, category := range c.Categories {
		names = append(names, "category("+category.Type.String()+":"+hex.EncodeToString(category.Value)+")")
	}
	return c.PolicyID.String() + ":" + strings.Join(names, "+")
}
