// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"crypto/x509/pkix"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"valise/bulletin"
	"valise/gateway/group"
	"valise/gateway/mailbox"
	"valise/gateway/rules"
	"valise/identity"
	"valise/internal/figure"
	"valise/internal/testenv/paper"
	"valise/mls"
	"valise/policy"
	"valise/policy/bundle"
	"valise/wire"
)

const home = "interieur.example"

// cleared changes a profile's clearance and tier.
func cleared(c *identity.Clearance, tier identity.Tier) func(*identity.DeviceProfile) {
	return func(p *identity.DeviceProfile) { p.Clearance, p.Tier = c, tier }
}

// A desk is what label tests share: a policy, a bundle in force, and an authority.
type desk struct {
	t        testing.TB
	a        *authority
	doctrine *paper.Doctrine
	state    *rules.State
}

func newDesk(t testing.TB, ruleText string, table bundle.Domains) *desk {
	t.Helper()
	d := &desk{t: t, a: newAuthority(t, home), doctrine: paper.NewDoctrine(t, "france")}
	if table.Domains == nil {
		table.Domains = []bundle.Bound{{Domain: home, Policy: d.doctrine.ID.String(), Floor: "DIFFUSION RESTREINTE", Ceiling: "SECRET"}}
	}
	for i := range table.Tiers {
		table.Tiers[i].Policy = d.doctrine.ID.String()
	}
	for i := range table.Staleness {
		table.Staleness[i].Policy = d.doctrine.ID.String()
	}
	folder := d.doctrine.Folder(ruleText, table)
	_, b := d.doctrine.Bundle(1, folder)
	d.state = &rules.State{Bundle: b, File: []byte("signed")}
	return d
}

func (d *desk) upTo(class string) *identity.Clearance { return d.doctrine.UpTo(class) }

func (d *desk) device(local string, change func(*identity.DeviceProfile)) *identity.Device {
	d.t.Helper()
	chain := d.a.deviceAs(d.t, local, newKey(d.t), -time.Hour, time.Hour, change)
	device, err := d.a.trust().Device(chain, time.Now())
	if err != nil {
		d.t.Fatal(err)
	}
	return device
}

// header is that of a message with this label, "" for none.
func (d *desk) header(class string, change func(*wire.Header)) []byte {
	d.t.Helper()
	h := &wire.Header{Sequence: 1}
	if class != "" {
		label, err := d.doctrine.Label(class).Marshal()
		if err != nil {
			d.t.Fatal(err)
		}
		h.Labelled, h.Label, h.Policy, h.PolicyHash = true, label, []byte(d.doctrine.ID), d.state.Bundle.Hash[:]
	}
	if change != nil {
		change(h)
	}
	data, err := h.Marshal()
	if err != nil {
		d.t.Fatal(err)
	}
	return data
}

