// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"crypto"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Verdict is the outcome of an appraisal.
type Verdict string

// The verdicts.
const (
	Accepted Verdict = "accepted"
	Refused  Verdict = "refused"
)

// TierHardware is the tier of a result that a certificate may be issued on.
const TierHardware = "hardware"

// Input is what an appraisal needs besides the claims.
type Input struct {
	// PublicKey is the key that a certificate is asked for.
	PublicKey crypto.PublicKey

	// Archived appraises evidence by itself, as `valise attest show` does:
	// there is no request and no challenge to compare with. Its result has no
	// tier, and so nothing can be issued on it.
	Archived bool

	// Now is the time of the appraisal.
	Now time.Time
}

// A Result says what a policy made of claims.
type Result struct {
	Verdict      Verdict
	Tier         string // TierHardware, or empty where nothing may be issued
	Reasons      []Rule // every rule that was applied, in order
	PolicyHash   [32]byte
	EvidenceHash [32]byte
	Expiry       time.Time // the last moment at which it may be used
}

// A Rule is one rule of a policy with its outcome.
type Rule struct {
	Name   string `json:"rule"` // "firmware", "key_management.slot", …
	Passed bool   `json:"passed"`
	Reason Reason `json:"reason,omitempty"` // empty when passed
	Detail string `json:"detail"`           // what was found, and what was wanted
}

// Accepted reports whether every rule passed.
func (r *Result) Accepted() bool { return r.Verdict == Accepted }

// Reason returns the reason of the first rule that failed, or "".
func (r *Result) Reason() Reason {
	for _, rule := range r.Reasons {
		if !rule.Passed {
			return rule.Reason
		}
	}
	return ""
}

// Appraise applies every rule of p to claims. A claim that is unstated fails
// its rule; a policy that does not pass Check refuses everything.
func (p *AppraisalPolicy) Appraise(c *Claims, in Input) *Result {
	if c == nil {
		return &Result{Verdict: Refused, Reasons: []Rule{{Name: "evidence", Reason: ReasonNoEvidence, Detail: "nothing was verified"}}}
	}
	r := &Result{Verdict: Refused, EvidenceHash: c.EvidenceHash}
	policy, err := p.normal()
	if err == nil {
		r.PolicyHash, err = p.Hash()
	}
	if err != nil {
		r.Reasons = []Rule{{Name: "policy", Reason: ReasonInvalidPolicy, Detail: err.Error()}}
		return r
	}
	a := &appraisal{policy: policy}
	a.key("", &c.Key, policy.Slots)
	if !in.Archived {
		a.match(c, in.PublicKey)
	}
	a.keyManagement(c)
	r.Reasons = a.rules
	if !slices.ContainsFunc(a.rules, func(rule Rule) bool { return !rule.Passed }) {
		r.Verdict = Accepted
		r.Expiry = in.Now.Add(policy.lifetime())
		if !in.Archived {
			r.Tier = TierHardware
		}
	}
	return r
}

// An appraisal collects rules.
type appraisal struct {
	policy *AppraisalPolicy // normal
	rules  []Rule
}

// add records a rule. Unstated claims fail before passed is looked at.
func (a *appraisal) add(name string, said, passed bool, reason Reason, format string, args ...any) {
	rule := Rule{Name: name, Passed: said && passed, Detail: fmt.Sprintf(format, args...)}
	if !said {
		rule.Reason = ReasonUnstated
	} else if !passed {
		rule.Reason = reason
	}
	a.rules = append(a.rules, rule)
}

