// SPDX-License-Identifier: Apache-2.0

package enroll_test

import (
	"strings"
	"testing"

	"valise/attest"
	"valise/enroll/enrolltest"
	"valise/identity"
	"valise/manifest"
	"valise/statement"
)

// takesWitnessed is an authority that certifies keys of cards that cannot attest.
func takesWitnessed(policy string, tiers ...identity.Tier) enrolltest.MinistryConfig {
	return enrolltest.MinistryConfig{
		Policy:  policy,
		Profile: &manifest.Profile{Name: "device", Version: 1, Approvals: 2, Validity: 7 * day, Grace: 30 * day, Tiers: tiers},
	}
}

// witnessed is the answer of a card that cannot attest: possession, and no more.
func witnessed(t testing.TB, card *enrolltest.Card, keyAuthorization string) []byte {
	t.Helper()
	ev, err := attest.WitnessedEvidence(card.Key.Public())
	if err != nil {
		t.Fatal(err)
	}
	answer, err := attest.Answer(card.Key, []byte(keyAuthorization))
	if err != nil {
		t.Fatal(err)
	}
	object, err := attest.MarshalAttestationObject(attest.NewAttestationObject(ev, answer))
	if err != nil {
		t.Fatal(err)
	}
	return object
}

// petitionWitnessed is petition for a card that cannot attest. Where the evidence is
// refused, the reason comes back.
func (b *bureau) petitionWitnessed(c *enrolltest.Client, card *enrolltest.Card) (*petition, string) {
	b.t.Helper()
	o, r := c.NewOrder(card.ID(b.t).String())
	if o == nil {
		b.t.Fatalf("order: %d %s", r.Status, r.Body)
	}
	ch, r := c.Attest(o, witnessed(b.t, card, c.KeyAuthorization(o)))
	if ch == nil || ch.Status != "valid" {
		return nil, r.Reason + string(r.Body)
	}
	p := &petition{client: c, card: card, id: o.URL[strings.LastIndexByte(o.URL, '/')+1:]}
	if p.Order, r = c.Finish(o, enrolltest.CSR(b.t, card.Key)); p.Order == nil {
		b.t.Fatalf("finalize: %d %s", r.Status, r.Body)
	}
	return p, ""
}

// A card that cannot attest is certified, with tier "witnessed", when two officers have
// signed that they saw its key made; and its certificate is renewed without them.
func TestWitnessedKey(t *testing.T) {
	b := newBureauOf(t, takesWitnessed(`{"witnessed":true}`, identity.TierHardware, identity.TierWitnessed))
	p, refused := b.petitionWitnessed(b.account("alice"), b.card())
	if refused != "" {
		t.Fatal(refused)
	}
	b.want(p, "processing")
	shown := b.template(p)
	if !shown.Witnessed || shown.Tier != identity.TierWitnessed || !strings.Contains(strings.Join(shown.Words(), "\n"), "I SAW") {
		t.Errorf("officers are shown %+v, %q", shown, shown.Words())
	}
	unseen := *shown
	unseen.Witnessed = false
	if _, err := statement.MarshalBody(&unseen); err == nil {
		t.Error("an officer can approve it who saw nothing")
	}
	b.approve(p, b.Olga)
	b.want(p, "processing")
	b.approve(p, b.Oscar)
	b.want(p, "valid")
	device := b.check(p.client.Fetch(p.Order), "alice")
	if device.ID != p.card.ID(t) || device.Appraisal.Tier != identity.TierWitnessed {
		t.Errorf("certified as %+v", device)
	}
	if err := b.Reappraise(t.Context()); err != nil {
		t.Fatal(err)
	}
	if all := b.Distrusted(); len(all) != 0 {
		t.Errorf("taken out of standing by the rules under which it was let in: %+v", all)
	}
	b.clock.move(5 * day)
	again, refused := b.petitionWitnessed(p.client, p.card)
	if refused != "" {
		t.Fatal(refused)
	}
	b.want(again, "valid")
	if renewed := b.check(again.client.Fetch(again.Order), "alice"); renewed.Appraisal.Tier != identity.TierWitnessed {
		t.Errorf("renewed as %+v", renewed)
	}
	if findings := b.auditors(); len(findings) != 0 {
		t.Errorf("auditors find %v", findings)
	}
}

// Both the appraisal policy and the profile have to take such keys.
func TestWitnessedKeyRefused(t *testing.T) {
	b := newBureauOf(t, takesWitnessed(`{}`, identity.TierHardware, identity.TierWitnessed))
	if _, refused := b.petitionWitnessed(b.account("alice"), b.card()); !strings.Contains(refused, string(attest.ReasonFormat)) {
		t.Errorf("under a policy that does not take it: %q", refused)
	}
	b = newBureauOf(t, takesWitnessed(`{"witnessed":true}`, identity.TierHardware))
	p, refused := b.petitionWitnessed(b.account("alice"), b.card())
	if refused != "" {
		t.Fatal(refused)
	}
	b.want(p, "invalid wrong_tier")
}
