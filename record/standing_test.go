// SPDX-License-Identifier: Apache-2.0

package record_test

import (
	"encoding/hex"
	"testing"
	"time"

	"valise/identity"
	"valise/ledger"
	"valise/record"
	"valise/statement"
)

// One officer suspends, two resume; what is suspended is issued nothing.
func TestSuspension(t *testing.T) {
	serial := identity.SerialHash("yubico-piv", 12345)
	root := hash("a vendor's root")
	for name, c := range map[string]struct {
		target func(t statement.Template) statement.Target
		want   record.Reason
	}{
		"device": {func(t statement.Template) statement.Target {
			return statement.Target{Kind: statement.TargetDevice, Device: t.Device}
		}, record.DeviceSuspended},
		"person": {func(t statement.Template) statement.Target {
			return statement.Target{Kind: statement.TargetPerson, Address: t.Address}
		}, record.PersonSuspended},
		"card": {func(t statement.Template) statement.Target {
			return statement.Target{Kind: statement.TargetSerial, Serial: serial, Devices: []identity.DeviceID{t.Device}}
		}, record.CardSuspended},
		"root": {func(t statement.Template) statement.Target {
			return statement.Target{Kind: statement.TargetRoot, Root: root, Devices: []identity.DeviceID{t.Device}}
		}, record.RootSuspended},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			template := d.device()
			target := c.target(template)
			d.ok(d.say(d.Olga, d.suspension(target)))
			if got := d.state.Device(template.Device); got.State != record.Suspended {
				t.Errorf("got %+v", got)
			}
			d.want(d.certify(d.tbs(template)), c.want)
			if name == "card" || name == "root" { // another key of the same card
				d.want(reason(t, d.state.Hardware(serial, hex.EncodeToString(root[:]))), c.want)
			}
			b := &statement.Resumption{Target: target, Reason: "found", Change: statement.NewID()}
			d.ok(d.say(d.Olga, b))
			d.want(d.certify(d.tbs(template)), c.want)
			d.ok(d.say(d.Oscar, b))
			if got := d.state.Device(template.Device); got.State != "" {
				t.Errorf("got %+v", got)
			}
			if err := d.state.Hardware(serial, hex.EncodeToString(root[:])); err != nil {
				t.Error(err)
			}
			d.ok(d.certify(d.tbs(template)))
			again := &statement.Resumption{Target: target, Reason: "found", Change: statement.NewID()}
			d.want(d.say(d.Olga, again), record.NotSuspended)
		})
	}
}

// A resumption ends the suspension that its officers knew, and no later one: what was
// signed or recorded before counts no more.
func TestResumptionOfAnEarlierSuspension(t *testing.T) {
	for name, c := range map[string]struct {
		before bool // the first officer's is recorded before the second suspension
		signed time.Duration
		want   record.Reason
	}{
		"control":         {false, 2 * time.Minute, ""},
		"signed before":   {false, 0, record.StaleChange},
		"recorded before": {true, 0, ""}, // it is in the record, and does not count
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			template := d.device()
			target := statement.Target{Kind: statement.TargetDevice, Device: template.Device}
			held := &statement.Resumption{Target: target, Reason: "found", Change: statement.NewID()}
			d.ok(d.say(d.Olga, d.suspension(target)))
			early := d.Olga.Sign(t, d.now.Add(c.signed), held)
			if c.before {
				d.ok(d.say(d.Olga, held))
			}
			found := &statement.Resumption{Target: target, Reason: "found", Change: statement.NewID()}
			d.ok(d.say(d.Oscar, found), d.say(d.Otto, found))
			d.now = d.now.Add(time.Minute)
			d.ok(d.say(d.Otto, d.suspension(target)))
			d.now = d.now.Add(time.Minute)
			if !c.before {
				_, err := d.add(ledger.KindStatement, early)
				d.want(reason(t, err), c.want)
			}
			d.ok(d.say(d.Oscar, held))
			resumed := d.state.Device(template.Device).State == ""
			if honest := name == "control"; resumed != honest {
				t.Errorf("resumed: %t, want %t", resumed, honest)
			}
			if waiting := d.state.Waiting(d.now); !resumed && (len(waiting) != 1 || len(waiting[0].Signatures) != 1) {
				t.Errorf("waiting: %+v", waiting)
			}
		})
	}
}

