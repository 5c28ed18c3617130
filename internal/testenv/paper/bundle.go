// SPDX-License-Identifier: Apache-2.0

package paper

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"testing/fstest"
	"time"

	"valise/identity"
	"valise/policy"
	"valise/policy/bundle"
	"valise/policy/rules"
	"valise/policy/spif"
	"valise/statement"
)

// A Doctrine is a security policy, policies/NAME.xml, to make labels, clearances
// and bundles of.
type Doctrine struct {
	Text []byte
	ID   policy.OID
	Set  *policy.Set

	t testing.TB
}

// NewDoctrine reads one of the policies that come with the project: "france",
// "coalition", "tlp".
func NewDoctrine(t testing.TB, name string) *Doctrine {
	t.Helper()
	_, here, _, _ := runtime.Caller(0)
	text, err := os.ReadFile(filepath.Join(filepath.Dir(here), "..", "..", "..", "policies", name+".xml"))
	doc, err := spif.Parse(Must(t, text, err))
	id, errID := policy.ParseOID(Must(t, doc, err).Policy.ID)
	set, err := policy.Compile(doc)
	return &Doctrine{Text: text, ID: Must(t, id, errID), Set: Must(t, set, err), t: t}
}

// UpTo returns the clearance for a classification and all below it.
func (d *Doctrine) UpTo(class string, categories ...policy.Category) *identity.Clearance {
	d.t.Helper()
	c, err := d.Set.Issue(policy.Grant{Policy: d.ID, UpTo: class, Categories: categories}, time.Now())
	return Must(d.t, c, err)
}

// Label returns a label of the first edition.
func (d *Doctrine) Label(class string, categories ...policy.Category) *policy.Label {
	return &policy.Label{Policy: d.ID, Edition: 1, Classification: class, Categories: categories}
}

// Folder is a bundle as officers write it: this policy, the rules and the table.
// Its two tests are about the lowest classification, or the floor of the table's first
// row, with and without clearance.
func (d *Doctrine) Folder(ruleText string, table bundle.Domains) fstest.MapFS {
	d.t.Helper()
	lowest, err := d.Set.Lowest(d.ID, time.Now())
	if len(table.Domains) > 0 && table.Domains[0].Floor != "" {
		lowest = table.Domains[0].Floor
	}
	der, errDER := d.UpTo(Must(d.t, lowest, err)).Marshal()
	address, err := identity.ParseAddress("test@" + tableDomain(table))
	end := bundle.TestEnd{Address: Must(d.t, address, err), Tier: identity.TierHardware, Clearance: hex.EncodeToString(Must(d.t, der, errDER))}
	test := bundle.Test{
		Name: "cleared", Action: rules.Send, Precedence: "routine", Members: 2, At: time.Now().UTC().Truncate(time.Second), Want: "grant",
		Label: &bundle.TestLabel{Policy: d.ID.String(), Edition: 1, Classification: lowest}, Sender: end, Recipient: end,
	}
	refused := test
	refused.Name, refused.Recipient.Clearance, refused.Want = "not cleared", "", string(policy.ReasonNoClearance)
	tests, err := json.Marshal([]bundle.Test{test, refused})
	Must(d.t, tests, err)
	domains, err := json.Marshal(table)
	return fstest.MapFS{
		"policies/policy.xml": {Data: d.Text}, bundle.RulesFile: {Data: []byte(ruleText)}, bundle.SchemaFile: {Data: rules.Schema},
		bundle.DomainsFile: {Data: Must(d.t, domains, err)}, bundle.TestsFile: {Data: tests},
	}
}

func tableDomain(table bundle.Domains) string {
	if len(table.Domains) > 0 {
		return table.Domains[0].Domain
	}
	return "interieur.example"
}

// Bundle packs and compiles a folder.
func (d *Doctrine) Bundle(version uint32, folder fstest.MapFS) (*bundle.Contents, *bundle.Bundle) {
	d.t.Helper()
	c, err := bundle.Pack(folder, version)
	b, errCompile := bundle.Compile(Must(d.t, c, err), time.Now())
	return c, Must(d.t, b, errCompile)
}

// SignBundle has officers put a bundle into force: what each of them signed, and
// the file that gateways load.
func SignBundle(t testing.TB, c *bundle.Contents, previous [32]byte, officers ...*Officer) (statements [][]byte, file []byte) {
	t.Helper()
	hash, err := c.Hash()
	body := &statement.Bundle{Change: statement.NewID(), Hash: Must(t, hash, err), Version: int(c.Version), Previous: previous}
	for _, o := range officers {
		statements = append(statements, o.Sign(body))
	}
	file, err = (&bundle.Signed{Contents: c, Statements: statements}).Marshal()
	return statements, Must(t, file, err)
}
