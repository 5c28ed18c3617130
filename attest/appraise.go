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

// The tiers of a result that a certificate may be issued on.
const (
	TierHardware  = "hardware"  // a vendor's signature says where the key is
	TierWitnessed = "witnessed" // nobody's does: two officers must have seen it
)

// Input is what an appraisal needs besides the claims.
type Input struct {
	// PublicKey is the key that a certificate is asked for.
	PublicKey crypto.PublicKey

	// Archived appraises evidence by itself, as `valise attest show` does, and an
	// authority after its rules changed: there is no request and no challenge to
	// compare with. Its result has no tier, and so nothing can be issued on it.
	Archived bool

	// Gateway says that the key is a gateway's, in an HSM: there is no challenge
	// (the caller has checked that the key signed its own request) and no second
	// key. Only evidence of HSMs is accepted then, and nowhere else.
	Gateway bool

	// Now is the time of the appraisal.
	Now time.Time
}

// A Result says what a policy made of claims.
type Result struct {
	Verdict      Verdict
	Tier         string // TierHardware, TierWitnessed, or empty where nothing may be issued
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
	a.format(c, in)
	r.Reasons = a.rules
	if !slices.ContainsFunc(a.rules, func(rule Rule) bool { return !rule.Passed }) {
		r.Verdict = Accepted
		r.Expiry = in.Now.Add(policy.lifetime())
		r.Tier = tierOf(c, in)
	}
	return r
}

