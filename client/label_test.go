// SPDX-License-Identifier: Apache-2.0

package client

import (
	"errors"
	"strings"
	"testing"
	"time"

	"valise/bulletin"
	"valise/identity"
	"valise/policy"
	"valise/policy/bundle"
)

const plans = "SECRET//Releasable To: FRA//Need To Know: PLANS"

// A labelled message arrives with its marking, signed as it was written; one without a
// label bears the domain's default. A file has a label too.
func TestLabelledMessageArrives(t *testing.T) {
	c := newCabinet(t)
	c.enact(1, c.folder())
	alice, bob := c.device("alice").reachable().obeys(1), c.device("bob").reachable().obeys(1)
	conv := alice.with(t, bob)
	if err := alice.write(conv, "without a word", ""); err != nil {
		t.Fatal(err)
	}
	if err := alice.write(conv, "the plans", plans); err != nil {
		t.Fatal(err)
	}
	bob.gets("without a word", "the plans")
	for _, d := range []*device{alice, bob} {
		for _, ev := range d.all() {
			want := map[string]string{"without a word": "COALITION UNMARKED", "the plans": "COALITION SECRET RELEASABLE TO FRA PLANS"}[ev.Text]
			if ev.Kind != EventMessage {
				continue
			}
			if ev.Marking != want || ev.Label == nil || ev.Label.Marking != want || ev.Label.Edition != 1 {
				t.Errorf("%s: %q is marked %q, want %q", d.address, ev.Text, ev.Marking, want)
			}
			if l, err := policy.ParseLabel(ev.Label.Octets); err != nil || l.Classification != ev.Label.Classification {
				t.Errorf("%s: %q: octets %x: %v", d.address, ev.Text, ev.Label.Octets, err)
			}
		}
	}
}

// What may not go to somebody is refused before it leaves, with the reason and what to
// do; each beside a control that differs in one property.
func TestLabelRefusedBeforeSending(t *testing.T) {
	c := newCabinet(t)
	folder := c.folder()
	folder[bundle.RulesFile].Data = []byte(`@id("no-flash") forbid (principal, action == Action::"send", resource) when { context.precedence == "flash" };`)
	c.enact(1, folder)
	alice := c.device("alice").reachable().obeys(1)
	bob, carol, dan, wanda := c.device("bob").reachable(), c.device("carol").reachable(), c.device("dan").reachable(), c.device("wanda").reachable()
	ask := func(d *device, label, precedence string) error {
		own, _ := identity.IssuedAt(d.chain)
		them, err := alice.cfg.Trust.Device(d.chain, own)
		if err != nil {
			t.Fatal(err)
		}
		alice.mu.Lock()
		defer alice.mu.Unlock()
		m, err := alice.markOf(label, precedence)
		if err != nil {
			return err
		}
		self, err := alice.cfg.Trust.Device(alice.chain, own)
		if err != nil {
			return err
		}
		return decideFor(alice.law.bundle, alice.end(self), m, []bundle.End{alice.end(them)}, 2, time.Now())
	}
	for _, test := range []struct {
		name              string
		to                *device
		label, precedence string
		reason            string
		sender            bool
		hint              string
	}{
		{"to bob, who is cleared", bob, "SECRET//FRA", "", "", false, ""},
		{"above carol's clearance", carol, "SECRET//FRA", "", "classification", false, "without carol@"},
		{"within carol's clearance", carol, "UNMARKED", "", "", false, ""},
		{"to dan, who has none", dan, "UNMARKED", "", "no_clearance", false, "without dan@"},
		{"a tier too low", wanda, "SECRET//FRA", "", "attestation_tier", false, "valise labels"},
		{"a tier high enough", wanda, "RESTRICTED//FRA", "", "", false, ""},
		{"a category that bob has", bob, plans, "", "", false, ""},
		{"a category that alice has not", bob, "SECRET//FRA//LOGISTICS", "", "restrictive", true, "within your clearance"},
		{"released to nobody here", bob, "SECRET//GBR", "", "permissive", true, "within your clearance"},
		{"an invalid label", bob, "SECRET", "", "required", true, "--all"},
		{"unlabelled", bob, Unlabelled, "", "unlabelled", true, "--label"},
		{"against a rule", bob, "SECRET//FRA", "flash", "rule", true, "security officers"},
		{"as the rule allows", bob, "SECRET//FRA", "immediate", "", false, ""},
	} {
		err := ask(test.to, test.label, test.precedence)
		refused, _ := errors.AsType[*LabelRefused](err)
		if test.reason == "" {
			if err != nil {
				t.Errorf("%s: %v", test.name, err)
			}
			continue
		}
		if refused == nil || refused.Reason != test.reason || refused.Sender != test.sender || !strings.Contains(refused.Hint(), test.hint) {
			t.Errorf("%s: %+v (%v), hint %q", test.name, refused, err, hintOf(err))
			continue
		}
		if !strings.Contains(refused.Error(), test.reason) || !test.sender && !strings.Contains(refused.Error(), test.to.address.String()) {
			t.Errorf("%s: %v", test.name, refused)
		}
	}
	if err := ask(bob, "COSMIC", ""); err == nil || !strings.Contains(hintOf(err), "SECRET") {
		t.Errorf("an unknown word: %v, hint %q", err, hintOf(err))
	}
	if err := ask(bob, "SECRET//FRA", "sometime"); err == nil || !strings.Contains(hintOf(err), "immediate") {
		t.Errorf("an unknown precedence: %v, hint %q", err, hintOf(err))
	}
}

