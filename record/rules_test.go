// SPDX-License-Identifier: Apache-2.0

package record_test

import (
	"crypto/x509"
	"testing"

	"valise/enroll/enrolltest"
	"valise/identity"
	"valise/record"
	"valise/statement"
)

func (d *desk) appointment(name string, role identity.Role, key any) *statement.Appointment {
	d.t.Helper()
	spki, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		d.t.Fatal(err)
	}
	a := d.address(name)
	return &statement.Appointment{
		Change: statement.NewID(), Address: a, Role: role, Key: spki, Evidence: hash("evidence of " + name), Appraisal: hash("policy"),
		Previous: d.state.PreviousAppointment(a),
	}
}

func (d *desk) appoint(name string, role identity.Role, o *enrolltest.Officer) {
	d.t.Helper()
	b := d.appointment(name, role, o.Key.Public())
	d.ok(d.say(d.Anna, b), d.say(d.Arno, b))
}

func TestAppointment(t *testing.T) {
	d := newDesk(t)
	nina := d.Ministry.Officer(t, "nina", identity.RoleOfficer, enrolltest.NewKey(t), d.now, d.now.Add(day))
	approval := d.approval("request-1", d.Template(t, "alice", nil))
	b := d.appointment("nina", identity.RoleOfficer, nina.Key.Public())
	d.want(d.say(d.Olga, b), record.WrongRole)
	d.ok(d.say(d.Anna, b))
	d.want(d.say(d.Anna, b), record.SameOfficerTwice)
	d.want(d.say(nina, approval), record.NotInStanding)
	d.want(d.certify(enrolltest.OfficerTBS(t, nina)), record.NotAppointed)
	d.ok(d.say(d.Arno, b))
	d.want(d.say(d.Arno, b), record.Replayed)
	d.ok(d.certify(enrolltest.OfficerTBS(t, nina)), d.say(nina, approval))

	second := d.appointment("nina", identity.RoleAdministrator, enrolltest.NewKey(t).Public())
	d.want(d.say(d.Anna, second), record.RoleTaken)
	d.want(d.say(d.Anna, d.appointment("nobody", identity.RoleOfficer, d.Olga.Key.Public())), record.KeyTaken)
	self := d.appointment("anna", identity.RoleAdministrator, enrolltest.NewKey(t).Public())
	d.want(d.say(d.Anna, self), record.OwnMatter)
	stale := d.appointment("nina", identity.RoleOfficer, enrolltest.NewKey(t).Public())
	stale.Previous = [32]byte{}
	d.want(d.say(d.Anna, stale), record.StaleChange)

	d.ok(d.say(d.Anna, &statement.Dismissal{Change: statement.NewID(), Address: nina.Address, Reason: "left"}))
	d.want(d.say(nina, d.approval("request-2", d.Template(t, "alice", nil))), record.NotInStanding)
	d.want(d.say(d.Anna, &statement.Dismissal{Change: statement.NewID(), Address: d.Arno.Address, Reason: "left"}), record.TooFewLeft)
}

func TestRoster(t *testing.T) {
	d := newDesk(t)
	some, more := enrolltest.Clearance(t, 1, 2), enrolltest.Clearance(t, 1, 2, 3, 4)
	person := func(name string) record.Person { p, _ := d.state.Person(d.address(name)); return p }

	bob := d.line("bob", some)
	d.ok(d.say(d.Olga, bob))
	if d.state.OnRoster(bob.Address) == nil {
		t.Error("one officer put somebody on the roster")
	}
	d.ok(d.say(d.Oscar, bob))
	if err := d.state.OnRoster(bob.Address); err != nil {
		t.Error(err)
	}
	d.ok(d.say(d.Olga, d.line("bob", enrolltest.Clearance(t, 1)))) // lower: one
	if got := person("bob").Clearance; got.Covers(some) {
		t.Errorf("not lowered: %s", got.Text())
	}
	d.want(d.say(d.Otto, bob), record.Replayed) // the old line does not come back
	raise := d.line("bob", more)
	d.ok(d.say(d.Olga, raise))
	if got := person("bob").Clearance; got.Covers(some) {
		t.Errorf("raised by one officer: %s", got.Text())
	}
	d.ok(d.say(d.Otto, raise))
	if got := person("bob").Clearance; !got.Covers(more) {
		t.Errorf("not raised by two: %s", got.Text())
	}
	stale := d.line("bob", nil)
	stale.Previous = [32]byte{1}
	d.want(d.say(d.Olga, stale), record.StaleChange)
	d.want(d.say(d.Olga, d.line("olga", more)), record.OwnMatter)
	d.ok(d.say(d.Olga, &statement.Invitation{Address: bob.Address, Key: "kid-1"}))
	d.want(d.say(d.Olga, &statement.Invitation{Address: bob.Address, Key: "kid-1"}), record.KnownInvitation)
	d.want(d.say(d.Olga, &statement.Invitation{Address: d.address("carol"), Key: "kid-2"}), record.NotOnRoster)
	d.ok(d.say(d.Olga, &statement.Removal{Change: statement.NewID(), Address: bob.Address, Previous: d.state.Previous(bob.Address), Reason: "left"}))
	d.want(d.say(d.Olga, &statement.Invitation{Address: bob.Address, Key: "kid-3"}), record.NotOnRoster)
}