func TestRevocationIsForEver(t *testing.T) {
	d := newDesk(t)
	template := d.device()
	target := statement.Target{Kind: statement.TargetDevice, Device: template.Device}
	d.ok(d.say(d.Olga, &statement.Revocation{Target: target, Reason: "lost", Change: statement.NewID()}))
	d.ok(d.say(d.Olga, d.suspension(target)))
	if got := d.state.Device(template.Device); got.State != record.Revoked || got.Reason != "lost" {
		t.Errorf("got %+v", got)
	}
	d.want(d.say(d.Olga, &statement.Resumption{Target: target, Reason: "found", Change: statement.NewID()}), record.NotSuspended)
	b := d.approval("request-2", template)
	d.want(d.say(d.Olga, b), record.DeviceRevoked)
	d.want(d.certify(d.tbs(template)), record.DeviceRevoked)
	other := d.device() // the person may have another
	if got := d.state.Device(other.Device); got.State != "" {
		t.Errorf("got %+v", got)
	}
}

func TestWhoSuspends(t *testing.T) {
	d := newDesk(t)
	template := d.device()
	device := statement.Target{Kind: statement.TargetDevice, Device: template.Device}
	d.want(d.say(d.Anna, d.suspension(device)), record.WrongRole)
	d.want(d.say(d.Aude, d.suspension(device)), record.WrongRole)
	officer := statement.Target{Kind: statement.TargetOfficer, Address: d.Oscar.Address}
	d.ok(d.say(d.Anna, d.suspension(officer)))
	d.want(d.say(d.Oscar, d.suspension(device)), record.NotInStanding)
	d.ok(d.say(d.Olga, d.suspension(device)))
	b := &statement.Resumption{Target: officer, Reason: "found", Change: statement.NewID()}
	d.ok(d.say(d.Olga, b), d.say(d.Otto, b))
	d.ok(d.say(d.Oscar, &statement.Resumption{Target: device, Reason: "found", Change: statement.NewID()}))
}

// Nobody resumes a device of their own.
func TestOwnDeviceIsNotResumed(t *testing.T) {
	d := newDesk(t)
	line := d.line("oscar", nil)
	d.ok(d.say(d.Olga, line), d.say(d.Otto, line))
	template := d.Template(t, "oscar", nil)
	b := d.approval("request-1", template)
	d.ok(d.say(d.Olga, b), d.say(d.Otto, b), d.certify(d.tbs(template)))
	target := statement.Target{Kind: statement.TargetDevice, Device: template.Device}
	d.ok(d.say(d.Olga, d.suspension(target)))
	resumption := &statement.Resumption{Target: target, Reason: "found", Change: statement.NewID()}
	d.want(d.say(d.Oscar, resumption), record.OwnMatter)
	d.ok(d.say(d.Olga, resumption), d.say(d.Otto, resumption))
}

// A person who was removed has no device in good standing.
func TestRemovedPerson(t *testing.T) {
	d := newDesk(t)
	template := d.device()
	d.ok(d.say(d.Olga, &statement.Removal{Change: statement.NewID(), Address: template.Address, Previous: d.state.Previous(template.Address), Reason: "left"}))
	if got := d.state.Device(template.Device); got.State != record.Revoked || got.Reason != string(record.NotOnRoster) {
		t.Errorf("got %+v", got)
	}
	d.want(d.certify(d.tbs(template)), record.NotOnRoster)
}

// A device that is named after its card was suspended is added to the list.
func TestSuspensionGrows(t *testing.T) {
	d := newDesk(t)
	first, second := d.device(), d.device()
	target := statement.Target{Kind: statement.TargetSerial, Serial: identity.SerialHash("yubico-piv", 1), Devices: []identity.DeviceID{first.Device}}
	d.ok(d.say(d.Olga, d.suspension(target)))
	target.Devices = []identity.DeviceID{second.Device}
	d.ok(d.say(d.Otto, d.suspension(target)))
	for _, id := range []identity.DeviceID{first.Device, second.Device} {
		if d.state.Device(id).State != record.Suspended {
			t.Errorf("%s is active", id)
		}
	}
	if all := d.state.Standings(); len(all) != 1 || len(all[0].Target.Devices) != 2 || all[0].By != d.Olga.Address && all[0].By != d.Otto.Address {
		t.Errorf("got %+v", all)
	}
}
