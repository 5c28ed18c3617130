// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"valise/identity"
	"valise/policy"
	"valise/policy/rules"
)

// A Test is a decision that a bundle must come to, tests.json being a list of
// them. A bundle without at least one that grants and one that refuses is not
// loaded: it would have been tested by nobody.
//
//	{
//	  "name": "secret goes to those cleared for it",
//	  "action": "send", "precedence": "routine", "members": 2,
//	  "at": "2026-11-01T00:00:00Z",
//	  "label": {"policy": "1.2.3", "edition": 1, "classification": "SECRET", "mark": "",
//	            "categories": [{"set": "1.2.3.1", "tag": "Release", "name": "FRA"}]},
//	  "sender":    {"address": "alice@interieur.example", "tier": "hardware", "clearance": "3009…"},
//	  "recipient": {"address": "bob@interieur.example", "tier": "hardware", "clearance": ""},
//	  "want": "grant"
//	}
//
// want is "grant" or the reason of the refusal. A clearance is RFC 5755's in DER,
// as hexadecimal digits; empty is none.
type Test struct {
	Name       string       `json:"name"`
	Action     rules.Action `json:"action"`
	Precedence string       `json:"precedence"`
	Members    int          `json:"members"`
	At         time.Time    `json:"at"`
	Label      *TestLabel   `json:"label"`
	Sender     TestEnd      `json:"sender"`
	Recipient  TestEnd      `json:"recipient"`
	Want       string       `json:"want"`
}

// A TestLabel is a label in a test.
type TestLabel struct {
	Policy         string         `json:"policy"`
	Edition        uint32         `json:"edition"`
	Classification string         `json:"classification"`
	Mark           string         `json:"mark"`
	Categories     []TestCategory `json:"categories"`
}

// A TestCategory is a category of a TestLabel.
type TestCategory struct {
	Set  string `json:"set"`
	Tag  string `json:"tag"`
	Name string `json:"name"`
}

// A TestEnd is one end in a test.
type TestEnd struct {
	Address   identity.Address `json:"address"`
	Tier      identity.Tier    `json:"tier"`
	Clearance string           `json:"clearance"`
}

// ErrTest is wrapped by errors about decision tests.
var ErrTest = errors.New("bundle: decision test")

const granted = "grant"

// An Outcome is what a test came to.
type Outcome struct {
	Name string
	Want string
	Got  string
	Err  error // the test itself is at fault
}

// Passed reports whether the decision was the one that was wanted.
func (o *Outcome) Passed() bool { return o.Err == nil && o.Got == o.Want }

// Trial compiles contents as Compile does and returns the outcome of every test
// of data, a tests.json: their own, or those of another version.
func Trial(c *Contents, data []byte, now time.Time) ([]Outcome, error) {
	b, err := compile(c, &now)
	if err != nil {
		return nil, err
	}
	return b.runTests(data)
}

// checkTests wants all tests to pass; every one that fails is in the error.
func (b *Bundle) checkTests(data []byte) error {
	outcomes, err := b.runTests(data)
	if err != nil {
		return err
	}
	grants, refusals := 0, 0
	var failed []error
	for i, o := range outcomes {
		switch {
		case o.Err != nil:
			failed = append(failed, fmt.Errorf("%w %d, %.80q: %w", ErrTest, i+1, o.Name, o.Err))
		case !o.Passed():
			failed = append(failed, fmt.Errorf("%w %d, %.80q: want %s, got %s", ErrTest, i+1, o.Name, o.Want, o.Got))
		case o.Want == granted:
			grants++
		default:
			refusals++
		}
	}
	if len(failed) == 0 && (grants == 0 || refusals == 0) {
		failed = append(failed, fmt.Errorf("%w: %d that grant and %d that refuse; want at least one of each", ErrTest, grants, refusals))
	}
	return errors.Join(failed...)
}

func (b *Bundle) runTests(data []byte) ([]Outcome, error) {
	var tests []Test
	if err := strictJSON(data, &tests); err != nil {
		return nil, fmt.Errorf("%s: %w", TestsFile, err)
	}
	if len(tests) > maxTests {
		return nil, fmt.Errorf("%w: %d of them, at most %d are allowed", ErrTest, len(tests), maxTests)
	}
	outcomes := make([]Outcome, len(tests))
	for i := range tests {
		got, err := b.try(&tests[i])
		outcomes[i] = Outcome{Name: tests[i].Name, Want: tests[i].Want, Got: got, Err: err}
	}
	return outcomes, nil
}

// try returns "grant" or the reason of the refusal.
func (b *Bundle) try(t *Test) (string, error) {
	r := &Route{Action: t.Action, Precedence: t.Precedence, Members: t.Members}
	var err error
	if r.Sender, err = t.Sender.end(1); err != nil {
		return "", fmt.Errorf("sender: %w", err)
	}
	if r.Recipient, err = t.Recipient.end(2); err != nil {
		return "", fmt.Errorf("recipient: %w", err)
	}
	if t.Label != nil {
		if r.Label, err = t.Label.label(); err != nil {
			return "", err
		}
	}
	v := b.Decide(r, t.At)
	if v.Granted {
		return granted, nil
	}
	return string(v.Reason), nil
}

func (e *TestEnd) end(n byte) (End, error) {
	out := End{ID: identity.DeviceID{n}, Address: e.Address, Tier: e.Tier}
	if e.Clearance == "" {
		return out, nil
	}
	der, err := hex.DecodeString(e.Clearance)
	if err == nil {
		out.Clearance, err = identity.ParseClearance(der)
	}
	return out, err
}

func (l *TestLabel) label() (*policy.Label, error) {
	id, err := policy.ParseOID(l.Policy)
	if err != nil {
		return nil, err
	}
	out := &policy.Label{Policy: id, Edition: l.Edition, Classification: l.Classification, Mark: l.Mark}
	for _, c := range l.Categories {
		set, err := policy.ParseOID(c.Set)
		if err != nil {
			return nil, err
		}
		out.Categories = append(out.Categories, policy.Category{Set: set, Tag: c.Tag, Name: c.Name})
	}
	return out, nil
}
