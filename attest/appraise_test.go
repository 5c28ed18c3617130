// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"math"
	"strings"
	"testing"
)

// A scene is one enrollment: what the card states, what is asked for, what the
// policy wants. A test changes one thing of an honest one.
type scene struct {
	t                 testing.TB
	maker             *maker
	card, secondCard  *card
	key               crypto.Signer
	slot              string
	statement, second []alter
	withoutSecond     bool
	secondKey         crypto.PublicKey
	policy            AppraisalPolicy
	input             Input
	keyAuthorization  []byte
	answer            *Challenge
	claims            func(*Claims)
}

func honestScene(t testing.TB, m *maker, curve elliptic.Curve) *scene {
	key := newKey(t, curve)
	c := m.card()
	s := &scene{
		t: t, maker: m, card: c, secondCard: c, key: key, slot: "9a",
		secondKey:        newKey(t, elliptic.P256()).Public(),
		input:            Input{PublicKey: key.Public(), Now: judgedAt},
		keyAuthorization: []byte("token.thumbprint"),
	}
	answer, err := Answer(key, s.keyAuthorization)
	if err != nil {
		t.Fatal(err)
	}
	s.answer = answer
	return s
}

func (s *scene) play() *Result {
	s.t.Helper()
	ev := Evidence{Format: FormatYubicoPIV, Chain: [][]byte{s.card.statement(s.slot, s.key.Public(), s.statement...), s.card.cert.Raw}}
	if !s.withoutSecond {
		ev.KeyManagement = [][]byte{s.secondCard.statement("9d", s.secondKey, s.second...), s.secondCard.cert.Raw}
	}
	claims, err := Verify(ev, s.answer, s.maker.endorsements(), judgedAt)
	if err != nil {
		s.t.Fatal(err)
	}
	if s.claims != nil {
		s.claims(claims)
	}
	return s.policy.Appraise(claims, s.input)
}

