// SPDX-License-Identifier: Apache-2.0

package endtoend

import (
	"slices"
	"testing"

	"valise/internal/stage"
)

// at returns where the first event for which want holds stands in what a person received,
// -1 if nowhere.
func (p *person) at(want func(event) bool) int {
	p.w.t.Helper()
	list, err := p.events()
	if err != nil {
		p.w.t.Fatal(err)
	}
	return slices.IndexFunc(list, want)
}

// An officer suspends carol's device, which is in a group of three. The next message
// reaches the one who stays only after the commit that removes it, by real cards; the
// suspended device reads nothing that was said after, also when it is resumed, and comes
// back by being added anew.
func TestSuspendedInGroupOfThree(t *testing.T) {
	t.Parallel()
	m := newMinistry(t, stage.Config{}, "alice", "bob", "carol")
	alice, bob, carol := m.people[0], m.people[1], m.people[2]
	for _, p := range m.people {
		if err := p.follow(); err != nil {
			t.Fatal(err)
		}
	}
	alice.must("send", "--name", "Council", bob.Address, carol.Address, "before")
	bob.has("before")
	carol.has("before")

	device := m.device(carol.Address)
	from := m.auditSize()
	if _, err := m.officers[0].Sign(m.ctx, "suspend", "--device", device, "--reason", "left in a taxi"); err != nil {
		t.Fatal(err)
	}
	m.awaitAudit("device_suspended", from)
	alice.must("send", "-c", "Council", "after")
	bob.has("after")
	// Alice's commit may reach bob before his device has asked why: then it gives no reason.
	out := func(e event) bool {
		return e.Kind == "removed" && (e.Reason == "device_suspended" || e.Reason == "") && e.Members[0].Device == device
	}
	removed := bob.at(out)
	said := bob.at(func(e event) bool { return e.Text == "after" })
	if removed < 0 && alice.at(out) >= 0 {
		removed = 0 // bob was asked to remove it, and shows nobody what he did himself
	}
	if removed < 0 || said < removed {
		t.Errorf("bob saw the removal at %d and the message at %d", removed, said)
	}

	if _, err := m.officers[0].Sign(m.ctx, "resume", "--device", device, "--reason", "found"); err != nil {
		t.Fatal(err)
	}
	if err := m.officers[1].Agree(m.ctx); err != nil {
		t.Fatal(err)
	}
	if err := carol.Unlock(m.ctx); err != nil {
		t.Fatal(err)
	}
	m.until("carol to learn that she is out", func() (bool, error) {
		return carol.at(func(e event) bool { return e.Kind == "left" }) >= 0, nil
	})
	m.until("alice to add carol again", func() (bool, error) {
		_, err := alice.Run(m.ctx, "add", "Council", carol.Address)
		return err == nil, nil
	})
	alice.must("send", "-c", "Council", "welcome back")
	carol.has("welcome back")
	if carol.at(func(e event) bool { return e.Text == "after" }) >= 0 {
		t.Error("carol read what was said while she was suspended")
	}
	if carol.at(func(e event) bool { return e.Kind == "lost" }) >= 0 {
		t.Error("carol misses what was not for her")
	}
}