func tierOf(c *Claims, in Input) string {
	switch {
	case in.Archived:
		return ""
	case c.Format == FormatWitnessed:
		return TierWitnessed
	}
	return TierHardware
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

// format applies the rules for one kind of evidence.
func (a *appraisal) format(c *Claims, in Input) {
	p := a.policy
	switch {
	case c.Format == FormatYubicoPIV && !in.Gateway:
		a.piv("", &c.Key, p.Slots)
		a.match(c, in)
		a.keyManagement(c)
	case c.Format == FormatTPM && !in.Gateway:
		a.add("format", true, p.TPM, ReasonFormat, "keys in TPMs are accepted: %v", p.TPM)
		a.tpm(c, in)
	case c.Format == FormatMarvell && (in.Gateway || in.Archived):
		a.marvell(&c.Key)
		a.match(c, in)
	case c.Format == FormatWitnessed && !in.Gateway:
		a.add("format", true, p.Witnessed, ReasonFormat, "keys that officers witness are accepted: %v", p.Witnessed)
		a.algorithm("", &c.Key)
		a.match(c, in)
	default:
		a.add("format", true, false, ReasonFormat, "evidence of format %.40q is not accepted for this kind of key", c.Format)
	}
}

func (a *appraisal) algorithm(prefix string, k *KeyClaims) {
	a.add(prefix+"algorithm", k.Algorithm != "", slices.Contains(a.policy.Algorithms, k.Algorithm), ReasonAlgorithm,
		"%s, want %s", k.Algorithm, oneOf(a.policy.Algorithms))
}

// hardware applies the rules that hold for every key that a vendor vouches for.
func (a *appraisal) hardware(prefix string, k *KeyClaims) {
	root := k.Root()
	a.add(prefix+"root", root != "", a.lists(root), ReasonRoot, "root %.16s…, want %s", root, orAny(a.policy.Roots))
	a.algorithm(prefix, k)
	a.add(prefix+"generated", k.Generated != Unstated, k.Generated == True, ReasonGeneratedElsewhere,
		"generated in the hardware: %v", k.Generated)
}

// lists reports whether the policy accepts a root.
func (a *appraisal) lists(root string) bool {
	return len(a.policy.Roots) == 0 || slices.Contains(a.policy.Roots, root)
}

// fips applies RequireFIPS.
func (a *appraisal) fips(prefix string, k *KeyClaims) {
	if a.policy.RequireFIPS {
		a.add(prefix+"fips", k.FIPS != Unstated, k.FIPS == True, ReasonCertification, "FIPS certified: %v", k.FIPS)
	}
}

// stays applies the rules about leaving the hardware.
func (a *appraisal) stays(prefix string, k *KeyClaims) {
	a.add(prefix+"extractable", k.Extractable != Unstated, k.Extractable == False, ReasonExtractable,
		"it can leave the hardware: %v", k.Extractable)
	a.add(prefix+"never_extractable", k.NeverExtractable != Unstated, k.NeverExtractable == True, ReasonExtractable,
		"it never could: %v", k.NeverExtractable)
}

// tpm applies the rules for keys that a TPM certifies.
func (a *appraisal) tpm(c *Claims, in Input) {
	key := func(prefix string, k *KeyClaims) {
		a.hardware(prefix, k)
		a.stays(prefix, k)
		a.add(prefix+"restricted", k.Restricted != Unstated, k.Restricted == False, ReasonRestricted,
			"it signs only what the hardware made: %v", k.Restricted)
		a.fips(prefix, k)
	}
	key("", &c.Key)
	if !in.Archived {
		a.add("activated", c.Activated != Unstated, c.Activated == True, ReasonActivation,
			"the endorsed TPM holds the key that certifies: %v", c.Activated)
	}
	a.match(c, in)
	a.second(c, func() { key("key_management.", c.KeyManagement) })
}

// marvell applies the rules for a key in an HSM's partition.
func (a *appraisal) marvell(k *KeyClaims) {
	a.hardware("", k)
	owner := ""
	if len(k.OwnerPath) > 0 {
		owner = k.OwnerPath[len(k.OwnerPath)-1].Fingerprint
	}
	a.add("owner_root", owner != "", a.lists(owner), ReasonRoot, "owner's root %.16s…, want %s", owner, orAny(a.policy.Roots))
	a.stays("", k)
	a.add("sensitive", k.Sensitive != Unstated, k.Sensitive == True, ReasonSensitive, "it cannot be read in clear: %v", k.Sensitive)
	a.add("always_sensitive", k.AlwaysSensitive != Unstated, k.AlwaysSensitive == True, ReasonSensitive,
		"it never could: %v", k.AlwaysSensitive)
	a.fips("", k)
}

// piv applies the rules that hold for each of a card's keys.
func (a *appraisal) piv(prefix string, k *KeyClaims, slots []string) {
	p := a.policy
	a.hardware(prefix, k)
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
	a.fips(prefix, k)
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
func (a *appraisal) match(c *Claims, in Input) {
	if in.Archived {
		return
	}
	key, ok := c.Key.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	same := ok && in.PublicKey != nil && key.Equal(in.PublicKey)
	a.add("key", true, same, ReasonKeyMismatch, "the attested key is the one that the certificate is for: %v", same)
	if !in.Gateway {
		a.add("fresh", c.Fresh != Unstated, c.Fresh == True, ReasonChallengeMismatch,
			"the attested key signed this challenge: %v", c.Fresh)
	}
}

// keyManagement applies the policy to the second key of a card.
func (a *appraisal) keyManagement(c *Claims) {
	a.second(c, func() { a.piv("key_management.", c.KeyManagement, a.policy.KeyManagementSlots) })
}

// second applies what holds for the second key in every format, and key's rules.
func (a *appraisal) second(c *Claims, key func()) {
	switch {
	case a.policy.KeyManagement == KeyManagementIgnored:
		return
	case c.KeyManagement == nil && a.policy.KeyManagement == KeyManagementOptional:
		return
	case c.KeyManagement == nil:
		a.add("key_management", false, false, "", "no evidence for the key that unwraps local state")
		return
	}
	key()
	second, ok := c.KeyManagement.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	a.add("key_management.distinct", true, ok && !second.Equal(c.Key.PublicKey), ReasonSameKey, "the two keys must differ")
	a.add("same_card", c.SameCard != Unstated, c.SameCard == True, ReasonOtherCard, "both keys sit in one piece of hardware: %v", c.SameCard)
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