// Each refusal differs from an honest SECRET message in one property.
func TestAdmitLabel(t *testing.T) {
	now := time.Now()
	rule := `@id("no-flash-to-witnessed") forbid (principal, action == Action::"send", resource) when { context.precedence == "flash" && resource.address == "bob@interieur.example" };`
	d := newDesk(t, rule, bundle.Domains{
		Unlabelled: true,
		Tiers:      []bundle.TierRow{{Classification: "SECRET", Tier: identity.TierHardware}},
		Staleness:  []bundle.Staleness{{Classification: "SECRET", Refuse: "10m"}},
	})
	strict := newDesk(t, "", bundle.Domains{})
	secret := cleared(d.upTo("SECRET"), identity.TierHardware)
	alice, bob, carol := d.device("alice", secret), d.device("bob", secret), d.device("carol", secret)
	low := d.device("low", cleared(d.upTo("DIFFUSION RESTREINTE"), identity.TierHardware))
	soft := d.device("soft", cleared(d.upTo("SECRET"), identity.TierWitnessed))
	none := d.device("none", cleared(nil, identity.TierHardware))
	top := d.device("top", cleared(d.upTo("TRÈS SECRET"), identity.TierHardware))
	renewed := *alice
	renewed.Leaf, renewed.Clearance = d.device("alice", secret).Leaf, d.upTo("DIFFUSION RESTREINTE")
	tests := []struct {
		name   string
		device *identity.Device
		with   []*identity.Device
		label  string
		change func(*snapshot, *wire.Header)
		code   wire.Code
		reason string
		about  *identity.Device
	}{
		{name: "honest", label: "SECRET"},
		{name: "lower, to all", with: []*identity.Device{bob, low, soft}, label: "DIFFUSION RESTREINTE"},
		{name: "unlabelled", with: []*identity.Device{none}},
		{name: "sender not cleared", device: low, with: []*identity.Device{alice}, label: "SECRET", code: wire.LabelRefused, reason: "classification"},
		{name: "sender without clearance", device: none, with: []*identity.Device{alice}, label: "SECRET", code: wire.LabelRefused, reason: "no_clearance"},
		{name: "sender renewed with less", device: &renewed, label: "SECRET", code: wire.LabelRefused, reason: "classification"},
		{name: "a recipient not cleared", with: []*identity.Device{bob, low}, label: "SECRET", code: wire.NotCleared, reason: "classification", about: low},
		{name: "a recipient without clearance", with: []*identity.Device{none, bob}, label: "SECRET", code: wire.NotCleared, reason: "no_clearance", about: none},
		{name: "a recipient's tier", with: []*identity.Device{bob, soft}, label: "SECRET", code: wire.NotCleared, reason: "attestation_tier", about: soft},
		{name: "the sender's tier", device: soft, with: []*identity.Device{bob}, label: "SECRET", code: wire.LabelRefused, reason: "attestation_tier"},
		{name: "above the domain's ceiling", device: top, with: []*identity.Device{top}, label: "TRÈS SECRET", code: wire.LabelRefused, reason: "domain_bounds"},
		{name: "below the domain's floor", label: "NON MARQUÉ", code: wire.LabelRefused, reason: "domain_bounds"},
		{name: "obsolete", device: top, with: []*identity.Device{top}, label: "CONFIDENTIEL DÉFENSE", code: wire.LabelRefused, reason: "obsolete"},
		{name: "no such classification", label: "PINK", code: wire.LabelRefused, reason: "unknown_classification"},
		{name: "a rule", label: "SECRET", change: func(_ *snapshot, h *wire.Header) { h.Precedence = wire.Flash }, code: wire.NotCleared, reason: "rule", about: bob},
		{name: "a rule about others", with: []*identity.Device{carol}, label: "SECRET", change: func(_ *snapshot, h *wire.Header) { h.Precedence = wire.Flash }},
		{name: "another bundle", label: "SECRET", change: func(_ *snapshot, h *wire.Header) { h.PolicyHash = make([]byte, 32) }, code: wire.BundleChanged, reason: "other_bundle"},
		{name: "no bundle named", label: "SECRET", change: func(_ *snapshot, h *wire.Header) { h.PolicyHash = nil }, code: wire.BundleChanged, reason: "other_bundle"},
		{name: "unlabelled under another bundle", change: func(_ *snapshot, h *wire.Header) { h.PolicyHash = make([]byte, 32) }, code: wire.BundleChanged, reason: "other_bundle"},
		{name: "another policy named", label: "SECRET", change: func(_ *snapshot, h *wire.Header) { h.Policy = []byte{0x2a, 3} }, code: wire.LabelRefused, reason: "policy_mismatch"},
		{name: "no label at all", label: "SECRET", change: func(_ *snapshot, h *wire.Header) { h.Label = []byte("SECRET") }, code: wire.LabelRefused, reason: "malformed_label"},
		{name: "no bundle here", label: "SECRET", change: func(s *snapshot, _ *wire.Header) { s.rules = nil }, code: wire.LabelRefused, reason: "no_policy_for_label"},
		{name: "the bundle in force is not here", label: "SECRET", change: func(s *snapshot, _ *wire.Header) { s.rules = &rules.State{Bundle: d.state.Bundle, Missing: true} }, code: wire.NoBundle, reason: "bundle_not_in_force"},
		{name: "and without a label neither", change: func(s *snapshot, _ *wire.Header) { s.rules = &rules.State{Missing: true} }, code: wire.NoBundle, reason: "bundle_not_in_force"},
		{name: "a label is demanded", change: func(s *snapshot, _ *wire.Header) { s.rules = strict.state }, code: wire.LabelRequired, reason: "unlabelled"},
		{name: "a bulletin too old for the label", label: "SECRET", change: func(s *snapshot, _ *wire.Header) { s.age = 11 * time.Minute }, code: wire.StandingsStale, reason: "stale_for_label"},
		{name: "and not for a lower one", label: "DIFFUSION RESTREINTE", change: func(s *snapshot, _ *wire.Header) { s.age = 11 * time.Minute }},
		{name: "the steps of age", label: "SECRET", change: func(s *snapshot, _ *wire.Header) {
			s.age, s.tightening = 6*time.Minute, bulletin.Tightening{First: time.Minute, All: 20 * time.Minute}
		}, code: wire.StandingsStale, reason: "stale_bulletin"},
		{name: "do not reach the lowest", label: "DIFFUSION RESTREINTE", change: func(s *snapshot, _ *wire.Header) {
			s.age, s.tightening = 6*time.Minute, bulletin.Tightening{First: time.Minute, All: 20 * time.Minute}
		}},
		{name: "too many of this label", label: "SECRET", change: func(s *snapshot, _ *wire.Header) {
			l := Limits{Labels: map[string]Rate{"SECRET": {}}}.withDefaults()
			s.allowance = newAllowance(&l, silentAuditor())
		}, code: wire.RateLimited, reason: "label_limited"},
		{name: "routes are not for nothing", label: "SECRET", change: func(s *snapshot, _ *wire.Header) { s.allowance = allow(1, 1); s.allowance.ask(s.now, 1) }, code: wire.RateLimited, reason: "rate_limited"},
	}
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			s := &snapshot{now: now, device: alice, domain: home, rules: d.state, allowance: allow(1, 10)}
			with := c.with
			if with == nil {
				with = []*identity.Device{bob}
			}
			if c.device != nil {
				s.device = c.device
			}
			tree := s.device
			if tree == &renewed {
				tree = alice
			}
			members := []*identity.Device{tree}
			for _, m := range with {
				if m.ID != s.device.ID {
					members = append(members, m)
				}
			}
			s.group = group.NewView([]byte("g"), 7, members...)
			m := &message{group: []byte("g"), epoch: 7}
			header := d.header(c.label, func(h *wire.Header) {
				if c.change != nil {
					c.change(s, h)
				}
			})
			s.circles = new(circles)
			m.info = &mls.MessageInfo{Wire: mls.WirePrivateMessage, GroupID: []byte("g"), Epoch: 7, Content: mls.ContentApplication, AuthenticatedData: header}
			for range 2 { // the second time by the route that is known
				r := admit(s, m)
				if r == nil {
					r = &refusal{}
				}
				if r.code != c.code || r.reason != c.reason {
					t.Fatalf("got %v, %q (%s); want %v, %q", r.code, r.reason, r.detail, c.code, c.reason)
				}
				if c.about != nil && (r.about != c.about.ID || r.whose != c.about.Address.String()) {
					t.Errorf("it is about %v, %q", r.about, r.whose)
				}
			}
		})
	}
}