// TestAppraiseRefuses changes one thing at a time; the honest scene beside it
// is accepted.
func TestAppraiseRefuses(t *testing.T) {
	m := newMaker(t)
	stated := func(n int, value ...byte) func(*scene) {
		return func(s *scene) { s.statement = []alter{extension(n, value)} }
	}
	secondly := func(n int, value ...byte) func(*scene) {
		return func(s *scene) { s.second = []alter{extension(n, value)} }
	}
	claimed := func(change func(*Claims)) func(*scene) { return func(s *scene) { s.claims = change } }
	weak, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		change func(*scene)
		rule   string
		want   Reason
	}{
		"no firmware":               {stated(3), "firmware", ReasonUnstated},
		"no serial":                 {stated(7), "serial", ReasonUnstated},
		"no PIN policy":             {stated(8), "pin_policy", ReasonUnstated},
		"no form factor":            {stated(9), "form_factor", ReasonUnstated},
		"firmware 5.6.9":            {stated(3, 5, 6, 9), "firmware", ReasonFirmware},
		"firmware 4.9.9":            {stated(3, 4, 9, 9), "firmware", ReasonFirmware},
		"firmware below a higher":   {func(s *scene) { s.policy.MinFirmware = "5.7.2" }, "firmware", ReasonFirmware},
		"PIN never":                 {stated(8, 1, 1), "pin_policy", ReasonPINPolicy},
		"PIN unknown":               {stated(8, 9, 1), "pin_policy", ReasonPINPolicy},
		"PIN once, always wanted":   {func(s *scene) { s.policy.PINPolicies = []string{"always"} }, "pin_policy", ReasonPINPolicy},
		"touch never, always asked": {func(s *scene) { s.policy.TouchPolicies = []string{"always", "cached"} }, "touch_policy", ReasonTouchPolicy},
		"touch unknown":             {stated(8, 2, 0), "touch_policy", ReasonTouchPolicy},
		"form factor unknown":       {stated(9, 0), "form_factor", ReasonFormFactor},
		"a security key":            {stated(9, 0x43), "form_factor", ReasonFormFactor},
		"another form factor":       {func(s *scene) { s.policy.FormFactors = []string{"usb-c-nano"} }, "form_factor", ReasonFormFactor},
		"slot 9c":                   {func(s *scene) { s.slot = "9c" }, "slot", ReasonSlot},
		"slot 9e":                   {func(s *scene) { s.slot = "9e" }, "slot", ReasonSlot},
		"slot 82, 9a wanted":        {func(s *scene) { s.slot = "82"; s.policy.Slots = []string{"9a"} }, "slot", ReasonSlot},
		"9c with PIN once":          {func(s *scene) { s.slot = "9c"; s.policy.Slots = []string{"9c"} }, "pin_policy", ReasonPINPolicy},
		"RSA":                       {func(s *scene) { s.key = weak; s.input.PublicKey = weak.Public() }, "algorithm", ReasonAlgorithm},
		"P-256, P-384 wanted":       {func(s *scene) { s.policy.Algorithms = []string{"P-384"} }, "algorithm", ReasonAlgorithm},
		"P-521":                     {func(s *scene) { s.key = newKey(t, elliptic.P521()); s.input.PublicKey = s.key.Public() }, "algorithm", ReasonAlgorithm},
		"a denied card":             {func(s *scene) { s.policy.DeniedSerials = []uint64{7, 30123456, 1} }, "serial", ReasonDeniedSerial},
		"a root not listed":         {func(s *scene) { s.policy.Roots = []string{strings.Repeat("ab", 32)} }, "root", ReasonRoot},
		"a request for another key": {func(s *scene) { s.input.PublicKey = newKey(t, elliptic.P256()).Public() }, "key", ReasonKeyMismatch},
		"a request without a key":   {func(s *scene) { s.input.PublicKey = nil }, "key", ReasonKeyMismatch},
		"no challenge":              {func(s *scene) { s.answer = nil }, "fresh", ReasonUnstated},
		"another challenge":         {func(s *scene) { s.answer.KeyAuthorization = []byte("other.thumbprint") }, "fresh", ReasonChallengeMismatch},
		"an empty challenge":        {func(s *scene) { s.answer = answer(t, s.key, nil) }, "fresh", ReasonChallengeMismatch},
		"signed by another key":     {func(s *scene) { s.answer = answer(t, newKey(t, elliptic.P256()), s.keyAuthorization) }, "fresh", ReasonChallengeMismatch},
		"an altered signature":      {func(s *scene) { s.answer.Signature = flip(s.answer.Signature) }, "fresh", ReasonChallengeMismatch},
		"another algorithm named":   {func(s *scene) { s.answer.Algorithm = AlgES384 }, "fresh", ReasonChallengeMismatch},
		"FIPS wanted":               {func(s *scene) { s.policy.RequireFIPS = true }, "fips", ReasonCertification},
		"CSPN wanted":               {func(s *scene) { s.policy.RequireCSPN = true }, "cspn", ReasonUnstated},
		"imported":                  {claimed(func(c *Claims) { c.Key.Generated = False }), "generated", ReasonGeneratedElsewhere},
		"origin unstated":           {claimed(func(c *Claims) { c.Key.Generated = Unstated }), "generated", ReasonUnstated},
		"slot unstated":             {claimed(func(c *Claims) { c.Key.Slot.Said = false }), "slot", ReasonUnstated},
		"real card, old firmware": {func(s *scene) {
			s.policy.MinFirmware, s.statement, s.second = "5.4.0", []alter{extension(3, []byte{5, 4, 3})}, []alter{extension(3, []byte{5, 4, 3})}
			s.claims = func(c *Claims) { c.Key.BuiltIn = true }
		}, "firmware", ReasonFirmware},
		"no second key":            {func(s *scene) { s.withoutSecond = true }, "key_management", ReasonUnstated},
		"second of another card":   {func(s *scene) { s.secondCard = m.card() }, "same_card", ReasonOtherCard},
		"second of another serial": {secondly(7, integer(5)...), "same_card", ReasonOtherCard},
		"second without a serial":  {secondly(7), "key_management.serial", ReasonUnstated},
		"second with PIN never":    {secondly(8, 1, 1), "key_management.pin_policy", ReasonPINPolicy},
		"second with old firmware": {secondly(3, 5, 2, 0), "key_management.firmware", ReasonFirmware},
		"second in another slot":   {func(s *scene) { s.policy.KeyManagementSlots = []string{"83"} }, "key_management.slot", ReasonSlot},
		"second is RSA":            {func(s *scene) { s.secondKey = weak.Public() }, "key_management.algorithm", ReasonAlgorithm},
		"second is the first":      {func(s *scene) { s.secondKey = s.key.Public() }, "key_management.distinct", ReasonSameKey},
		"a policy that is wrong":   {func(s *scene) { s.policy.Slots = []string{"9z"} }, "policy", ReasonInvalidPolicy},
	} {
		t.Run(name, func(t *testing.T) {
			s := honestScene(t, m, elliptic.P256())
			if control := s.play(); !control.Accepted() || control.Tier != TierHardware {
				t.Fatalf("honest control: %v %s", control.Verdict, control.Reason())
			}
			test.change(s)
			r := s.play()
			if r.Accepted() || r.Tier != "" || !r.Expiry.IsZero() || r.Reason() != test.want {
				t.Errorf("%s, tier %q, reason %q, want %q", r.Verdict, r.Tier, r.Reason(), test.want)
			}
			failed := 0
			for _, rule := range r.Reasons {
				if rule.Passed {
					continue
				}
				if failed++; failed == 1 && rule.Name != test.rule {
					t.Errorf("rule %s failed first, want %s", rule.Name, test.rule)
				}
			}
		})
	}
}

