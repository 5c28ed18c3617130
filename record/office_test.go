// SPDX-License-Identifier: Apache-2.0

package record_test

import (
	"testing"

	"valise/enroll/enrolltest"
	"valise/identity"
	"valise/record"
	"valise/statement"
)

func (d *desk) keyOf(o *enrolltest.Officer) identity.DeviceID {
	d.t.Helper()
	id, err := identity.DeviceIDOf(o.Key.Public())
	if err != nil {
		d.t.Fatal(err)
	}
	return id
}

// Who is out as a person, or whose card is, signs nothing as an officer either, and
// what they signed before does not count any more.
func TestOfficerOutAsAPerson(t *testing.T) {
	for name, out := range map[string]func(d *desk) statement.Body{
		"suspended": func(d *desk) statement.Body {
			return d.suspension(statement.Target{Kind: statement.TargetPerson, Address: d.Oscar.Address})
		},
		"revoked": func(d *desk) statement.Body {
			return &statement.Revocation{Target: statement.Target{Kind: statement.TargetPerson, Address: d.Oscar.Address}, Reason: "dead", Change: statement.NewID()}
		},
		"removed": func(d *desk) statement.Body {
			return &statement.Removal{Change: statement.NewID(), Address: d.Oscar.Address, Previous: d.state.Previous(d.Oscar.Address), Reason: "left"}
		},
		"the key": func(d *desk) statement.Body {
			return d.suspension(statement.Target{Kind: statement.TargetDevice, Device: d.keyOf(d.Oscar)})
		},
		"the card": func(d *desk) statement.Body {
			return d.suspension(statement.Target{Kind: statement.TargetSerial, Serial: identity.SerialHash("yubico-piv", 7), Devices: []identity.DeviceID{d.keyOf(d.Oscar)}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			line := d.line("oscar", nil)
			d.ok(d.say(d.Olga, line), d.say(d.Otto, line))
			template := d.Template(t, "alice", nil)
			b := d.approval("request-1", template)
			d.ok(d.say(d.Oscar, b), d.say(d.Otto, out(d)))
			d.want(d.say(d.Oscar, &statement.Refusal{Request: "request-2", Reason: "no"}), record.NotInStanding)
			d.ok(d.say(d.Otto, b))
			d.want(d.certify(d.tbs(template)), record.NoApproval)
			if _, err := d.state.Officer(d.keyOf(d.Oscar)); record.ReasonOf(err) != record.NotInStanding {
				t.Errorf("in office: %v", err)
			}
			d.ok(d.say(d.Olga, b)) // two who are in office
			d.ok(d.certify(d.tbs(template)))
		})
	}
}

// One officer stops an administrator at once, but does not end for ever that there
// are enough of them to appoint another.
func TestLastAdministratorsAreNotEnded(t *testing.T) {
	for name, target := range map[string]func(d *desk) statement.Target{
		"officer": func(d *desk) statement.Target {
			return statement.Target{Kind: statement.TargetOfficer, Address: d.Anna.Address}
		},
		"person": func(d *desk) statement.Target {
			return statement.Target{Kind: statement.TargetPerson, Address: d.Anna.Address}
		},
		"key": func(d *desk) statement.Target {
			return statement.Target{Kind: statement.TargetDevice, Device: d.keyOf(d.Anna)}
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			revocation := func() statement.Body {
				return &statement.Revocation{Target: target(d), Reason: "stolen", Change: statement.NewID()}
			}
			d.want(d.say(d.Olga, revocation()), record.TooFewLeft)
			d.ok(d.say(d.Olga, d.suspension(target(d))))
			resumption := &statement.Resumption{Target: target(d), Reason: "found", Change: statement.NewID()}
			d.ok(d.say(d.Olga, resumption), d.say(d.Otto, resumption))
			third := d.Ministry.Officer(t, "astrid", identity.RoleAdministrator, enrolltest.NewKey(t), d.now, d.now.Add(day))
			d.appoint("astrid", identity.RoleAdministrator, third)
			d.ok(d.say(d.Olga, revocation()))
			arno := &statement.Dismissal{Change: statement.NewID(), Address: d.Arno.Address, Reason: "left"}
			d.want(d.say(d.Arno, arno), record.TooFewLeft) // anna does not count any more
		})
	}
	d := newDesk(t)
	line := d.line("anna", nil)
	d.ok(d.say(d.Olga, line), d.say(d.Otto, line))
	d.want(d.say(d.Olga, &statement.Removal{Change: statement.NewID(), Address: d.Anna.Address, Previous: d.state.Previous(d.Anna.Address), Reason: "left"}), record.TooFewLeft)
}
