// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"time"

	"valise/identity"
	"valise/policy"
	"valise/policy/rules"
	"valise/policy/spif"
)

// A Bundle is compiled. It does not change and is safe for concurrent use.
type Bundle struct {
	Version uint32
	Hash    [sha256.Size]byte
	Set     *policy.Set

	rules   *rules.Rules
	domains *Domains
	docs    []*spif.Document
}

// Compile checks contents in every way but who signed them: SPIFs, rules, table
// and tests. It is for officers, before they sign; gateways and clients use Open.
func Compile(c *Contents, now time.Time) (*Bundle, error) { return checked(c, &now) }

// Reopen is Compile for contents that are in force already, as they lay on disk: they
// passed Compile when they came. That a date in them has passed since does not end
// them: what it ends, Decide refuses, message by message. Never open with it what is
// new here: officers would not learn of a row that never acts.
func Reopen(c *Contents) (*Bundle, error) { return checked(c, nil) }

func checked(c *Contents, now *time.Time) (*Bundle, error) {
	b, err := compile(c, now)
	if err != nil {
		return nil, err
	}
	tests, _ := c.Read(TestsFile)
	if err := b.checkTests(tests); err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	return b, nil
}

// compile is Compile, or with a nil now Reopen, without the tests.
func compile(c *Contents, now *time.Time) (*Bundle, error) {
	hash, err := c.Hash()
	if err != nil {
		return nil, err
	}
	b := &Bundle{Version: c.Version, Hash: hash}
	var docs []*spif.Document
	for _, f := range c.Files {
		if !strings.HasPrefix(f.Name, policiesDir) {
			continue
		}
		doc, err := spif.Parse(f.Data)
		if err != nil {
			return nil, fmt.Errorf("bundle: %s: %w", f.Name, err)
		}
		docs = append(docs, doc)
	}
	if b.Set, err = policy.Compile(docs...); err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	b.docs = docs
	text, _ := c.Read(RulesFile)
	schema, ok := c.Read(SchemaFile)
	if !ok {
		schema = rules.Schema // there are no rules then
	}
	if b.rules, err = rules.Compile(text, schema); err != nil {
		return nil, fmt.Errorf("bundle: %s: %w", RulesFile, err)
	}
	table, _ := c.Read(DomainsFile)
	if b.domains, err = parseDomains(table, b.Set, now); err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	return b, nil
}

// WithEditions returns the bundle with editions of policies that it does not hold, for
// decisions about stored messages, which keep their own; its own stand before others of
// the same number. Never decide about a new message with it: an edition that the
// officers took out must not count again.
func (b *Bundle) WithEditions(older ...*spif.Document) (*Bundle, error) {
	docs := slices.Clone(b.docs)
	for _, d := range older {
		id, err := policy.ParseOID(d.Policy.ID)
		if err != nil {
			return nil, fmt.Errorf("bundle: %w", err)
		}
		if !b.Set.Has(id, d.Edition) {
			docs = append(docs, d)
		}
	}
	out := *b
	var err error
	if out.Set, err = policy.Compile(docs...); err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	out.docs = docs
	return &out, nil
}

// A Reason says, as one word for the audit stream, why a route is refused.
// Those of package policy and package rules stand beside these.
type Reason string

// Why a route is refused that clearances and rules would allow.
const (
	ReasonUnlabelled Reason = "unlabelled"
	ReasonDomain     Reason = "domain_bounds"
	ReasonTier       Reason = "attestation_tier"
	ReasonCeiling    Reason = "ceiling_lowered" // who joins would lower what a conversation may hold
)

// An End is one end of a route. Clearance is the effective one: the
// certificate's, cut down by the authorities above it and by the bulletin.
type End struct {
	ID        identity.DeviceID
	Address   identity.Address
	Tier      identity.Tier
	Clearance *identity.Clearance
}

// A Route is what is decided on: a message from one device to another, or a
// device that another adds.
type Route struct {
	Action     rules.Action
	Sender     End
	Recipient  End
	Label      *policy.Label // nil: unlabelled
	Use        policy.Use
	Precedence string // of rules.Send
	Members    int
}

// Rules lists the names of the rules.
func (b *Bundle) Rules() []string { return b.rules.Names() }

// A Verdict is the answer. Sender says which end a refusal is about.
type Verdict struct {
	Granted bool
	Reason  Reason
	Sender  bool
	Detail  string
}

// Decide says whether a route is open at a time. A bundle that carries no
// policy and allows unlabelled messages leaves it to the rules.
func (b *Bundle) Decide(r *Route, at time.Time) Verdict {
	ends := [2]*End{&r.Sender, &r.Recipient}
	var compiled [2]*policy.Clearance
	if r.Label == nil && r.Action != rules.Join && !b.domains.Unlabelled {
		return Verdict{Reason: ReasonUnlabelled, Sender: true, Detail: "messages without a label are not carried"}
	}
	for i, end := range ends {
		c, v := b.end(r, end, at)
		if v != nil {
			v.Sender = i == 0
			return *v
		}
		compiled[i] = c
	}
	q := &rules.Request{
		Action: r.Action, Label: r.Label, Precedence: r.Precedence, Members: r.Members,
		Sender:    rules.Device{ID: r.Sender.ID, Address: r.Sender.Address, Tier: r.Sender.Tier, Clearance: compiled[0]},
		Recipient: rules.Device{ID: r.Recipient.ID, Address: r.Recipient.Address, Tier: r.Recipient.Tier, Clearance: compiled[1]},
	}
	if v := b.rules.Decide(q); !v.Granted {
		return Verdict{Reason: Reason(v.Reason), Sender: true, Detail: strings.Join(v.Rules, " ")}
	}
	return Verdict{Granted: true}
}

// end decides about one end, and compiles its clearance for the rules.
func (b *Bundle) end(r *Route, end *End, at time.Time) (*policy.Clearance, *Verdict) {
	if r.Label == nil {
		if end.Clearance == nil {
			return nil, nil
		}
		// A clearance under a policy that is not known here holds nothing that
		// a rule could name.
		c, err := b.Set.Clearance(end.Clearance)
		if err != nil {
			return nil, nil
		}
		return c, nil
	}
	resolved, err := b.Set.Resolve(r.Label, r.Use, at)
	if err != nil {
		return nil, refused(err)
	}
	c, err := b.Set.Clearance(end.Clearance)
	if err != nil {
		return nil, refused(err)
	}
	if err := policy.Decide(resolved, c).Explain(resolved, c); err != nil {
		return nil, refused(err)
	}
	if v := b.table(r.Label, end, at); v != nil {
		return nil, v
	}
	return c, nil
}

func refused(err error) *Verdict {
	return &Verdict{Reason: Reason(policy.ReasonOf(err)), Detail: err.Error()}
}