// key applies the rules that hold for each of a card's keys.
func (a *appraisal) key(prefix string, k *KeyClaims, slots []string) {
	p := a.policy
	root := k.Root()
	a.add(prefix+"root", root != "", len(p.Roots) == 0 || slices.Contains(p.Roots, root), ReasonRoot,
		"root %.16s…, want %s", root, orAny(p.Roots))
	a.add(prefix+"algorithm", k.Algorithm != "", slices.Contains(p.Algorithms, k.Algorithm), ReasonAlgorithm,
		"%s, want %s", k.Algorithm, oneOf(p.Algorithms))
	a.add(prefix+"generated", k.Generated != Unstated, k.Generated == True, ReasonGeneratedElsewhere,
		"generated in the hardware: %v", k.Generated)
	a.add(prefix+"slot", k.Slot.Said, slices.Contains(slots, k.Slot.Value), ReasonSlot,
		"slot %v, want %s", k.Slot, oneOf(slots))
	oldest := a.oldest(k)
	a.add(prefix+"firmware", k.Firmware.Said, !k.Firmware.Value.Less(oldest), ReasonFirmware,
		"firmware %v, want at least %v", k.Firmware, oldest)
	pins := p.PINPolicies
	if k.Slot.Value == "9c" {
		pins = slices.DeleteFunc(slices.Clone(pins), func(s string) bool { return !strings.HasSuffix(s, "always") })
	}
	a.add(prefix+"pin_policy", k.PINPolicy.Said, slices.Contains(pins, k.PINPolicy.Value.String()), ReasonPINPolicy,
		"pin %v, want %s", k.PINPolicy, oneOf(pins))
	a.add(prefix+"touch_policy", k.TouchPolicy.Said, slices.Contains(p.TouchPolicies, k.TouchPolicy.Value.String()), ReasonTouchPolicy,
		"touch %v, want %s", k.TouchPolicy, oneOf(p.TouchPolicies))
	a.add(prefix+"form_factor", k.FormFactor.Said, slices.Contains(p.FormFactors, k.FormFactor.Value.String()), ReasonFormFactor,
		"form factor %v, want %s", k.FormFactor, oneOf(p.FormFactors))
	_, denied := slices.BinarySearch(p.DeniedSerials, k.Serial.Value)
	a.add(prefix+"serial", k.Serial.Said, !denied, ReasonDeniedSerial, "serial number %v, %d are denied", k.Serial, len(p.DeniedSerials))
	if p.RequireFIPS {
		a.add(prefix+"fips", k.FIPS != Unstated, k.FIPS == True, ReasonCertification, "FIPS series: %v", k.FIPS)
	}
	if p.RequireCSPN {
		a.add(prefix+"cspn", k.CSPN != Unstated, k.CSPN == True, ReasonCertification, "CSPN certified: %v", k.CSPN)
	}
}

// oldest returns the firmware that is wanted: below 5.7.0 only under a root
// that the operator configured, or where the policy accepts the leak by name.
func (a *appraisal) oldest(k *KeyClaims) Firmware {
	oldest, _ := ParseFirmware(a.policy.MinFirmware) // normal has parsed it
	if k.BuiltIn && !a.policy.AcceptVulnerableFirmware && oldest.Less(firstSound) {
		return firstSound
	}
	return oldest
}

// match ties the evidence to this request: this key, this challenge.
func (a *appraisal) match(c *Claims, want crypto.PublicKey) {
	key, ok := c.Key.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	a.add("key", true, ok && want != nil && key.Equal(want), ReasonKeyMismatch,
		"the attested key is the one that the certificate is for: %v", ok && want != nil && key.Equal(want))
	a.add("fresh", c.Fresh != Unstated, c.Fresh == True, ReasonChallengeMismatch,
		"the attested key signed this challenge: %v", c.Fresh)
}

// keyManagement applies the policy to the second key.
func (a *appraisal) keyManagement(c *Claims) {
	switch {
	case a.policy.KeyManagement == KeyManagementIgnored:
		return
	case c.KeyManagement == nil && a.policy.KeyManagement == KeyManagementOptional:
		return
	case c.KeyManagement == nil:
		a.add("key_management", false, false, "", "no evidence for the key that unwraps local state, want %s", oneOf(a.policy.KeyManagementSlots))
		return
	}
	a.key("key_management.", c.KeyManagement, a.policy.KeyManagementSlots)
	second, ok := c.KeyManagement.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	a.add("key_management.distinct", true, ok && !second.Equal(c.Key.PublicKey), ReasonSameKey, "the two keys must differ")
	a.add("same_card", c.SameCard != Unstated, c.SameCard == True, ReasonOtherCard, "both keys sit in one card: %v", c.SameCard)
}

func oneOf(values []string) string {
	if len(values) > 8 {
		return fmt.Sprintf("one of %s … %s", strings.Join(values[:4], ", "), values[len(values)-1])
	}
	return "one of " + strings.Join(values, ", ")
}

func orAny(roots []string) string {
	if len(roots) == 0 {
		return "any endorsed one"
	}
	return fmt.Sprintf("one of the %d listed", len(roots))
}