// What the bulletin takes from a person counts at once, on routes that are known too.
func TestLoweredClearanceCountsAtOnce(t *testing.T) {
	d := newDesk(t, "", bundle.Domains{Unlabelled: true})
	secret := cleared(d.upTo("SECRET"), identity.TierHardware)
	alice, bob := d.device("alice", secret), d.device("bob", secret)
	view, known := group.NewView([]byte("g"), 1, alice, bob), new(circles)
	m := &message{group: []byte("g"), epoch: 1, info: &mls.MessageInfo{
		GroupID: []byte("g"), Epoch: 1, Content: mls.ContentApplication, AuthenticatedData: d.header("SECRET", nil),
	}}
	ask := func(set *bulletin.Set) *refusal {
		return admit(&snapshot{
			now: time.Now(), device: alice, domain: home, rules: d.state, allowance: allow(1000, 1000), group: view, set: set,
			circles: known,
		}, m)
	}
	a := paper.New(t, home)
	lowered := func(number uint64, address identity.Address, c *identity.Clearance) *bulletin.Set {
		b := a.Bulletin(number)
		b.People = []bulletin.PersonStanding{{Address: address, State: bulletin.Active, Since: b.Time, Ceiling: c}}
		set, err := bulletin.NewSet().WithBulletin(b)
		if err != nil {
			t.Fatal(err)
		}
		return set
	}
	if r := ask(bulletin.NewSet()); r != nil {
		t.Fatalf("the control: %+v", r)
	}
	if r := ask(lowered(1, bob.Address, d.upTo("DIFFUSION RESTREINTE"))); r == nil || r.code != wire.NotCleared || r.about != bob.ID {
		t.Errorf("bob's was lowered: %+v", r)
	}
	if r := ask(lowered(2, alice.Address, nil)); r == nil || r.code != wire.LabelRefused || r.reason != "no_clearance" {
		t.Errorf("alice's was taken: %+v", r)
	}
	if r := ask(lowered(3, bob.Address, d.upTo("TRÈS SECRET"))); r != nil {
		t.Errorf("bob's is as high as it was: %+v", r)
	}
}

