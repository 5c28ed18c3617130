// SPDX-License-Identifier: Apache-2.0

package enroll_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"valise/enroll"
	"valise/enroll/ca"
	"valise/enroll/desk/call"
	"valise/enroll/enrolltest"
	"valise/identity"
	"valise/record"
	"valise/statement"
)

func TestTwoOfficersApprove(t *testing.T) {
	b := newBureau(t)
	p := b.petition(b.account("alice"), b.card())
	b.want(p, "processing")
	if list, err := b.Requests(t.Context(), 10); err != nil || len(list) != 1 || list[0].ID != p.id || list[0].Needs != 2 {
		t.Errorf("requests %+v, %v", list, err)
	}
	out := b.ok(b.Olga, b.template(p))
	if out.State != call.OutcomeWaiting || out.Have != 1 || out.Need != 2 {
		t.Errorf("got %+v", out)
	}
	b.want(p, "processing")
	out = b.ok(b.Oscar, b.template(p))
	if out.State != call.OutcomeRecorded {
		t.Errorf("got %+v", out)
	}
	b.want(p, "valid")
	device := b.check(p.client.Fetch(p.Order), "alice")
	if device.ID != p.card.ID(t) || !enrolltest.Clearance(t, 1, 2, 3).Covers(device.Clearance) || device.Clearance == nil {
		t.Errorf("got %+v", device)
	}
	if findings := b.auditors(); len(findings) != 0 {
		t.Errorf("auditors find %v", findings)
	}
}

func TestOfficerRefuses(t *testing.T) {
	b := newBureau(t)
	p := b.petition(b.account("alice"), b.card())
	b.approve(p, b.Olga)
	b.ok(b.Oscar, &statement.Refusal{Request: p.id, Reason: "not at the door"})
	b.want(p, "invalid refused")
	if _, reason := b.say(b.Otto, &statement.Approval{Request: p.id, Template: b.Ministry.Template(t, "alice", nil)}); reason == "" {
		t.Error("approved after it was refused")
	}
}