// A message is decided on again when it is sealed: to a conversation that is only being
// founded, its refusal comes then, and takes no sequence number.
func TestLabelRefusedWhenSealed(t *testing.T) {
	c := newCabinet(t)
	c.enact(1, c.folder())
	alice, carol := c.device("alice").reachable().obeys(1), c.device("carol").reachable().obeys(1)
	conv := alice.with(t, carol)
	err := alice.write(conv, "the plans", "SECRET//FRA")
	if err == nil || !strings.Contains(err.Error(), "classification") || !strings.Contains(hintOf(err), "carol@") {
		t.Fatalf("sent to carol: %v, hint %q", err, hintOf(err))
	}
	if err := alice.write(conv, "the weather", "UNMARKED"); err != nil {
		t.Fatal(err)
	}
	carol.gets("the weather")
	for _, ev := range carol.all() {
		if ev.Kind == EventMessage && ev.Sequence != 1 {
			t.Errorf("sequence %d", ev.Sequence)
		}
	}
}

// A bulletin that lowers somebody's clearance counts at once, here too.
func TestLoweredClearance(t *testing.T) {
	c := newCabinet(t)
	state := c.enact(1, c.folder())
	alice, bob := c.device("alice").reachable().obeys(1), c.device("bob").reachable().obeys(1)
	conv := alice.with(t, bob)
	if err := alice.write(conv, "before", "SECRET//FRA"); err != nil {
		t.Fatal(err)
	}
	bob.gets("before")
	alice.kill()
	c.announce(state.Bundle.Hash, bulletin.PersonStanding{
		Address: bob.address, State: bulletin.Active, Since: time.Now().UTC().Truncate(time.Second), Ceiling: c.doctrine.UpTo("UNMARKED"),
	})
	alice.start()
	alice.reachable()
	err := alice.write(conv, "after", "SECRET//FRA")
	if refused, ok := errors.AsType[*LabelRefused](err); !ok || refused.Reason != "classification" || refused.Address != bob.address.String() {
		t.Errorf("after it was lowered: %v", err)
	}
	if err := alice.write(conv, "within", "UNMARKED"); err != nil {
		t.Error(err)
	}
}

// Where the bulletin names a bundle that the gateway does not have, nothing leaves until
// it does.
func TestNothingLeavesUnderAnUnknownBundle(t *testing.T) {
	c := newCabinet(t)
	c.enact(1, c.folder())
	alice, bob := c.device("alice").reachable().obeys(1), c.device("bob").reachable().obeys(1)
	conv := alice.with(t, bob)
	if err := alice.write(conv, "before", ""); err != nil {
		t.Fatal(err)
	}
	alice.kill()
	next := c.recorded(c.pack(2, c.folder(), c.olga, c.oskar))
	c.announce(next.Bundle.Hash)
	alice.start()
	alice.until("misses the bundle", func() bool { return alice.told(EventPolicy, reasonBundleMissing) })
	id, err := alice.Send(t.Context(), Draft{Conversation: conv, Text: "meanwhile"})
	if err != nil {
		t.Fatal(err)
	}
	if o, err := alice.Outcome(t.Context(), id); err != nil || o.State != OutcomeQueued {
		t.Errorf("it is %+v: %v", o, err)
	}
	c.serve(next)
	alice.obeys(2)
	if o, err := alice.Outcome(t.Context(), id); err != nil || o.State == OutcomeRefused {
		t.Errorf("it is %+v: %v", o, err)
	}
}