// What policies may allow: each of these is accepted.
func TestAppraiseAccepts(t *testing.T) {
	m := newMaker(t)
	old := []alter{extension(3, []byte{5, 4, 3})}
	for name, change := range map[string]func(*scene){
		"default":      func(*scene) {},
		"retired slot": func(s *scene) { s.slot = "95" },
		"officer's 9c": func(s *scene) {
			s.slot = "9c"
			s.policy.Slots = []string{"9c"}
			s.policy.KeyManagement = KeyManagementIgnored
			s.statement = []alter{extension(8, []byte{3, 2})}
		},
		"no second asked": func(s *scene) { s.withoutSecond = true; s.policy.KeyManagement = KeyManagementOptional },
		"virtual card":    func(s *scene) { s.policy.MinFirmware = "5.4.0"; s.statement, s.second = old, old },
		"leak accepted by name": func(s *scene) {
			s.policy.MinFirmware, s.policy.AcceptVulnerableFirmware, s.statement, s.second = "5.4.0", true, old, old
			s.claims = func(c *Claims) { c.Key.BuiltIn = true }
		},
		"listed root": func(s *scene) { s.policy.Roots = []string{fingerprint(m.root)} },
		"FIPS": func(s *scene) {
			s.policy.RequireFIPS = true
			fips := []alter{extension(9, []byte{0x83})}
			s.statement, s.second = fips, fips
		},
		"fingerprint": func(s *scene) { s.statement = []alter{extension(8, []byte{4, 1}), extension(9, []byte{byte(USBABio)})} },
	} {
		for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384()} {
			s := honestScene(t, m, curve)
			change(s)
			r := s.play()
			if !r.Accepted() || r.Tier != TierHardware || !r.Expiry.Equal(judgedAt.Add(24*60*60*1e9)) {
				t.Errorf("%s on %s: %s %s, tier %q, expiry %v", name, curve.Params().Name, r.Verdict, r.Reason(), r.Tier, r.Expiry)
			}
		}
	}
}

// Evidence by itself is appraised for the eye; its result gives no tier.
func TestAppraiseArchived(t *testing.T) {
	s := honestScene(t, newMaker(t), elliptic.P256())
	s.answer, s.input = nil, Input{Archived: true, Now: judgedAt}
	if r := s.play(); !r.Accepted() || r.Tier != "" {
		t.Errorf("%s %s, tier %q", r.Verdict, r.Reason(), r.Tier)
	}
	if r := new(AppraisalPolicy).Appraise(nil, Input{}); r.Accepted() || r.Reason() != ReasonNoEvidence {
		t.Errorf("no claims: %s %s", r.Verdict, r.Reason())
	}
}