// What an officer signs is compared with what would be issued, when it is handed in.
func TestApprovalOfSomethingElse(t *testing.T) {
	for name, c := range map[string]struct {
		change func(a *statement.Approval)
		want   string
	}{
		"control":          {func(*statement.Approval) {}, ""},
		"another evidence": {func(a *statement.Approval) { a.Evidence[0] ^= 1 }, call.ReasonConflict},
		"more clearance":   {func(a *statement.Approval) { a.Clearance = enrolltest.Clearance(t, 1, 5) }, call.ReasonConflict},
		"no such request":  {func(a *statement.Approval) { a.Request = "nobody" }, call.ReasonNotFound},
		"a longer life":    {func(a *statement.Approval) { a.Validity *= 2 }, call.ReasonConflict},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBureau(t)
			body := b.template(b.petition(b.account("alice"), b.card()))
			c.change(body)
			if _, got := b.say(b.Olga, body); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// A statement that is handed in twice has one effect, and the same outcome.
func TestSubmitTwice(t *testing.T) {
	b := newBureau(t)
	raw := b.Olga.Sign(t, b.clock.now(), &statement.Suspension{
		Target: statement.Target{Kind: statement.TargetPerson, Address: address(t, "alice")}, Reason: "lost", Change: statement.NewID(),
	})
	first, reason := b.hand(raw)
	again, reason2 := b.hand(raw)
	if reason != "" || reason2 != "" || first.Index != again.Index || first.State != again.State {
		t.Errorf("%+v %q, %+v %q", first, reason, again, reason2)
	}
}

// Suspended, revoked or removed: nothing is issued, whatever was approved, and open
// orders end.
func TestNothingForTheSuspended(t *testing.T) {
	target := func(kind string) func(b *bureau, p *petition) statement.Body {
		return func(b *bureau, p *petition) statement.Body {
			now := statement.Target{Kind: kind}
			switch kind {
			case statement.TargetDevice:
				now.Device = p.card.ID(t)
			case statement.TargetPerson:
				now.Address = address(t, "alice")
			case statement.TargetSerial:
				now.Serial = identity.SerialHash("yubico-piv", 4711)
			case statement.TargetRoot:
				now.Root = sha(b.Vendor.Root.Raw)
			}
			return &statement.Suspension{Target: now, Reason: "lost", Change: statement.NewID()}
		}
	}
	for name, c := range map[string]struct {
		body func(b *bureau, p *petition) statement.Body
		want string
	}{
		"control": {nil, "valid"},
		"device":  {target(statement.TargetDevice), "invalid device_suspended"},
		"person":  {target(statement.TargetPerson), "invalid person_suspended"},
		"card":    {target(statement.TargetSerial), "invalid card_suspended"},
		"root":    {target(statement.TargetRoot), "invalid root_suspended"},
		"removed": {func(b *bureau, _ *petition) statement.Body {
			return &statement.Removal{Change: statement.NewID(), Address: address(t, "alice"), Previous: b.line("alice", nil).Previous, Reason: "left"}
		}, "invalid not_on_roster"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBureau(t)
			p := b.petition(b.account("alice"), b.Vendor.Card(t, enrolltest.CardConfig{Serial: 4711}))
			b.away.Store(true) // the token is away while it is approved
			b.approve(p, b.Olga, b.Oscar)
			if c.body != nil {
				b.ok(b.Otto, c.body(b, p))
			}
			b.away.Store(false)
			b.resume()
			b.want(p, c.want)
		})
	}
}

// A device of a person who is suspended does not even get an order.
func TestNoOrderForTheSuspended(t *testing.T) {
	b := newBureau(t)
	c := b.account("alice")
	suspension := &statement.Suspension{Target: statement.Target{Kind: statement.TargetPerson, Address: address(t, "alice")}, Reason: "lost", Change: statement.NewID()}
	b.ok(b.Olga, suspension)
	_, r := c.NewOrder(b.card().ID(t).String())
	b.expect(r, 403, "unauthorized", "person_suspended")
	resumption := &statement.Resumption{Target: suspension.Target, Reason: "found", Change: statement.NewID()}
	b.ok(b.Olga, resumption)
	b.ok(b.Oscar, resumption)
	if o, r := c.NewOrder(b.card().ID(t).String()); o == nil {
		t.Errorf("control: %d %s", r.Status, r.Reason)
	}
}

// Renewal stands on the first approvals; a higher clearance or a long absence waits
// for new ones and says so to the applicant.
func TestRenewalWithoutOfficers(t *testing.T) {
	for name, c := range map[string]struct {
		after  time.Duration
		raise  bool
		want   string
		reason string
	}{
		"control":      {5 * day, false, "valid", ""},
		"in the grace": {30 * day, false, "valid", ""},
		"months away":  {90 * day, false, "processing", string(record.Lapsed)},
		"raised":       {5 * day, true, "processing", string(record.Raised)},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBureau(t)
			p := b.enrolled()
			b.clock.move(c.after)
			if c.raise {
				b.enlist("alice", enrolltest.Clearance(t, 1, 2, 3, 4))
			}
			again := b.renew(p)
			b.want(again, c.want)
			if c.reason != "" {
				r := again.client.Post(again.URL, nil)
				if !bytes.Contains(r.Body, []byte(c.reason)) || !bytes.Contains(r.Body, []byte(record.Why(c.reason).Text())) {
					t.Errorf("the applicant reads %s", r.Body)
				}
				b.approve(again, b.Olga, b.Otto)
				b.want(again, "valid")
			}
			if findings := b.auditors(); len(findings) != 0 {
				t.Errorf("auditors find %v", findings)
			}
		})
	}
}

// New roots or a stricter policy reach the next renewal, and the devices that do not
// pass any more are known at once.
func TestReappraisal(t *testing.T) {
	advisory := func(b *bureau) statement.Body {
		return &statement.Appraisal{Change: statement.NewID(), Policy: []byte(`{"min_firmware":"5.7.4"}`)}
	}
	roots := func(b *bureau) statement.Body {
		return &statement.Endorsements{Change: statement.NewID(), PEM: enrolltest.NewVendor(t).PEM()}
	}
	for name, c := range map[string]struct {
		change func(b *bureau) statement.Body
		reason string
	}{"control": {nil, ""}, "firmware advisory": {advisory, "firmware_too_old"}, "roots": {roots, "unknown_root"}} {
		t.Run(name, func(t *testing.T) {
			b := newBureau(t)
			p := b.enrolled()
			if c.change != nil {
				body := c.change(b)
				b.ok(b.Anna, body)
				b.ok(b.Arno, body)
			}
			if err := b.Reappraise(t.Context()); err != nil {
				t.Fatal(err)
			}
			failed := b.Distrusted()
			if c.reason == "" {
				if len(failed) != 0 {
					t.Errorf("got %v", failed)
				}
				b.want(b.renew(p), "valid")
				return
			}
			if len(failed) != 1 || failed[0].Device != p.card.ID(t) || failed[0].Reason != c.reason {
				t.Errorf("got %v", failed)
			}
			o, _ := p.client.NewOrder(p.card.ID(t).String())
			if ch, _ := p.client.Attest(o, p.card.Answer(t, p.client.KeyAuthorization(o))); ch.Status != "invalid" || ch.Error.Reason != c.reason {
				t.Errorf("the challenge is %+v", ch)
			}
		})
	}
}

