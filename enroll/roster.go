// SPDX-License-Identifier: Apache-2.0

package enroll

import (
	"bufio"
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"valise/identity"
	"valise/internal/store/authority"
)

// rosterHeader is the first line of a roster file.
var rosterHeader = []string{"address", "name", "unit", "clearance"}

// ReadRoster reads people from CSV (RFC 4180) with the header
//
//	address,name,unit,clearance
//
// and one person a line. The clearance is empty, or a policy's object identifier and
// the classifications under it, by number or by RFC 5755's name:
//
//	1.3.6.1.4.1.99999.1:unclassified+restricted+confidential
//
// Every error names the line; nobody is read if one line is wrong. Addresses must
// belong to the domain and stand once.
func ReadRoster(r io.Reader, domain string, now time.Time) ([]authority.Person, error) {
	limited := &io.LimitedReader{R: r, N: maxRosterBytes + 1}
	b := bufio.NewReader(limited)
	if mark, err := b.Peek(3); err == nil && string(mark) == "\ufeff" {
		_, _ = b.Discard(3) // spreadsheets write a byte order mark
	}
	c := csv.NewReader(b)
	c.FieldsPerRecord = len(rosterHeader)
	header, err := c.Read()
	if err != nil || !slices.Equal(header, rosterHeader) {
		return nil, fmt.Errorf("roster: line 1: want the header %q", strings.Join(rosterHeader, ","))
	}
	var people []authority.Person
	lines := make(map[identity.Address]int)
	for {
		record, err := c.Read()
		if limited.N == 0 {
			return nil, fmt.Errorf("roster: larger than %d bytes", maxRosterBytes)
		}
		if err == io.EOF {
			return people, nil
		}
		if err != nil {
			return nil, fmt.Errorf("roster: %w", err) // csv's errors name the line
		}
		line, _ := c.FieldPos(0)
		p, err := readPerson(record, domain)
		if err != nil {
			return nil, fmt.Errorf("roster: line %d: %w", line, err)
		}
		if first, ok := lines[p.Address]; ok {
			return nil, fmt.Errorf("roster: line %d: %s stands in line %d already", line, p.Address, first)
		}
		lines[p.Address] = line
		p.Changed = now
		people = append(people, p)
	}
}

func readPerson(record []string, domain string) (authority.Person, error) {
	var p authority.Person
	var err error
	if p.Address, err = identity.ParseAddress(record[0]); err != nil {
		return p, err
	}
	if p.Address.Domain() != domain {
		return p, fmt.Errorf("%s is outside this authority's domain, %s", p.Address, domain)
	}
	if p.Name, err = plainText("name", record[1]); err != nil {
		return p, err
	}
	if p.Name == "" {
		return p, fmt.Errorf("%s has no name", p.Address)
	}
	if p.Unit, err = plainText("unit", record[2]); err != nil {
		return p, err
	}
	p.Clearance, err = ParseClearanceText(record[3])
	return p, err
}

func plainText(what, s string) (string, error) {
	if len(s) > maxRosterField || !utf8.ValidString(s) || strings.TrimSpace(s) != s || strings.ContainsFunc(s, unicode.IsControl) {
		return "", fmt.Errorf("%s: want up to %d bytes of UTF-8 text on one line, without spaces around it", what, maxRosterField)
	}
	return s, nil
}

// ParseClearanceText reads a clearance as it stands in a roster; empty is nil.
func ParseClearanceText(s string) (*identity.Clearance, error) {
	return identity.ParseClearanceText(s)
}

// ClearanceText writes a clearance as ParseClearanceText reads it.
func ClearanceText(c *identity.Clearance) string { return c.Text() }

// ImportRoster stores people, all or none, and counts those that are new or changed.
// Who is not in the file stays on the roster.
func ImportRoster(ctx context.Context, s *authority.Store, people []authority.Person) (changed int, err error) {
	err = s.Update(ctx, func(tx *authority.Tx) error {
		changed = 0
		for _, p := range people {
			is, err := tx.PutPerson(p)
			if err != nil {
				return fmt.Errorf("%s: %w", p.Address, err)
			}
			if is {
				changed++
			}
		}
		return nil
	})
	return changed, err
}
