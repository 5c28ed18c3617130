// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"valise/identity"
	"valise/policy"
	"valise/policy/bundle"
	"valise/policy/rules"
)

// PolicyCheckCmd is `valise policy check BUNDLE`: everything that a gateway
// checks when it loads a bundle but who signed it.
type PolicyCheckCmd struct {
	bundleFile
}

// PolicyTestCmd is `valise policy test BUNDLE`: a line for each decision test.
type PolicyTestCmd struct {
	bundleFile
}

// PolicyDiffCmd is `valise policy diff OLD NEW`: which files differ, and which
// decisions of either version's tests.
type PolicyDiffCmd struct {
	Old string `arg:"" help:"The bundle in force: a folder, or a file."`
	New string `arg:"" help:"The bundle that is to replace it."`
}

// PolicyExplainCmd is `valise policy explain BUNDLE --from … --to …`: what is
// decided about one route, and why.
type PolicyExplainCmd struct {
	bundleFile
	From          identity.Address `required:"" placeholder:"ADDRESS" help:"Who sends."`
	To            identity.Address `required:"" placeholder:"ADDRESS" help:"Who receives."`
	FromClearance string           `placeholder:"FILE" help:"The sender's clearance: an RFC 5755 attribute value in BER, or XML; without it none."`
	ToClearance   string           `placeholder:"FILE" help:"The recipient's clearance."`
	FromTier      identity.Tier    `default:"hardware" enum:"hardware,witnessed" help:"How the sender's key is attested: hardware or witnessed."`
	ToTier        identity.Tier    `default:"hardware" enum:"hardware,witnessed" help:"How the recipient's key is attested."`
	Label         string           `placeholder:"FILE" help:"The label: STANAG 4774 XML, ESSSecurityLabel in BER, or Valise's own form; without it the message is unlabelled."`
	Precedence    string           `default:"routine" help:"Precedence of the message."`
	Members       int              `default:"2" help:"Devices in the conversation."`
	Join          bool             `help:"Decide whether the sender may add the recipient to a conversation, instead of a message."`
}

// bundleFile names a bundle: a folder as officers write it, or a file.
type bundleFile struct {
	Bundle string `arg:"" help:"A bundle: a folder with policies/, rules.cedar, domains.json and tests.json, or a file."`
}

// readBundle reads a folder or a file, signed or not.
func readBundle(name string) (*bundle.Contents, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		// The version is given when the bundle is signed.
		return bundle.Pack(os.DirFS(name), 1)
	}
	data, err := readUpTo(name, bundle.MaxSize)
	if err != nil {
		return nil, err
	}
	if signed, err := bundle.ParseSigned(data); err == nil {
		return signed.Contents, nil
	}
	return bundle.Parse(data)
}

// Run prints what the bundle holds.
func (c *PolicyCheckCmd) Run(out io.Writer) error {
	contents, err := readBundle(c.Bundle)
	if err != nil {
		return &statusError{exitUnreadable, err}
	}
	b, err := bundle.Compile(contents, time.Now())
	if err != nil {
		return &statusError{exitRefused, err}
	}
	fmt.Fprintf(out, "bundle: ok: %d files, %d rules\n", len(contents.Files), len(b.Rules()))
	for _, f := range contents.Files {
		fmt.Fprintf(out, "  %s, %d bytes\n", f.Name, len(f.Data))
	}
	for _, name := range b.Rules() {
		fmt.Fprintf(out, "  rule %s\n", name)
	}
	return nil
}

// Run prints a line for each test and returns nil when all pass.
func (c *PolicyTestCmd) Run(out io.Writer) error {
	contents, err := readBundle(c.Bundle)
	if err != nil {
		return &statusError{exitUnreadable, err}
	}
	tests, _ := contents.Read(bundle.TestsFile)
	outcomes, err := bundle.Trial(contents, tests, time.Now())
	if err != nil {
		return &statusError{exitRefused, err}
	}
	failed := 0
	for _, o := range outcomes {
		line := "ok: " + o.Name + ": " + o.Got
		switch {
		case o.Err != nil:
			line = "unreadable: " + o.Name + ": " + o.Err.Error()
		case !o.Passed():
			line = "failed: " + o.Name + ": want " + o.Want + ", got " + o.Got
		}
		if !o.Passed() {
			failed++
		}
		fmt.Fprintln(out, printable(line))
	}
	fmt.Fprintf(out, "tests: %d passed, %d failed\n", len(outcomes)-failed, failed)
	if failed > 0 {
		return &statusError{exitRefused, fmt.Errorf("%d of %d decision tests failed", failed, len(outcomes))}
	}
	if _, err := bundle.Compile(contents, time.Now()); err != nil {
		return &statusError{exitRefused, err}
	}
	return nil
}