func TestRulesTakeTwoAdministrators(t *testing.T) {
	d := newDesk(t)
	now, _ := d.state.Profile("device")
	profile := func(version, approvals int) *statement.Profile {
		return &statement.Profile{
			Change: statement.NewID(), Name: "device", Version: version, Approvals: approvals,
			Validity: 2 * day, Grace: day, Tiers: []identity.Tier{identity.TierHardware}, Previous: now.Previous,
		}
	}
	d.want(d.say(d.Anna, profile(2, 1)), record.TooFewApprovals)
	d.want(d.say(d.Anna, profile(3, 2)), record.StaleChange)
	d.want(d.say(d.Olga, profile(2, 3)), record.WrongRole)
	b := profile(2, 3)
	d.ok(d.say(d.Anna, b))
	if p, _ := d.state.Profile("device"); p.Version != 1 {
		t.Error("one administrator changed a profile")
	}
	if w := d.state.Waiting(d.now); len(w) != 1 || w[0].Digest != statement.BodyDigest(b) {
		t.Errorf("waiting: %v", w)
	}
	d.ok(d.say(d.Arno, b))
	if p, _ := d.state.Profile("device"); p.Version != 2 || p.Approvals != 3 || len(d.state.Waiting(d.now)) != 0 {
		t.Errorf("got %+v", p)
	}

	vendor := enrolltest.NewVendor(t)
	roots := &statement.Endorsements{Change: statement.NewID(), PEM: vendor.PEM()}
	d.ok(d.say(d.Anna, roots))
	before := d.state.Endorsements().Value.Version()
	d.ok(d.say(d.Arno, roots))
	if d.state.Endorsements().Value.Version() == before {
		t.Error("the roots did not change")
	}
	d.want(d.say(d.Anna, &statement.Endorsements{Change: statement.NewID(), PEM: vendor.PEM()}), record.StaleChange)
	policy := &statement.Appraisal{Change: statement.NewID(), Policy: []byte(`{"min_firmware":"5.7.4"}`)}
	d.want(d.say(d.Anna, &statement.Appraisal{Change: statement.NewID(), Policy: []byte(`{"firmware":"5.7.4"}`)}), record.BadRule)
	d.ok(d.say(d.Anna, policy), d.say(d.Arno, policy))
	if got := d.state.Appraisal().Value.MinFirmware; got != "5.7.4" {
		t.Errorf("got %s", got)
	}
	bundle := &statement.Bundle{Change: statement.NewID(), Hash: hash("bundle"), Version: 1}
	d.ok(d.say(d.Olga, bundle), d.say(d.Anna, bundle))
	if d.state.Bundle().Version != 1 {
		t.Error("no bundle")
	}
}

// A session opens the desk and is never recorded.
func TestSessionIsNotRecorded(t *testing.T) {
	d := newDesk(t)
	_, err := d.state.Check(d.Olga.SignUntil(t, d.now, d.now.Add(statement.SessionLife), &statement.Session{Nonce: "nonce", Server: "https://enroll.interieur.example"}), d.now)
	d.ok(reason(t, err))
	i := d.item(2, d.Olga.SignUntil(t, d.now, d.now.Add(statement.SessionLife), &statement.Session{Nonce: "nonce", Server: "https://enroll.interieur.example"}))
	d.want(reason(t, d.state.Apply(i)), record.BadStatement)
}
