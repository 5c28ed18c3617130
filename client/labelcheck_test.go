// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"valise/gateway/rules"
	"valise/policy"
	"valise/policy/bundle"
)

// dishonest makes a device decide, and the gateway enforce, by another bundle than the
// officers signed: it has the hash of the one in force and allows what that does not.
func (c *cabinet) dishonest(d *device, state *rules.State, table bundle.Domains) {
	c.t.Helper()
	lax := *c.pack(state.Bundle.Version, c.doctrine.Folder("", table)).Bundle
	lax.Hash = state.Bundle.Hash
	d.mu.Lock()
	d.law.bundle, d.law.archive = &lax, &lax
	d.mu.Unlock()
	c.gateway.SetRules(&rules.State{Bundle: &lax, File: state.File})
}

// refusal waits for the event of a refused message.
func (d *device) refusal(reason string) *Event {
	d.t.Helper()
	d.until("refuses with "+reason, func() bool { return d.told(EventRefused, reason) })
	all := d.all()
	return &all[slices.IndexFunc(all, func(ev Event) bool { return ev.Kind == EventRefused && ev.Reason == reason })]
}

// A manipulated sender and a manipulated gateway together bring nothing to somebody whom
// the officers' bundle does not allow it: the recipient decides by itself. The message is
// acknowledged, reported, told of, and not shown; what is allowed is.
func TestRecipientRefusesWhatIsNotAllowed(t *testing.T) {
	c := newCabinet(t)
	state := c.enact(1, c.folder())
	alice, wanda := c.device("alice").reachable().obeys(1), c.device("wanda").reachable().obeys(1)
	conv := alice.with(t, wanda)
	if err := alice.write(conv, "within", "RESTRICTED//FRA"); err != nil {
		t.Fatal(err)
	}
	wanda.gets("within")
	table := c.table()
	table.Tiers, table.Unlabelled = nil, true
	c.dishonest(alice, state, table)
	for _, test := range []struct{ text, label, reason string }{
		{"a tier too low", "SECRET//FRA", "label_attestation_tier"},
		{"without a label", Unlabelled, "label_unlabelled"},
	} {
		if err := alice.write(conv, test.text, test.label); err != nil {
			t.Fatalf("%s: the accomplices refuse it: %v", test.text, err)
		}
		ev := wanda.refusal(test.reason)
		if ev.From != alice.address.String() || ev.Text != "" || test.label != Unlabelled && ev.Marking == "" {
			t.Errorf("%s: %+v", test.text, ev)
		}
		if !strings.Contains(RefusedText(ev.Reason), test.reason) {
			t.Errorf("%s: %q", test.text, RefusedText(ev.Reason))
		}
		if !c.reported(test.reason) {
			t.Errorf("%s: not in the audit stream: %q", test.text, c.reports)
		}
	}
	if err := alice.write(conv, "again within", "RESTRICTED//FRA"); err != nil {
		t.Fatal(err)
	}
	wanda.gets("within", "again within")
	c.quiet()
	for _, ev := range wanda.all() {
		if ev.Kind == EventMessage && ev.Text != "within" && ev.Text != "again within" {
			t.Errorf("shown: %+v", ev)
		}
	}
}

// A label above the recipient's clearance, and one above the sender's own, are refused by
// the recipient, whoever let them through.
func TestRecipientRepeatsTheDecision(t *testing.T) {
	c := newCabinet(t)
	state := c.enact(1, c.folder())
	alice, bob := c.device("alice").reachable().obeys(1), c.device("bob").reachable().obeys(1)
	conv := alice.with(t, bob)
	if err := alice.write(conv, "first", ""); err != nil {
		t.Fatal(err)
	}
	bob.gets("first")
	// The gateway enforces nothing, and alice's device takes itself and everybody to be
	// cleared for anything that the policy has.
	c.dishonest(alice, state, c.table())
	c.gateway.SetRules(nil)
	forge := func(text string, change func(l *policy.Label)) {
		t.Helper()
		l := c.doctrine.Label("SECRET", c.release("FRA"))
		change(l)
		octets, err := l.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		m := &arrivalProbe{bob, alice, octets, state.Bundle.Hash[:]}
		if reason := m.judge(t); reason != text {
			t.Errorf("%+v: reason %q, want %q", l, reason, text)
		}
	}
	forge("", func(*policy.Label) {})
	forge("label_sender_restrictive", func(l *policy.Label) { l.Categories = append(l.Categories, c.need("LOGISTICS")) })
	forge("label_sender_permissive", func(l *policy.Label) { l.Categories = []policy.Category{c.release("GBR")} })
	forge("label_sender_required", func(l *policy.Label) { l.Categories = nil })
	forge("label_sender_unknown_edition", func(l *policy.Label) { l.Edition = 7 })
	forge("label_sender_unknown_classification", func(l *policy.Label) { l.Classification = "COSMIC" })
	wrong := &arrivalProbe{bob, alice, nil, bytes.Repeat([]byte{9}, 32)}
	wrong.octets, _ = c.doctrine.Label("UNMARKED").Marshal()
	if reason := wrong.judge(t); reason != reasonLabelBundle {
		t.Errorf("an unknown bundle: %q", reason)
	}
	wrong.hash = nil
	if reason := wrong.judge(t); reason != reasonLabelUnbound {
		t.Errorf("no bundle: %q", reason)
	}
	wrong.hash, wrong.octets = state.Bundle.Hash[:], []byte{1, 2, 3}
	if reason := wrong.judge(t); reason != reasonLabelForm {
		t.Errorf("no label: %q", reason)
	}
}

