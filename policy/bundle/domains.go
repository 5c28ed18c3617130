// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"valise/identity"
	"valise/policy"
)

// Domains is the table of what holds for whole domains and classifications,
// domains.json:
//
//	{
//	  "unlabelled": false,
//	  "lowering": false,
//	  "domains": [
//	    {"domain": "interieur.example", "policy": "1.2.3", "floor": "OPEN", "ceiling": "SECRET"}
//	  ],
//	  "tiers": [
//	    {"policy": "1.2.3", "classification": "SECRET", "tier": "hardware"}
//	  ],
//	  "staleness": [
//	    {"policy": "1.2.3", "classification": "SECRET", "refuse": "10m"}
//	  ],
//	  "defaults": [
//	    {"domain": "interieur.example", "label": {"policy": "1.2.3", "classification": "OPEN"}}
//	  ]
//	}
//
// Both ends of a route must stand in a domain that is listed for the label's
// policy, if any is listed for it.
type Domains struct {
	Unlabelled bool        `json:"unlabelled"`         // messages without a label are carried
	Lowering   bool        `json:"lowering,omitempty"` // who joins may lower a conversation's ceiling
	Domains    []Bound     `json:"domains"`
	Tiers      []TierRow   `json:"tiers"`
	Staleness  []Staleness `json:"staleness"`
	Defaults   []Default   `json:"defaults,omitempty"`
}

// A Default is the label of messages that people of a domain write without naming
// one. An edition of 0, or none, is the one in force.
type Default struct {
	Domain string    `json:"domain"`
	Label  TestLabel `json:"label"`

	label *policy.Label
}

// A Bound is the lowest and the highest classification of a policy that a domain
// carries; an empty one is no bound.
type Bound struct {
	Domain  string `json:"domain"`
	Policy  string `json:"policy"`
	Floor   string `json:"floor"`
	Ceiling string `json:"ceiling"`

	policy policy.OID
}

// A TierRow asks for a tier of attestation from this classification upwards.
type TierRow struct {
	Policy         string        `json:"policy"`
	Classification string        `json:"classification"`
	Tier           identity.Tier `json:"tier"`

	policy policy.OID
}

// A Staleness says how old the newest bulletin may be for messages of this
// classification and above. Without a label or row, the gateway's own bound holds.
type Staleness struct {
	Policy         string `json:"policy"`
	Classification string `json:"classification"`
	Refuse         string `json:"refuse"` // as time.ParseDuration reads it

	policy policy.OID
	refuse time.Duration
}

// tierRank orders tiers: a higher one fulfils what a lower one is asked for.
var tierRank = map[identity.Tier]int{identity.TierWitnessed: 1, identity.TierHardware: 2}

// parseDomains reads the table. What its rows name must be in force now; a nil now is of
// a table that was checked when it came, of which that may have changed since.
func parseDomains(data []byte, set *policy.Set, now *time.Time) (*Domains, error) {
	d := new(Domains)
	if err := strictJSON(data, d); err != nil {
		return nil, fmt.Errorf("%s: %w", DomainsFile, err)
	}
	if max(len(d.Domains), len(d.Tiers), len(d.Staleness), len(d.Defaults)) > maxRows {
		return nil, fmt.Errorf("%s: more than %d rows in a list", DomainsFile, maxRows)
	}
	fail := func(list string, i int, err error) (*Domains, error) {
		return nil, fmt.Errorf("%s: %s: row %d: %w", DomainsFile, list, i+1, err)
	}
	for i := range d.Domains {
		if err := d.Domains[i].check(set, now); err != nil {
			return fail("domains", i, err)
		}
	}
	for i := range d.Tiers {
		if err := d.Tiers[i].check(set, now); err != nil {
			return fail("tiers", i, err)
		}
	}
	for i := range d.Staleness {
		if err := d.Staleness[i].check(set, now); err != nil {
			return fail("staleness", i, err)
		}
	}
	for i := range d.Defaults {
		if err := d.Defaults[i].check(set, now); err != nil {
			return fail("defaults", i, err)
		}
		same := func(o Default) bool { return o.Domain == d.Defaults[i].Domain }
		if slices.ContainsFunc(d.Defaults[:i], same) {
			return fail("defaults", i, fmt.Errorf("%s has a default already", d.Defaults[i].Domain))
		}
	}
	return d, nil
}

func (d *Default) check(set *policy.Set, now *time.Time) (err error) {
	if err := identity.CheckDomain(d.Domain); err != nil {
		return err
	}
	if d.label, err = d.Label.label(); err != nil || now == nil {
		return err
	}
	_, err = set.Resolve(d.label, policy.New, *now)
	return err
}

// Default returns the label of what people of a domain write without naming one, of
// the edition in force; nil if the table gives none, or none that is valid now.
func (b *Bundle) Default(domain string, now time.Time) *policy.Resolved {
	for _, d := range b.domains.Defaults {
		if d.Domain == domain {
			if r, err := b.Set.Resolve(d.label, policy.New, now); err == nil {
				return r
			}
		}
	}
	return nil
}

// Unlabelled reports whether messages without a label are carried at all.
func (b *Bundle) Unlabelled() bool { return b.domains.Unlabelled }