// Run prints one line for each difference; like diff, it ends with status 1 if
// there is any.
func (c *PolicyDiffCmd) Run(out io.Writer) error {
	older, err := readBundle(c.Old)
	if err != nil {
		return &statusError{exitUnreadable, err}
	}
	newer, err := readBundle(c.New)
	if err != nil {
		return &statusError{exitUnreadable, err}
	}
	lines := diffFiles(older, newer)
	decisions, err := diffDecisions(older, newer, time.Now())
	if err != nil {
		return &statusError{exitUnreadable, err}
	}
	lines = append(lines, decisions...)
	for _, line := range lines {
		fmt.Fprintln(out, printable(line))
	}
	if len(lines) > 0 {
		return &statusError{exitRefused, fmt.Errorf("%d differences", len(lines))}
	}
	return nil
}

func diffFiles(older, newer *bundle.Contents) (lines []string) {
	for _, f := range older.Files {
		switch data, ok := newer.Read(f.Name); {
		case !ok:
			lines = append(lines, "removed: "+f.Name)
		case !bytes.Equal(data, f.Data):
			lines = append(lines, "changed: "+f.Name)
		}
	}
	for _, f := range newer.Files {
		if _, ok := older.Read(f.Name); !ok {
			lines = append(lines, "added: "+f.Name)
		}
	}
	return lines
}

// diffDecisions asks both versions all that either one's tests ask.
func diffDecisions(older, newer *bundle.Contents, now time.Time) (lines []string, err error) {
	oldTests, _ := older.Read(bundle.TestsFile)
	newTests, _ := newer.Read(bundle.TestsFile)
	for _, tests := range [][]byte{oldTests, newTests} {
		before, err := bundle.Trial(older, tests, now)
		if err != nil {
			return nil, fmt.Errorf("the old bundle: %w", err)
		}
		after, err := bundle.Trial(newer, tests, now)
		if err != nil {
			return nil, fmt.Errorf("the new bundle: %w", err)
		}
		for i := range before {
			line := fmt.Sprintf("decided otherwise: %s: was %s, is %s", before[i].Name, before[i].Got, after[i].Got)
			if before[i].Got != after[i].Got && !slices.Contains(lines, line) {
				lines = append(lines, line)
			}
		}
	}
	return lines, nil
}

// Run prints "grant" or "refuse: REASON: …", and about whom.
func (c *PolicyExplainCmd) Run(out io.Writer) error {
	contents, err := readBundle(c.Bundle)
	if err != nil {
		return &statusError{exitUnreadable, err}
	}
	now := time.Now()
	b, err := bundle.Compile(contents, now)
	if err != nil {
		return &statusError{exitUnreadable, err}
	}
	route, err := c.route(b, now)
	if err != nil {
		return &statusError{exitUnreadable, err}
	}
	v := b.Decide(route, now)
	if v.Granted {
		_, err := fmt.Fprintln(out, "grant")
		return err
	}
	about := "recipient"
	if v.Sender {
		about = "sender"
	}
	detail := strings.TrimPrefix(v.Detail, string(v.Reason)+": ")
	fmt.Fprintln(out, printable(fmt.Sprintf("refuse: %s (%s): %s", v.Reason, about, detail)))
	return &statusError{exitRefused, errors.New("the route is closed")}
}

func (c *PolicyExplainCmd) route(b *bundle.Bundle, now time.Time) (*bundle.Route, error) {
	r := &bundle.Route{
		Action: rules.Send, Precedence: c.Precedence, Members: c.Members,
		Sender:    bundle.End{ID: identity.DeviceID{1}, Address: c.From, Tier: c.FromTier},
		Recipient: bundle.End{ID: identity.DeviceID{2}, Address: c.To, Tier: c.ToTier},
	}
	if c.Join {
		r.Action = rules.Join
	}
	for _, end := range []struct {
		file string
		into *bundle.End
	}{{c.FromClearance, &r.Sender}, {c.ToClearance, &r.Recipient}} {
		if end.file == "" {
			continue
		}
		clearance, err := readClearance(end.file)
		if err != nil {
			return nil, err
		}
		end.into.Clearance = clearance
	}
	if c.Label == "" {
		return r, nil
	}
	data, err := readUpTo(c.Label, policy.MaxLabelFile)
	if err != nil {
		return nil, err
	}
	r.Label, err = b.Set.Import(data, now)
	return r, err
}