// What was found out about all members at once holds for one set of standings, one
// domain and an empty deny list.
func TestMembersAreLookedAtAgain(t *testing.T) {
	s, m := routed(t, 2)
	s.set = bulletin.NewSet()
	bob := s.group.Members[1].Device
	if r := admit(s, m); r != nil || s.circle.domain.Load() == nil {
		t.Fatalf("the control: %+v", r)
	}
	b := paper.New(t, home).Bulletin(1)
	b.Devices = []bulletin.DeviceStanding{{ID: bob.ID, State: bulletin.Suspended, Since: b.Time}}
	suspended, err := s.set.WithBulletin(b)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		change func(*snapshot)
		reason string
	}{
		"bob is suspended": {func(s *snapshot) { s.set = suspended }, "removal_due"},
		"bob is denied":    {func(s *snapshot) { s.denied = denyList{bob.ID: true} }, "recipient_denied"},
		"another domain":   {func(s *snapshot) { s.domain = "defense.example" }, "foreign_domain"},
		"nothing":          {func(*snapshot) {}, ""},
	} {
		changed := *s
		test.change(&changed)
		r := admit(&changed, m)
		if r == nil {
			r = new(refusal)
		}
		if r.reason != test.reason {
			t.Errorf("%s: %q, want %q", name, r.reason, test.reason)
		}
	}
}