// The devices behind a card's number and a vendor's root are found in the evidence.
func TestDevicesBehindHardware(t *testing.T) {
	b := newBureau(t)
	p := b.enrolled()
	b.enrolled()
	root := statement.Target{Kind: statement.TargetRoot, Root: sha(b.Vendor.Root.Raw)}
	if all, err := b.Devices(t.Context(), root); err != nil || len(all) != 2 {
		t.Errorf("got %v, %v", all, err)
	}
	r, err := b.Request(t.Context(), p.id)
	if err != nil || r.State != call.StateIssued {
		t.Errorf("got %+v, %v", r, err)
	}
	person, err := b.Person(t.Context(), address(t, "alice"))
	if err != nil || len(person.Devices) != 2 {
		t.Errorf("got %+v, %v", person, err)
	}
}

// The configuration can ask for more than the record, and not for less.
func TestConfigurationOnlyTightens(t *testing.T) {
	b := newBureau(t)
	tight, err := ca.New(ca.Config{
		Store: b.store, Book: b.book, Domain: domain, Chain: b.Chain(), Signer: b.key, Now: b.clock.now,
		Device: ca.Profile{Name: "device", Approvals: 3, Validity: day},
	})
	if err != nil {
		t.Fatal(err)
	}
	loose, err := ca.New(ca.Config{
		Store: b.store, Book: b.book, Domain: domain, Chain: b.Chain(), Signer: b.key, Now: b.clock.now,
		Device: ca.Profile{Name: "device", Approvals: 0, Validity: 300 * day},
	})
	if err != nil {
		t.Fatal(err)
	}
	p := b.petition(b.account("alice"), b.card())
	if _, err := loose.IssueDevice(t.Context(), p.id); !errors.Is(err, ca.ErrApprovals) {
		t.Errorf("without approvals: %v", err)
	}
	b.away.Store(true)
	b.approve(p, b.Olga, b.Oscar)
	b.away.Store(false)
	if _, err := tight.IssueDevice(t.Context(), p.id); !errors.Is(err, ca.ErrApprovals) {
		t.Errorf("with two of three: %v", err)
	}
	i, err := loose.IssueDevice(t.Context(), p.id)
	if err != nil || i.NotAfter.Sub(b.clock.now()) > 7*day {
		t.Errorf("until %v, %v", i.NotAfter, err)
	}
}

// Two administrators appoint an officer whose card was accepted; the certificate
// follows by itself, also after the token was away.
func TestAppointedOfficerGetsCertificate(t *testing.T) {
	b := newBureau(t)
	body, key := b.applicant("nina", identity.RoleOfficer)
	stranger := *body
	stranger.Evidence[0] ^= 1
	if _, reason := b.say(b.Anna, &stranger); reason != call.ReasonNotFound {
		t.Errorf("evidence that nobody accepted: %q", reason)
	}
	b.ok(b.Anna, body)
	b.away.Store(true)
	b.ok(b.Arno, body)
	b.away.Store(false)
	b.work()
	o, err := b.Authority.Officer(t.Context(), key)
	if err != nil || len(o.Chain) != 2 || o.Role != identity.RoleOfficer {
		t.Fatalf("got %+v, %v", o, err)
	}
	var trust *identity.Trust
	b.book.View(func(s *record.State) { trust = s.Trust() })
	if known, err := trust.Officer(o.Chain, b.clock.now()); err != nil || known.Address != address(t, "nina") {
		t.Errorf("got %+v, %v", known, err)
	}
	if findings := b.auditors(); len(findings) != 0 {
		t.Errorf("auditors find %v", findings)
	}
}

// What a command writes into the database of an authority with officers would count
// for nothing: it says who decides instead.
func TestOfficersInvite(t *testing.T) {
	b := newBureau(t)
	inviter := enroll.Inviter{Store: b.store, URL: b.server.URL, Root: b.Root, Event: b.log.Event, Now: b.clock.now}
	if _, err := inviter.Invite(t.Context(), address(t, "alice")); !errors.Is(err, enroll.ErrOfficers) {
		t.Errorf("got %v", err)
	}
	lone := newSite(t, options{})
	if _, err := lone.inviter.Invite(t.Context(), address(t, "alice")); err != nil {
		t.Errorf("control: %v", err)
	}
}