// The order and repetition of lists, and defaults written out, change nothing;
// every field that decides does.
func TestPolicyHash(t *testing.T) {
	hash := func(p AppraisalPolicy) [32]byte {
		h, err := p.Hash()
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	zero := hash(AppraisalPolicy{})
	for name, same := range map[string]AppraisalPolicy{
		"defaults written out": {MinFirmware: "5.7.0", KeyManagement: "required", KeyManagementSlots: []string{"9d"}, Algorithms: []string{"P-384", "P-256", "P-384"}, ValidHours: 24},
		"empty lists":          {Slots: []string{}, DeniedSerials: []uint64{}, Roots: []string{}},
	} {
		if hash(same) != zero {
			t.Errorf("%s: another hash", name)
		}
	}
	seen := map[[32]byte]int{zero: -1}
	for i, p := range []AppraisalPolicy{
		{MinFirmware: "5.7.1"},
		{AcceptVulnerableFirmware: true},
		{Slots: []string{"9a"}},
		{KeyManagement: "optional"},
		{KeyManagementSlots: []string{"83"}},
		{PINPolicies: []string{"once"}},
		{TouchPolicies: []string{"never"}},
		{FormFactors: []string{"usb-a-bio"}},
		{Algorithms: []string{"P-384"}},
		{DeniedSerials: []uint64{1}},
		{Roots: []string{strings.Repeat("ab", 32)}},
		{RequireFIPS: true},
		{RequireCSPN: true},
		{ValidHours: 1},
	} {
		if j, ok := seen[hash(p)]; ok {
			t.Errorf("policies %d and %d have one hash", i, j)
		}
		seen[hash(p)] = i
	}
}

func TestPolicyRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"unknown key":      `{"min_firmwear":"5.7.0"}`,
		"not an object":    `[]`,
		"two of them":      `{} {}`,
		"firmware":         `{"min_firmware":"5.7"}`,
		"firmware padded":  `{"min_firmware":"05.7.0"}`,
		"firmware too big": `{"min_firmware":"5.7.256"}`,
		"slot":             `{"slots":["9A"]}`,
		"pin":              `{"pin_policies":["sometimes"]}`,
		"touch":            `{"touch_policies":["twice"]}`,
		"form factor":      `{"form_factors":["round"]}`,
		"algorithm":        `{"algorithms":["RSA-2048"]}`,
		"second key":       `{"key_management":"maybe"}`,
		"root":             `{"roots":["AB"]}`,
		"negative hours":   `{"valid_hours":-1}`,
		"endless hours":    `{"valid_hours":9000000}`,
		"negative serial":  `{"denied_serials":[-1]}`,
	} {
		if p, err := ParsePolicy([]byte(text)); err == nil {
			t.Errorf("%s: no error, %+v", name, p)
		}
	}
	if _, err := ParsePolicy([]byte(`{"min_firmware":"5.7.2","slots":["9a"]}`)); err != nil {
		t.Errorf("honest control: %v", err)
	}
}

func TestFirmwareOrder(t *testing.T) {
	ordered := []string{"0.0.0", "4.3.5", "5.4.3", "5.6.255", "5.7.0", "5.7.1", "5.10.0", "6.0.0", "255.255.255"}
	for i := range len(ordered) - 1 {
		a, errA := ParseFirmware(ordered[i])
		b, errB := ParseFirmware(ordered[i+1])
		if errA != nil || errB != nil || !a.Less(b) || b.Less(a) || a.Less(a) {
			t.Errorf("%s and %s are out of order (%v, %v)", ordered[i], ordered[i+1], errA, errB)
		}
	}
}

func answer(t testing.TB, key crypto.Signer, keyAuthorization []byte) *Challenge {
	t.Helper()
	c, err := Answer(key, keyAuthorization)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Answers are refused outside the bounds, and for keys that do not sign so.
func TestChallengeBounds(t *testing.T) {
	key := newKey(t, elliptic.P256())
	long := make([]byte, maxKeyAuthorization+1)
	if c := answer(t, key, long[1:]); !c.answeredBy(key.Public()) {
		t.Error("the longest key authorization is refused")
	}
	if c := answer(t, key, long); c.answeredBy(key.Public()) {
		t.Error("a key authorization beyond the bound is accepted")
	}
	if _, err := Answer(newKey(t, elliptic.P521()), long); err == nil {
		t.Error("P-521 answers")
	}
	if c := (&Challenge{KeyAuthorization: []byte("x"), Algorithm: math.MinInt64}); c.answeredBy((*ecdsa.PublicKey)(&ecdsa.PublicKey{Curve: elliptic.P224()})) {
		t.Error("P-224 is accepted")
	}
}