// An authority that may clear nobody for SECRET clears nobody for it.
func TestConstrainedAuthority(t *testing.T) {
	d := newDesk(t, "", bundle.Domains{})
	device := d.device("alice", cleared(d.upTo("SECRET"), identity.TierHardware))
	if end := endOf(device, nil); end.Clearance == nil || !end.Clearance.Covers(d.upTo("SECRET")) {
		t.Fatalf("the control: %+v", end.Clearance)
	}
	constraints, err := (policy.Constraints{d.upTo("DIFFUSION RESTREINTE")}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	issuer := *device.Above[0]
	issuer.Extensions = append(issuer.Extensions[:len(issuer.Extensions):len(issuer.Extensions)], extensionOf(constraints))
	below := *device
	below.Above = append(below.Above[:0:0], &issuer)
	if end := endOf(&below, nil); end.Clearance == nil || end.Clearance.Covers(d.upTo("SECRET")) {
		t.Errorf("the constraints are passed over: %+v", end.Clearance)
	}
	issuer.Extensions[len(issuer.Extensions)-1] = extensionOf([]byte{1})
	if end := endOf(&below, nil); end.Clearance != nil {
		t.Errorf("constraints that cannot be read clear: %+v", end.Clearance)
	}
}

// A message by a route that is known takes no memory and little time.
func TestAdmitLabelAllocatesNothing(t *testing.T) {
	s, m := routed(t, 16)
	if r := admit(s, m); r != nil {
		t.Fatalf("%+v", r)
	}
	if n := testing.AllocsPerRun(200, func() {
		if admit(s, m) != nil {
			t.Fatal("refused")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func routed(t testing.TB, members int) (*snapshot, *message) {
	d := newDesk(t, "", bundle.Domains{Tiers: []bundle.TierRow{{Classification: "SECRET", Tier: identity.TierHardware}}})
	devices := make([]*identity.Device, members)
	for i := range devices {
		devices[i] = d.device(string(rune('a'+i%26))+string(rune('a'+i/26)), cleared(d.upTo("SECRET"), identity.TierHardware))
	}
	view := group.NewView([]byte("g"), 1, devices...)
	return &snapshot{
			now: time.Now(), device: devices[0], domain: home, rules: d.state, allowance: allow(1e9, 1e9), group: view, circles: new(circles),
		}, &message{group: []byte("g"), epoch: 1, info: &mls.MessageInfo{
			GroupID: []byte("g"), Epoch: 1, Content: mls.ContentApplication, AuthenticatedData: d.header("SECRET", nil),
		}}
}

// BenchmarkAdmit compares admission with labels and without.
func BenchmarkAdmit(b *testing.B) {
	for _, labelled := range []bool{false, true} {
		s, m := routed(b, 2)
		name := "labelled"
		if !labelled {
			name = "plain"
			s.rules = nil
			header, err := (&wire.Header{Sequence: 1}).Marshal()
			if err != nil {
				b.Fatal(err)
			}
			m.info.AuthenticatedData = header
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if r := admit(s, m); r != nil {
					b.Fatalf("%+v", r)
				}
			}
			if err := figure.Print(os.Stdout, "gateway_admit_"+name, float64(b.Elapsed().Nanoseconds())/float64(b.N), "ns"); err != nil {
				b.Fatal(err)
			}
		})
	}
}

func extensionOf(value []byte) pkix.Extension {
	return pkix.Extension{Id: policy.OIDClearanceConstraints, Value: value}
}

// BenchmarkPolicyShare relays SECRET messages through the whole gateway and says which
// part of a message's time is the policy's: the decision about its label when it is sent
// and the one when it is delivered out of the store, measured alone, against the time that
// one message takes while many are under way. Run it on a disk, as BenchmarkRelay.
func BenchmarkPolicyShare(b *testing.B) {
	rule := `@id("no-flash") forbid (principal, action == Action::"send", resource) when { context.precedence == "flash" };`
	d := newDesk(b, rule, bundle.Domains{Tiers: []bundle.TierRow{{Classification: "SECRET", Tier: identity.TierHardware}}})
	gw := startGateway(b, gatewayOptions{authority: d.a})
	gw.SetRules(d.state)
	const pairs, window = 8, 16
	device := func(local string) *testDevice {
		t := newDevice(b, gw, local)
		t.chain = d.a.deviceAs(b, local, t.key, -time.Hour, 100*time.Hour, cleared(d.upTo("SECRET"), identity.TierHardware))
		t.mls.Credential = mls.X509Credential(t.chain)
		return t.ready()
	}
	label, err := d.doctrine.Label("SECRET").Marshal()
	if err != nil {
		b.Fatal(err)
	}
	header := wire.Header{Sequence: 1, Labelled: true, Label: label, Policy: []byte(d.doctrine.ID), PolicyHash: d.state.Bundle.Hash[:]}
	type pairing struct {
		from, to *testDevice
		sealed   []*wire.Send
	}
	all := make([]pairing, pairs)
	text := string(make([]byte, 900))
	for i := range all {
		from, to := device(fmt.Sprintf("a%d", i)), device(fmt.Sprintf("b%d", i))
		g := from.found()
		from.add(g, from.take(to.local)...)
		to.join()
		all[i] = pairing{from: from, to: to}
		for range b.N/pairs + 1 {
			all[i].sealed = append(all[i].sealed, from.sealedUnder(g, text, header))
		}
	}
	b.ResetTimer()
	started := time.Now()
	var work sync.WaitGroup
	for i := range all {
		p := &all[i]
		work.Go(func() { pump(b, p.from, p.sealed, window) })
		work.Go(func() {
			for range p.sealed {
				if m := p.to.next(); m.Number%16 == 0 {
					p.to.ack(m.Number)
				}
			}
		})
	}
	work.Wait()
	message := float64(time.Since(started).Nanoseconds()) / float64(pairs*len(all[0].sealed))
	b.StopTimer()

	s, m := routed(b, 2)
	h, err := wire.ReadHeader(m.info.AuthenticatedData)
	if err != nil {
		b.Fatal(err)
	}
	sender, _ := s.member()
	const rounds = 200_000
	started = time.Now()
	for range rounds {
		if _, r := admitLabel(s, &h, sender); r != nil {
			b.Fatalf("%+v", r)
		}
	}
	policy := float64(time.Since(started).Nanoseconds()) / rounds
	waited := again(b, d, gw, all[0].to, all[0].sealed[0].Message)
	b.ReportMetric(policy, "policy-ns")
	b.ReportMetric(waited, "again-ns")
	b.ReportMetric(message, "message-ns")
	if b.N > 1 {
		if err := figure.Print(os.Stdout, "gateway_policy_share", (policy+waited)/message, "ratio"); err != nil {
			b.Fatal(err)
		}
	}
}

// again measures what it takes to judge a message again that comes out of the store.
func again(b *testing.B, d *desk, gw *testGateway, to *testDevice, message []byte) float64 {
	device, err := d.a.trust().Device(to.chain, time.Now())
	if err != nil {
		b.Fatal(err)
	}
	down := &delivery{s: &session{g: gw.Gateway, device: device}}
	entries := []mailbox.Entry{{Number: 1, Kind: mailbox.Content, Payload: message}}
	const rounds = 200_000
	started := time.Now()
	for range rounds {
		if why := down.forbidden(entries, true); why != nil {
			b.Fatalf("%+v", why)
		}
	}
	return float64(time.Since(started).Nanoseconds()) / rounds
}