// A manipulated gateway that changes the label of a message is found out: the copy does
// not open, the true one bears the signed label, and the difference is reported and told.
func TestForgedLabelIsFound(t *testing.T) {
	c := newCabinet(t)
	c.enact(1, c.folder())
	alice, bob := c.device("alice").reachable().obeys(1), c.device("bob").reachable().obeys(1)
	conv := alice.with(t, bob)
	if err := alice.write(conv, "before", "SECRET//FRA"); err != nil {
		t.Fatal(err)
	}
	bob.gets("before")
	c.quiet()
	bob.kill()
	if err := alice.write(conv, "the plans", "SECRET//FRA"); err != nil {
		t.Fatal(err)
	}
	if err := alice.write(conv, "control", "SECRET//FRA"); err != nil {
		t.Fatal(err)
	}
	c.stop()
	if n := c.relabel("FRA", "DEU"); n != 1 { // one that bob may have too, of the same length
		t.Fatalf("%d messages were relabelled", n)
	}
	c.start()
	bob.start()
	bob.gets("before", "the plans", "control")
	bob.until("is told", func() bool { return bob.told(EventRelabelled, reasonLabelAltered) })
	for _, ev := range bob.all() {
		if ev.Kind == EventMessage && ev.Marking != "COALITION SECRET RELEASABLE TO FRA" {
			t.Errorf("%q is marked %q", ev.Text, ev.Marking)
		}
	}
	if !c.reported(reasonLabelAltered) || !c.reported(reasonAltered) {
		t.Errorf("not in the audit stream: %q", c.reports)
	}
	told := 0
	for _, ev := range bob.all() {
		if ev.Kind == EventRelabelled {
			told++
		}
	}
	if told != 1 {
		t.Errorf("told %d times", told)
	}
}

// A message that waited while its policy was replaced keeps its edition, and is shown
// under it; a new one under the old edition is refused.
func TestOldEditionStaysReadable(t *testing.T) {
	c := newCabinet(t)
	c.enact(1, c.folder())
	alice, bob := c.device("alice").reachable().obeys(1), c.device("bob").reachable().obeys(1)
	conv := alice.with(t, bob)
	if err := alice.write(conv, "before", "SECRET//FRA"); err != nil {
		t.Fatal(err)
	}
	bob.gets("before")
	c.quiet()
	bob.kill()
	if err := alice.write(conv, "waited", "SECRET//FRA"); err != nil {
		t.Fatal(err)
	}
	// The next bundle has the second edition alone, and shows SECRET in other words.
	folder := c.folder()
	text := string(folder["policies/policy.xml"].Data)
	next := strings.Replace(strings.Replace(text, ` version="1" creationDate`, ` version="2" creationDate`, 1), `RELEASABLE TO `, `REL `, 1)
	folder["policies/policy.xml"].Data = []byte(next)
	folder[bundle.TestsFile].Data = []byte(strings.ReplaceAll(string(folder[bundle.TestsFile].Data), `"edition":1`, `"edition":2`))
	c.enact(2, folder)
	alice.obeys(2)
	bob.start()
	bob.obeys(2).gets("before", "waited")
	if err := alice.write(conv, "after", "SECRET//FRA"); err != nil {
		t.Fatal(err)
	}
	bob.gets("before", "waited", "after")
	for _, ev := range bob.all() {
		want := map[string]string{
			"before": "COALITION SECRET RELEASABLE TO FRA", "waited": "COALITION SECRET RELEASABLE TO FRA", "after": "COALITION SECRET REL FRA",
		}[ev.Text]
		if ev.Kind == EventMessage && ev.Marking != want {
			t.Errorf("%q is marked %q, want %q", ev.Text, ev.Marking, want)
		}
	}
}