func (b *Bound) check(set *policy.Set, now *time.Time) (err error) {
	if err := identity.CheckDomain(b.Domain); err != nil {
		return err
	}
	if b.policy, err = knownClasses(set, b.Policy, now, b.Floor, b.Ceiling); err != nil {
		return err
	}
	if b.Floor == "" || b.Ceiling == "" || now == nil {
		return nil
	}
	if ok, err := set.Dominates(b.policy, b.Ceiling, b.Floor, *now); err != nil || !ok {
		return errors.Join(fmt.Errorf("the ceiling %q is below the floor %q", b.Ceiling, b.Floor), err)
	}
	return nil
}

func (r *TierRow) check(set *policy.Set, now *time.Time) (err error) {
	if tierRank[r.Tier] == 0 {
		return fmt.Errorf("%.40q is no tier", r.Tier)
	}
	if r.Classification == "" {
		return errors.New("no classification")
	}
	r.policy, err = knownClasses(set, r.Policy, now, r.Classification)
	return err
}

func (s *Staleness) check(set *policy.Set, now *time.Time) (err error) {
	if s.refuse, err = time.ParseDuration(s.Refuse); err != nil || s.refuse <= 0 {
		return fmt.Errorf("refuse: %.40q is not a positive duration", s.Refuse)
	}
	if s.Classification == "" {
		return errors.New("no classification")
	}
	s.policy, err = knownClasses(set, s.Policy, now, s.Classification)
	return err
}

// knownClasses makes sure that a row names what there is: one about an unknown
// value would never act.
func knownClasses(set *policy.Set, dotted string, now *time.Time, classes ...string) (policy.OID, error) {
	id, err := policy.ParseOID(dotted)
	if err != nil {
		return "", err
	}
	for _, c := range classes {
		if c == "" || now == nil {
			continue
		}
		if _, err := set.Dominates(id, c, c, *now); err != nil {
			return "", fmt.Errorf("policy %s, classification %.40q: %w", dotted, c, err)
		}
	}
	return id, nil
}

// bounds checks one end of a route against the table.
func (d *Domains) bounds(set *policy.Set, l *policy.Label, domain string, now time.Time) error {
	listed, here := false, false
	for _, b := range d.Domains {
		if b.policy != l.Policy {
			continue
		}
		listed = true
		if b.Domain != domain {
			continue
		}
		here = true
		if b.Floor != "" {
			if ok, err := set.Dominates(b.policy, l.Classification, b.Floor, now); err != nil || !ok {
				return fmt.Errorf("%s carries nothing below %q", domain, b.Floor)
			}
		}
		if b.Ceiling != "" {
			if ok, err := set.Dominates(b.policy, b.Ceiling, l.Classification, now); err != nil || !ok {
				return fmt.Errorf("%s carries nothing above %q", domain, b.Ceiling)
			}
		}
	}
	if listed && !here {
		return fmt.Errorf("%s is not among the domains of this policy", domain)
	}
	return nil
}

// tier checks one end's tier of attestation.
func (d *Domains) tier(set *policy.Set, l *policy.Label, tier identity.Tier, now time.Time) error {
	for _, r := range d.Tiers {
		if r.policy != l.Policy {
			continue
		}
		asked, err := set.Dominates(r.policy, l.Classification, r.Classification, now)
		if err != nil {
			return err
		}
		if asked && tierRank[tier] < tierRank[r.Tier] {
			return fmt.Errorf("from %q on, devices must be of tier %q", r.Classification, r.Tier)
		}
	}
	return nil
}

// StaleAfter returns how old a bulletin may be for messages with this label, and
// false if no row says anything about it. The strictest row counts.
func (b *Bundle) StaleAfter(l *policy.Label, now time.Time) (time.Duration, bool) {
	if l == nil {
		return 0, false
	}
	strictest, found := time.Duration(0), false
	for _, s := range b.domains.Staleness {
		if s.policy != l.Policy {
			continue
		}
		above, err := b.Set.Dominates(s.policy, l.Classification, s.Classification, now)
		if err != nil || above {
			if !found || s.refuse < strictest {
				strictest, found = s.refuse, true
			}
		}
	}
	return strictest, found
}

// strictJSON reads one JSON value: no unknown members, none twice, nothing after it.
func strictJSON(data []byte, v any) error {
	if err := noDuplicates(json.NewDecoder(bytes.NewReader(data)), 0); err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if _, err := dec.Token(); err != io.EOF {
		return errors.New("something follows the JSON value")
	}
	return nil
}

// maxNesting bounds the depth of JSON.
const maxNesting = 16

func noDuplicates(dec *json.Decoder, depth int) error {
	t, err := dec.Token()
	if err != nil {
		return err
	}
	open, ok := t.(json.Delim)
	if !ok {
		return nil
	}
	if depth == maxNesting {
		return fmt.Errorf("nested deeper than %d", maxNesting)
	}
	seen := make(map[string]bool)
	for dec.More() {
		if open == '{' {
			name, err := dec.Token()
			if err != nil {
				return err
			}
			key, _ := name.(string)
			if seen[key] {
				return fmt.Errorf("%.40q stands twice", key)
			}
			seen[key] = true
		}
		if err := noDuplicates(dec, depth+1); err != nil {
			return err
		}
	}
	_, err = dec.Token()
	return err
}
