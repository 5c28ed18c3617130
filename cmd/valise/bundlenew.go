// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"valise/identity"
	"valise/policy"
	"valise/policy/bundle"
	"valise/policy/rules"
	"valise/policy/spif"
)

// PolicyNewCmd is `valise policy new DIR --spif FILE … --domain DOMAIN`: a
// folder to begin a bundle with, which passes `valise policy check`.
type PolicyNewCmd struct {
	Dir    string   `arg:"" help:"Folder to make; it must not exist."`
	SPIF   []string `name:"spif" required:"" sep:"none" placeholder:"FILE" help:"A policy as XML SPIF; give it again for more policies and editions."`
	Domain string   `required:"" help:"Domain of the people, such as interieur.example."`
}

const starterRules = `// Rules that restrict what clearances allow. Each is a forbid with a name, which
// audit streams and refusals show. What rules may look at stands in
// rules.cedarschema. An example:
//
// @id("own-domain-only")
// forbid (principal, action, resource)
// when { principal.domain != resource.domain };
`

// Run writes the folder, all of it or nothing.
func (c *PolicyNewCmd) Run(out io.Writer) (err error) {
	now := time.Now()
	if err := identity.CheckDomain(c.Domain); err != nil {
		return &statusError{exitUnreadable, err}
	}
	set, ids, files, err := c.policies(now)
	if err != nil {
		return &statusError{exitUnreadable, err}
	}
	if err := c.starter(set, ids, files, now); err != nil {
		return &statusError{exitUnreadable, err}
	}
	if err := os.Mkdir(c.Dir, 0o755); err != nil {
		return &statusError{exitUnreadable, err}
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(c.Dir))
		}
	}()
	for name, data := range files {
		path := filepath.Join(c.Dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return &statusError{exitUnreadable, err}
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			return &statusError{exitUnreadable, err}
		}
	}
	contents, err := readBundle(c.Dir)
	if err == nil {
		_, err = bundle.Compile(contents, now)
	}
	if err != nil {
		return &statusError{exitRefused, err}
	}
	_, err = fmt.Fprintf(out, "%s: edit rules.cedar, domains.json and tests.json, then: valise policy test %s\n", c.Dir, c.Dir)
	return err
}

func (c *PolicyNewCmd) policies(now time.Time) (*policy.Set, []policy.OID, map[string][]byte, error) {
	files := make(map[string][]byte)
	var documents []*spif.Document
	var ids []policy.OID
	for i, name := range c.SPIF {
		data, err := readUpTo(name, spif.MaxFileSize)
		if err != nil {
			return nil, nil, nil, err
		}
		d, err := spif.Parse(data)
		if err != nil {
			return nil, nil, nil, fmt.Errorf("%s: %w", name, err)
		}
		id, err := policy.ParseOID(d.Policy.ID)
		if err != nil {
			return nil, nil, nil, fmt.Errorf("%s: %w", name, err)
		}
		documents, ids = append(documents, d), append(ids, id)
		files[fmt.Sprintf("policies/%02d.xml", i+1)] = data
	}
	set, err := policy.Compile(documents...)
	return set, ids, files, err
}

// starter adds what is not a policy: no rule yet, the domain without bounds,
// and two tests, one that grants and one that refuses.
func (c *PolicyNewCmd) starter(set *policy.Set, ids []policy.OID, files map[string][]byte, now time.Time) error {
	alice, err := identity.ParseAddress("alice@" + c.Domain)
	if err != nil {
		return err
	}
	end := bundle.TestEnd{Address: alice, Tier: identity.TierHardware}
	test := bundle.Test{
		Name: "an unlabelled message goes through", Action: rules.Send, Precedence: "routine", Members: 2,
		At: now.UTC().Truncate(time.Second), Sender: end, Recipient: end, Want: "grant",
	}
	tests := []bundle.Test{test}
	test.Name, test.Want = "a labelled one does not, without clearance", string(policy.ReasonNoClearance)
	lowest, err := set.Lowest(ids[0], now)
	if err != nil {
		return err
	}
	test.Label = &bundle.TestLabel{Policy: ids[0].String(), Classification: lowest}
	tests = append(tests, test)
	table := bundle.Domains{Unlabelled: true, Tiers: []bundle.TierRow{}, Staleness: []bundle.Staleness{}}
	for i, id := range ids {
		if i == 0 || id != ids[i-1] {
			table.Domains = append(table.Domains, bundle.Bound{Domain: c.Domain, Policy: id.String()})
		}
	}
	for name, v := range map[string]any{bundle.TestsFile: tests, bundle.DomainsFile: table} {
		data, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			return err
		}
		files[name] = append(data, '\n')
	}
	files[bundle.RulesFile], files[bundle.SchemaFile] = []byte(starterRules), rules.Schema
	return nil
}
