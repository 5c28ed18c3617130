// SPDX-License-Identifier: Apache-2.0

package ceremony

import (
	"bytes"
	"crypto/elliptic"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"valise/attest"
	"valise/enroll/enrolltest"
	"valise/identity"
)

var (
	occasion = Founding("Founding of interieur.example")
	now      = time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
)

func address(t testing.TB, s string) identity.Address {
	t.Helper()
	a, err := identity.ParseAddress(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// officerCard is a card with a key in 9c that asks every time.
func officerCard(t testing.TB, v *enrolltest.Vendor, change func(*enrolltest.CardConfig)) *enrolltest.Card {
	t.Helper()
	cfg := enrolltest.CardConfig{Curve: elliptic.P384(), Slot: "9c", PINPolicy: byte(attest.PINAlways)}
	if change != nil {
		change(&cfg)
	}
	return v.Card(t, cfg)
}

func application(t testing.TB, card *enrolltest.Card) *Application {
	t.Helper()
	a, err := Apply(occasion, address(t, "olga@interieur.example"), identity.RoleOfficer, card.Key, card.Evidence)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func policy(t testing.TB) *attest.AppraisalPolicy {
	t.Helper()
	p, err := OfficerPolicy(attest.AppraisalPolicy{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestApplicationIsItsFile(t *testing.T) {
	v := enrolltest.NewVendor(t)
	a := application(t, officerCard(t, v, nil))
	data, err := a.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseApplication(data)
	if err != nil {
		t.Fatalf("%v\n%s", err, data)
	}
	result, err := again.Appraise(occasion, v.Endorsements(t), policy(t), now)
	if err != nil || !result.Accepted() || result.Tier != attest.TierHardware {
		t.Fatalf("result = %+v, %v", result, err)
	}
	if again.Address != a.Address || again.Role != a.Role || !bytes.Equal(again.Key, a.Key) {
		t.Errorf("it came back as %+v", again)
	}
}

// Only the one spelling is read.
func TestApplicationIsStrict(t *testing.T) {
	v := enrolltest.NewVendor(t)
	data, err := application(t, officerCard(t, v, nil)).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	replace := func(old, new string) []byte {
		changed := bytes.Replace(data, []byte(old), []byte(new), 1)
		if bytes.Equal(changed, data) {
			t.Fatalf("nothing to replace: %s", old)
		}
		return changed
	}
	for name, bad := range map[string][]byte{
		"nothing":         nil,
		"no object":       []byte("[]\n"),
		"trailing":        append(bytes.Clone(data), ' '),
		"two objects":     append(bytes.Clone(data), data...),
		"no last newline": data[:len(data)-1],
		"indentation":     replace("\n  ", "\n "),
		"unknown member":  replace("{\n", "{\n  \"note\": \"\",\n"),
		"a member twice":  replace("{\n", "{\n  \"role\": \"officer\",\n"),
		"other type":      replace("application 1", "application 2"),
		"other purpose":   replace("founding", "wedding"),
		"other role":      replace(`"role": "officer"`, `"role": "chief"`),
		"upper case":      replace("olga@", "Olga@"),
		"an escape":       replace("olga@", `ol\u0067a@`),
		"padding":         replace(`",`+"\n"+`  "evidence"`, `=",`+"\n"+`  "evidence"`),
		"too long":        replace("Founding", strings.Repeat("x", MaxApplicationSize)),
		"control in name": replace("Founding of", `Founding\u0007of`),
		"no key":          replace(`"key": "M`, `"key": "A`),
	} {
		if _, err := ParseApplication(bad); err == nil {
			t.Errorf("%s was read", name)
		}
	}
	if _, err := ParseApplication(data); err != nil { // control
		t.Error(err)
	}
}

// What a key in hardware must be like for an officer, each beside the honest one.
func TestOfficersHardware(t *testing.T) {
	v := enrolltest.NewVendor(t)
	for _, c := range []struct {
		name   string
		change func(*enrolltest.CardConfig)
		want   attest.Reason // "": accepted
	}{
		{"honest", nil, ""},
		{"P-256", func(c *enrolltest.CardConfig) { c.Curve = elliptic.P256() }, ""},
		{"PIN once", func(c *enrolltest.CardConfig) { c.PINPolicy = byte(attest.PINOnce) }, attest.ReasonPINPolicy},
		{"no PIN", func(c *enrolltest.CardConfig) { c.PINPolicy = byte(attest.PINNever) }, attest.ReasonPINPolicy},
		{"slot 9a", func(c *enrolltest.CardConfig) { c.Slot = "9a" }, attest.ReasonSlot},
		{"slot 82", func(c *enrolltest.CardConfig) { c.Slot = "82" }, attest.ReasonSlot},
		{"no word about the PIN", func(c *enrolltest.CardConfig) { c.Leave = 8 }, attest.ReasonUnstated},
		{"old firmware", func(c *enrolltest.CardConfig) { c.Firmware = [3]byte{5, 4, 3} }, attest.ReasonFirmware},
	} {
		t.Run(c.name, func(t *testing.T) {
			result, err := application(t, officerCard(t, v, c.change)).Appraise(occasion, v.Endorsements(t), policy(t), now)
			if err != nil {
				t.Fatal(err)
			}
			if result.Reason() != c.want || result.Accepted() != (c.want == "") {
				t.Errorf("reason = %q, want %q", result.Reason(), c.want)
			}
		})
	}
	stranger := enrolltest.NewVendor(t)
	_, err := application(t, officerCard(t, stranger, nil)).Appraise(occasion, v.Endorsements(t), policy(t), now)
	if attest.ReasonOf(err) != attest.ReasonUnknownRoot {
		t.Errorf("another vendor: %v", err)
	}
}

// An application serves for the occasion, the person, the role and the key for which
// the card signed, and for nothing else.
func TestApplicationCannotBeTurned(t *testing.T) {
	v := enrolltest.NewVendor(t)
	card, other := officerCard(t, v, nil), officerCard(t, v, nil)
	endorsements := v.Endorsements(t)
	for _, c := range []struct {
		name   string
		change func(*Application)
		want   attest.Reason
	}{
		{"honest", func(*Application) {}, ""},
		{"address", func(a *Application) { a.Address = address(t, "mallory@interieur.example") }, attest.ReasonChallengeMismatch},
		{"role", func(a *Application) { a.Role = identity.RoleAdministrator }, attest.ReasonChallengeMismatch},
		{"key", func(a *Application) { a.Key = spki(t, other) }, attest.ReasonKeyMismatch},
		{"evidence of another key", func(a *Application) {
			a.Evidence = enrolltest.Answer(t, card.Key, attest.Evidence{Format: other.Evidence.Format, Chain: other.Evidence.Chain},
				string(Challenge(occasion, a.Address, a.Role)))
		}, attest.ReasonKeyMismatch},
		{"signed by another key", func(a *Application) {
			a.Evidence = enrolltest.Answer(t, other.Key, attest.Evidence{Format: card.Evidence.Format, Chain: card.Evidence.Chain},
				string(Challenge(occasion, a.Address, a.Role)))
		}, attest.ReasonChallengeMismatch},
		{"signed for another ceremony", func(a *Application) {
			a.Evidence = enrolltest.Answer(t, card.Key, attest.Evidence{Format: card.Evidence.Format, Chain: card.Evidence.Chain},
				string(Challenge(Founding("Founding of elsewhere.example"), a.Address, a.Role)))
		}, attest.ReasonChallengeMismatch},
		{"signed for an appointment", func(a *Application) {
			a.Evidence = enrolltest.Answer(t, card.Key, attest.Evidence{Format: card.Evidence.Format, Chain: card.Evidence.Chain},
				string(Challenge(Appointment(occasion.name), a.Address, a.Role)))
		}, attest.ReasonChallengeMismatch},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := application(t, card)
			c.change(a)
			result, err := a.Appraise(occasion, endorsements, policy(t), now)
			if err != nil {
				t.Fatal(err)
			}
			if result.Reason() != c.want {
				t.Errorf("reason = %q, want %q", result.Reason(), c.want)
			}
		})
	}
	a := application(t, card)
	for _, o := range []Occasion{Founding("another"), Appointment(occasion.name), {}} {
		if _, err := a.Appraise(o, endorsements, policy(t), now); err == nil {
			t.Errorf("it was taken for %v", o)
		}
	}
	a.Evidence = card.Answer(t, string(Challenge(occasion, a.Address, a.Role))) // with the vault's key
	if _, err := a.Appraise(occasion, endorsements, policy(t), now); err == nil {
		t.Error("evidence of a second key was taken")
	}
}

// The fields of a challenge cannot be shifted into each other.
func TestChallengeIsUnambiguous(t *testing.T) {
	a := Challenge(Founding("ab"), address(t, "c@interieur.example"), identity.RoleOfficer)
	for name, b := range map[string][]byte{
		"name and address": Challenge(Founding("a"), address(t, "bc@interieur.example"), identity.RoleOfficer),
		"purpose":          Challenge(Appointment("ab"), address(t, "c@interieur.example"), identity.RoleOfficer),
		"role":             Challenge(Founding("ab"), address(t, "c@interieur.example"), identity.RoleAuditor),
	} {
		if bytes.Equal(a, b) {
			t.Errorf("%s: two occasions with one challenge", name)
		}
	}
}

func TestOfficerPolicyCannotBeLoosened(t *testing.T) {
	for name, p := range map[string]attest.AppraisalPolicy{
		"another slot":    {Slots: []string{"9a"}},
		"one slot more":   {Slots: []string{"9a", "9c"}},
		"PIN once":        {PINPolicies: []string{"once"}},
		"PIN once too":    {PINPolicies: []string{"always", "once"}},
		"a second key":    {KeyManagement: attest.KeyManagementRequired},
		"no such touch":   {TouchPolicies: []string{"sometimes"}},
		"no such version": {MinFirmware: "5"},
	} {
		if _, err := OfficerPolicy(p); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	for name, p := range map[string]attest.AppraisalPolicy{
		"nothing":     {},
		"touch":       {TouchPolicies: []string{"always"}},
		"fingerprint": {PINPolicies: []string{"match-always"}},
		"written out": {Slots: []string{"9c"}, PINPolicies: []string{"always"}, KeyManagement: "ignored"},
	} {
		if _, err := OfficerPolicy(p); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	v := enrolltest.NewVendor(t)
	loose := attest.AppraisalPolicy{Slots: []string{"9c"}, KeyManagement: "ignored"} // its PIN policies default to more than "always"
	if _, err := application(t, officerCard(t, v, nil)).Appraise(occasion, v.Endorsements(t), &loose, now); err == nil {
		t.Error("a policy that was not made for officers was used")
	}
}

func spki(t testing.TB, c *enrolltest.Card) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(c.Key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func FuzzParseApplication(f *testing.F) {
	v := enrolltest.NewVendor(f)
	data, err := application(f, officerCard(f, v, nil)).Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte("{}\n"))
	f.Add([]byte(`{"type":"valise officer application 1"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := ParseApplication(data)
		if err != nil {
			return
		}
		again, err := a.Marshal()
		if err != nil || !bytes.Equal(again, data) {
			t.Errorf("%v: it came back as %q", err, again)
		}
		_, _ = a.Appraise(a.Occasion, v.Endorsements(t), &attest.AppraisalPolicy{}, now)
	})
}
