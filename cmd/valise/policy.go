// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"valise/identity"
	"valise/policy"
	"valise/policy/spif"
)

// PolicyCmd is `valise policy`: labels, clearances, policies and bundles in
// files, looked at without any gateway.
type PolicyCmd struct {
	Label  PolicyLabelCmd  `cmd:"" help:"Say whether labels are valid, and how they are shown. Exit status: 0 valid, 1 invalid, 2 unreadable."`
	Decide PolicyDecideCmd `cmd:"" help:"Say whether a clearance reaches labels. Exit status: 0 granted, 1 denied, 2 unreadable."`

	New     PolicyNewCmd     `cmd:"" help:"Make a folder to begin a policy bundle with."`
	Check   PolicyCheckCmd   `cmd:"" help:"Check a policy bundle as a gateway does, its tests included. Exit status: 0 in order, 1 not, 2 unreadable."`
	Test    PolicyTestCmd    `cmd:"" help:"Run a bundle's decision tests, a line for each. Exit status: 0 all pass, 1 not, 2 unreadable."`
	Sign    PolicySignCmd    `cmd:"" help:"Sign a policy bundle with your officer's card and hand that in. It takes two officers."`
	Explain PolicyExplainCmd `cmd:"" help:"Say whether a bundle leaves a route open, and why not. Exit status: 0 open, 1 closed, 2 unreadable."`
	Diff    PolicyDiffCmd    `cmd:"" help:"Say which files and which decisions differ between two bundles. Exit status: 0 none, 1 some, 2 unreadable."`
}

// PolicyLabelCmd is `valise policy label --spif FILE … LABEL …`. It prints a
// line for each label, in order: "valid: MARKING" or "invalid: REASON: …".
type PolicyLabelCmd struct {
	policyFiles
	Lang string `placeholder:"LANGUAGE" help:"Show markings in this language, such as fr."`
}

// PolicyDecideCmd is `valise policy decide --spif FILE … --clearance FILE
// LABEL …`. It prints a line for each label, in order: "grant" or "deny:
// REASON: …". An invalid label is denied.
type PolicyDecideCmd struct {
	policyFiles
	Clearance string `required:"" placeholder:"FILE" help:"The clearance: an RFC 5755 attribute value in BER, or XML."`
}

// policyFiles is what both commands read. Each file shows by its content what
// it is.
type policyFiles struct {
	SPIF   []string `name:"spif" required:"" sep:"none" placeholder:"FILE" help:"A policy as XML SPIF; give it again for more policies and editions."`
	Stored bool     `help:"Judge labels as those of stored messages: obsolete values and old editions are in order."`
	Labels []string `arg:"" name:"label" help:"Labels: STANAG 4774 XML, ESSSecurityLabel in BER, or Valise's own form."`
}

// Run prints to out and returns nil when every label is valid.
func (c *PolicyLabelCmd) Run(out io.Writer) error {
	set, err := c.compile()
	if err != nil {
		return &statusError{exitUnreadable, err}
	}
	return c.each(out, "invalid", func(data []byte) (string, error) {
		resolved, err := c.resolve(set, data)
		if err != nil {
			return "", err
		}
		return "valid: " + resolved.Marking(c.Lang), nil
	})
}

// Run prints to out and returns nil when every label is granted.
func (c *PolicyDecideCmd) Run(out io.Writer) error {
	set, err := c.compile()
	if err != nil {
		return &statusError{exitUnreadable, err}
	}
	clearance, err := readClearance(c.Clearance)
	if err != nil {
		return &statusError{exitUnreadable, err}
	}
	return c.each(out, "deny", func(data []byte) (string, error) {
		resolved, err := c.resolve(set, data)
		if err != nil {
			return "", err
		}
		compiled, err := set.Clearance(clearance)
		if err != nil {
			return "", err
		}
		return "grant", policy.Decide(resolved, compiled).Explain(resolved, compiled)
	})
}

func (f *policyFiles) compile() (*policy.Set, error) {
	var documents []*spif.Document
	for _, name := range f.SPIF {
		data, err := readUpTo(name, spif.MaxFileSize)
		if err != nil {
			return nil, err
		}
		d, err := spif.Parse(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		documents = append(documents, d)
	}
	return policy.Compile(documents...)
}

func (f *policyFiles) resolve(set *policy.Set, data []byte) (*policy.Resolved, error) {
	now := time.Now()
	label, err := set.Import(data, now)
	if err != nil {
		return nil, err
	}
	use := policy.New
	if f.Stored {
		use = policy.Stored
	}
	return set.Resolve(label, use, now)
}

// each judges the labels one after another and prints a line for each that
// could be read; refusal begins the line of one that is refused. The first one
// that cannot be read ends the command, since its line would be missing.
func (f *policyFiles) each(out io.Writer, refusal string, judge func(data []byte) (string, error)) error {
	refused := 0
	for _, name := range f.Labels {
		data, err := readUpTo(name, policy.MaxLabelFile)
		if err != nil {
			return &statusError{exitUnreadable, err}
		}
		line, err := judge(data)
		if err != nil {
			denial, ok := errors.AsType[*policy.Denial](err)
			if !ok {
				return &statusError{exitUnreadable, fmt.Errorf("%s: %w", name, err)}
			}
			refused++
			line = refusal + ": " + denial.Error()
		}
		if _, err := fmt.Fprintln(out, printable(line)); err != nil {
			return err
		}
	}
	if refused > 0 {
		return &statusError{exitRefused, fmt.Errorf("%d of %d labels refused", refused, len(f.Labels))}
	}
	return nil
}

func readClearance(name string) (*identity.Clearance, error) {
	data, err := readUpTo(name, policy.MaxClearanceFile)
	if err != nil {
		return nil, err
	}
	clearance, err := policy.ParseClearance(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return clearance, nil
}

// readUpTo reads a file of at most size bytes.
func readUpTo(name string, size int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, size+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > size {
		return nil, fmt.Errorf("%s: larger than %d bytes", name, size)
	}
	return data, nil
}
