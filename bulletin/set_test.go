// SPDX-License-Identifier: Apache-2.0

package bulletin_test

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"valise/bulletin"
	"valise/identity"
	"valise/internal/testenv/paper"
	"valise/statement"
)

// A scene has two officers whom the bulletins know, and a device of alice's.
type scene struct {
	*paper.Authority
	t          testing.TB
	olga, otto *paper.Officer
	device     *identity.Device
	set        *bulletin.Set
}

func newScene(t testing.TB) *scene {
	t.Helper()
	a := paper.New(t, domain)
	return &scene{
		Authority: a, t: t, olga: a.Officer("olga", identity.RoleOfficer), otto: a.Officer("otto", identity.RoleOfficer),
		device: a.Device("alice", paper.NewKey(t)), set: bulletin.NewSet(),
	}
}

// bulletin makes one that knows both officers and so many leaves.
func (s *scene) bulletin(number uint64, leaves int64, changes ...func(*bulletin.Bulletin)) *bulletin.Bulletin {
	b := s.Bulletin(number)
	b.LedgerSize, b.LedgerRoot = leaves, [32]byte{byte(leaves)}
	for _, o := range []*paper.Officer{s.olga, s.otto} {
		b.Officers = append(b.Officers, bulletin.OfficerStanding{Key: o.ID, Address: o.Address, Role: o.Role, State: bulletin.Active})
	}
	if b.Officers[0].Key.Compare(b.Officers[1].Key) > 0 {
		b.Officers[0], b.Officers[1] = b.Officers[1], b.Officers[0]
	}
	for _, change := range changes {
		change(b)
	}
	return b
}

func (s *scene) take(b *bulletin.Bulletin) {
	s.t.Helper()
	next, err := s.set.WithBulletin(b)
	if err != nil {
		s.t.Fatal(err)
	}
	s.set = next
}

func (s *scene) see(st *statement.Statement, leaf int64) {
	s.t.Helper()
	next, err := s.set.WithStatement(st, leaf)
	if err != nil {
		s.t.Fatal(err)
	}
	s.set = next
}

func (s *scene) standing() bulletin.Standing { return s.set.Device(s.device.ID, s.device.Address) }

func (s *scene) want(what string, state bulletin.State) {
	s.t.Helper()
	if got := s.standing(); got.State != state || got.Good() != (state == bulletin.Active) {
		s.t.Errorf("%s: %+v, want %s", what, got, state)
	}
}

func (s *scene) suspension() *statement.Suspension {
	return &statement.Suspension{
		Target: statement.Target{Kind: statement.TargetDevice, Device: s.device.ID}, Reason: "lost", Change: statement.NewID(),
	}
}

func suspended(s *scene) func(*bulletin.Bulletin) {
	return func(b *bulletin.Bulletin) {
		b.Devices = []bulletin.DeviceStanding{{ID: s.device.ID, State: bulletin.Suspended, Since: b.Time}}
	}
}

// A suspension counts before any bulletin knows it; one that does not know it
// changes nothing; one that knows it decides.
func TestStatementBeforeBulletin(t *testing.T) {
	s := newScene(t)
	s.want("at first", bulletin.Active)
	s.take(s.bulletin(1, 10))
	st := s.olga.Verified(s.suspension())
	s.see(st, bulletin.Unrecorded)
	s.want("seen by hand", bulletin.Suspended)
	if s.standing().Confirmed {
		t.Error("confirmed by no bulletin")
	}
	s.take(s.bulletin(2, 11))
	s.want("a bulletin that does not know it", bulletin.Suspended)
	s.see(st, 11)
	s.take(s.bulletin(3, 11))
	s.want("a bulletin of the leaf before it", bulletin.Suspended)
	s.take(s.bulletin(4, 12, suspended(s)))
	s.want("a bulletin that knows it", bulletin.Suspended)
	if !s.standing().Confirmed || s.set.Pending() != 0 {
		t.Errorf("%+v, %d pending", s.standing(), s.set.Pending())
	}
	s.take(s.bulletin(5, 14))
	s.want("a bulletin after the resumption", bulletin.Active)
	s.see(st, bulletin.Unrecorded) // somebody imports the old file again
	s.want("an old file", bulletin.Suspended)
	s.see(st, 11)
	s.want("the old file's place", bulletin.Active)
}

// Nothing but a bulletin that knows two officers' resumptions brings a device
// back whose suspension never reached the record.
func TestResumption(t *testing.T) {
	s := newScene(t)
	s.take(s.bulletin(1, 10))
	s.see(s.olga.Verified(s.suspension()), bulletin.Unrecorded)
	body := &statement.Resumption{
		Target: statement.Target{Kind: statement.TargetDevice, Device: s.device.ID}, Reason: "found", Change: statement.NewID(),
	}
	first, second := s.olga.Verified(body), s.otto.Verified(body)
	s.see(first, bulletin.Unrecorded)
	s.see(second, bulletin.Unrecorded)
	s.want("both, by hand", bulletin.Suspended)
	s.take(s.bulletin(2, 11))
	s.want("a bulletin without them", bulletin.Suspended)
	s.see(first, 11)
	s.take(s.bulletin(3, 12))
	s.want("a bulletin that knows one", bulletin.Suspended)
	s.see(first, 11)
	s.see(second, 12)
	s.want("both are recorded", bulletin.Suspended)
	s.take(s.bulletin(4, 13))
	s.want("a bulletin that knows both", bulletin.Active)
}

// A resumption of something else, by one officer twice, or from before the
// suspension ends nothing.
func TestResumptionOfAnother(t *testing.T) {
	target := func(s *scene) statement.Target {
		return statement.Target{Kind: statement.TargetDevice, Device: s.device.ID}
	}
	for name, test := range map[string]struct {
		target func(*scene) statement.Target
		second func(*scene) *paper.Officer
		early  time.Duration
		want   bulletin.State
	}{
		"honest control": {target, func(s *scene) *paper.Officer { return s.otto }, 0, bulletin.Active},
		"one twice":      {target, func(s *scene) *paper.Officer { return s.olga }, 0, bulletin.Suspended},
		"from before":    {target, func(s *scene) *paper.Officer { return s.otto }, time.Minute, bulletin.Suspended},
		"the person only": {func(s *scene) statement.Target {
			return statement.Target{Kind: statement.TargetPerson, Address: s.device.Address}
		}, func(s *scene) *paper.Officer { return s.otto }, 0, bulletin.Suspended},
	} {
		s := newScene(t)
		s.take(s.bulletin(1, 10))
		s.see(s.olga.Verified(s.suspension()), bulletin.Unrecorded)
		body := &statement.Resumption{Target: test.target(s), Reason: "found", Change: statement.NewID()}
		for i, o := range []*paper.Officer{s.olga, test.second(s)} {
			st, err := statement.Verify(o.SignAt(body, time.Now().Add(-test.early)), s.Trust(), s.RootHash(), time.Now())
			if err != nil {
				t.Fatal(err)
			}
			s.see(st, int64(10+i))
		}
		s.take(s.bulletin(2, 20))
		s.want(name, test.want)
	}
}

// What each kind of statement does at once, and to whom it does not.
func TestStatementKinds(t *testing.T) {
	other := paper.Must(t, identity.DeviceID{7}, nil)
	for name, test := range map[string]struct {
		body   func(*scene) statement.Body
		mine   bulletin.State // alice's device
		theirs bulletin.State // another device of alice's
	}{
		"suspension of a device": {func(s *scene) statement.Body { return s.suspension() }, bulletin.Suspended, bulletin.Active},
		"suspension of a person": {func(s *scene) statement.Body {
			return &statement.Suspension{Target: statement.Target{Kind: statement.TargetPerson, Address: s.device.Address}, Reason: "gone", Change: statement.NewID()}
		}, bulletin.Suspended, bulletin.Suspended},
		"suspension of a card": {func(s *scene) statement.Body {
			return &statement.Suspension{Target: statement.Target{Kind: statement.TargetSerial, Serial: s.device.ID.String(), Devices: []identity.DeviceID{s.device.ID}}, Reason: "lost", Change: statement.NewID()}
		}, bulletin.Suspended, bulletin.Active},
		"suspension of an officer": {func(s *scene) statement.Body {
			return &statement.Suspension{Target: statement.Target{Kind: statement.TargetOfficer, Address: s.device.Address}, Reason: "gone", Change: statement.NewID()}
		}, bulletin.Active, bulletin.Active},
		"revocation": {func(s *scene) statement.Body {
			return &statement.Revocation{Target: statement.Target{Kind: statement.TargetDevice, Device: s.device.ID}, Reason: "stolen", Change: statement.NewID()}
		}, bulletin.Revoked, bulletin.Active},
		"removal": {func(s *scene) statement.Body {
			return &statement.Removal{Address: s.device.Address, Previous: [32]byte{1}, Reason: "left", Change: statement.NewID()}
		}, bulletin.Removed, bulletin.Removed},
		"invitation": {func(s *scene) statement.Body {
			return &statement.Invitation{Address: s.device.Address, Key: "k"}
		}, bulletin.Active, bulletin.Active},
	} {
		s := newScene(t)
		s.take(s.bulletin(1, 10))
		s.see(s.olga.Verified(test.body(s)), bulletin.Unrecorded)
		s.want(name, test.mine)
		if got := s.set.Device(other, s.device.Address); got.State != test.theirs {
			t.Errorf("%s: another device is %s, want %s", name, got.State, test.theirs)
		}
		if got := s.set.Device(identity.DeviceID{9}, s.Address("bob")); !got.Good() {
			t.Errorf("%s: bob is %s", name, got.State)
		}
	}
}

// A statement of somebody who is no officer, or no longer one, is refused.
func TestStatementSigner(t *testing.T) {
	s := newScene(t)
	s.take(s.bulletin(1, 10))
	stranger := s.Officer("olaf", identity.RoleOfficer) // certified, not in the bulletin
	refused := func(what string, st *statement.Statement) {
		t.Helper()
		if next, err := s.set.WithStatement(st, bulletin.Unrecorded); !errors.Is(err, bulletin.ErrRefused) || next != s.set {
			t.Errorf("%s: %v", what, err)
		}
	}
	refused("a stranger", stranger.Verified(s.suspension()))
	unverified, err := statement.Parse(s.olga.Sign(s.suspension()))
	if err != nil {
		t.Fatal(err)
	}
	refused("not verified", unverified)
	s.see(s.otto.Verified(&statement.Suspension{
		Target: statement.Target{Kind: statement.TargetOfficer, Address: s.olga.Address}, Reason: "under inquiry", Change: statement.NewID(),
	}), bulletin.Unrecorded)
	if got := s.set.Officer(s.olga.Address, s.olga.ID, s.olga.Role); got != bulletin.Suspended {
		t.Errorf("olga is %s", got)
	}
	refused("a suspended officer", s.olga.Verified(s.suspension()))
	s.want("after refusals", bulletin.Active)
	s.see(s.otto.Verified(s.suspension()), bulletin.Unrecorded)
	s.want("honest control", bulletin.Suspended)
	// Before the first bulletin the certificate speaks.
	if _, err := bulletin.NewSet().WithStatement(stranger.Verified(s.suspension()), bulletin.Unrecorded); err != nil {
		t.Errorf("without a bulletin: %v", err)
	}
}

// An officer is out, until a bulletin says so, by whatever names them.
func TestOfficerOut(t *testing.T) {
	for name, body := range map[string]func(s *scene) statement.Body{
		"officer": func(s *scene) statement.Body {
			return &statement.Revocation{Target: statement.Target{Kind: statement.TargetOfficer, Address: s.olga.Address}, Reason: "bribed", Change: statement.NewID()}
		},
		"person": func(s *scene) statement.Body {
			return &statement.Suspension{Target: statement.Target{Kind: statement.TargetPerson, Address: s.olga.Address}, Reason: "away", Change: statement.NewID()}
		},
		"key": func(s *scene) statement.Body {
			return &statement.Suspension{Target: statement.Target{Kind: statement.TargetDevice, Device: s.olga.ID}, Reason: "lost", Change: statement.NewID()}
		},
		"card": func(s *scene) statement.Body {
			target := statement.Target{Kind: statement.TargetSerial, Serial: identity.SerialHash("yubico-piv", 7), Devices: []identity.DeviceID{s.olga.ID}}
			return &statement.Revocation{Target: target, Reason: "lost", Change: statement.NewID()}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			s.take(s.bulletin(1, 10))
			if got := s.set.Officer(s.olga.Address, s.olga.ID, s.olga.Role); got != bulletin.Active {
				t.Errorf("before: %s", got)
			}
			s.see(s.otto.Verified(body(s)), bulletin.Unrecorded)
			if got := s.set.Officer(s.olga.Address, s.olga.ID, s.olga.Role); got != bulletin.Suspended {
				t.Errorf("olga is %s", got)
			}
			if got := s.set.Officer(s.otto.Address, s.otto.ID, s.otto.Role); got != bulletin.Active {
				t.Errorf("otto is %s", got)
			}
		})
	}
}

// Numbers go up; record, time and manifest go with them.
func TestNewer(t *testing.T) {
	s := newScene(t)
	held := s.bulletin(5, 10)
	held.Manifest = 2
	s.take(held)
	for name, test := range map[string]struct {
		change func(*bulletin.Bulletin)
		want   error
	}{
		"honest control":      {func(*bulletin.Bulletin) {}, nil},
		"a longer record":     {func(b *bulletin.Bulletin) { b.LedgerSize = 11; b.LedgerRoot = [32]byte{11} }, nil},
		"a lower number":      {func(b *bulletin.Bulletin) { b.Number = 4 }, bulletin.ErrOld},
		"the same":            {func(b *bulletin.Bulletin) { *b = *held }, bulletin.ErrOld},
		"its number again":    {func(b *bulletin.Bulletin) { *b = *held; suspended(s)(b) }, bulletin.ErrFork},
		"a shorter record":    {func(b *bulletin.Bulletin) { b.LedgerSize = 9 }, bulletin.ErrFork},
		"another record":      {func(b *bulletin.Bulletin) { b.LedgerRoot = [32]byte{99} }, bulletin.ErrFork},
		"back in time":        {func(b *bulletin.Bulletin) { b.Time = b.Time.Add(-time.Minute) }, bulletin.ErrFork},
		"back to manifest 1":  {func(b *bulletin.Bulletin) { b.Manifest = 1 }, bulletin.ErrFork},
		"a jump over numbers": {func(b *bulletin.Bulletin) { b.Number = 50 }, nil},
	} {
		b := s.bulletin(6, 10)
		b.Time, b.Next, b.Manifest = held.Time, held.Next, 2
		test.change(b)
		next, err := s.set.WithBulletin(b)
		if !errors.Is(err, test.want) || (err != nil) != (next == s.set) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
}

// A lowered clearance counts at once, and a statement alone raises nothing.
func TestCeiling(t *testing.T) {
	s := newScene(t)
	s.device.Clearance = clearance(t, 1, 2, 3)
	roster := func(classes ...int) *statement.Statement {
		return s.olga.Verified(&statement.Roster{Change: statement.NewID(), Address: s.device.Address, Name: "Alice", Clearance: clearance(t, classes...)})
	}
	want := func(what string, classes ...int) {
		t.Helper()
		if got := s.set.Clearance(s.device); !reflect.DeepEqual(got.Classes(), classes) {
			t.Errorf("%s: %v, want %v", what, got.Classes(), classes)
		}
	}
	s.take(s.bulletin(1, 10))
	if _, limited := s.set.Ceiling(s.device.Address); limited {
		t.Error("limited without a reason")
	}
	want("the certificate's", 1, 2, 3)
	s.see(roster(1, 2), 10)
	want("lowered by a statement", 1, 2)
	s.see(roster(1, 2, 3, 4), 11)
	want("raised by a statement", 1, 2)
	s.take(s.bulletin(2, 12, func(b *bulletin.Bulletin) {
		b.People = []bulletin.PersonStanding{{Address: s.device.Address, State: bulletin.Active, Since: b.Time, Ceiling: clearance(t, 1)}}
	}))
	want("lowered by a bulletin", 1)
	if ceiling, limited := s.set.Ceiling(s.device.Address); !limited || !reflect.DeepEqual(ceiling.Classes(), []int{1}) {
		t.Errorf("ceiling %v, %t", ceiling, limited)
	}
	s.take(s.bulletin(3, 12, func(b *bulletin.Bulletin) {
		b.People = []bulletin.PersonStanding{{Address: s.device.Address, State: bulletin.Active, Since: b.Time}}
	}))
	if got := s.set.Clearance(s.device); got != nil {
		t.Errorf("taken away: %v", got)
	}
}

func TestStale(t *testing.T) {
	s := newScene(t)
	now := time.Now().UTC().Truncate(time.Second)
	if got := s.set.Stale(now, time.Minute); got != bulletin.Missing {
		t.Errorf("none: %v", got)
	}
	s.take(s.bulletin(1, 10, func(b *bulletin.Bulletin) { b.Time, b.Next = now, now.Add(30*time.Second) }))
	for after, want := range map[time.Duration]bulletin.Staleness{
		0: bulletin.Fresh, 30 * time.Second: bulletin.Fresh, 31 * time.Second: bulletin.Late,
		90 * time.Second: bulletin.Late, 91 * time.Second: bulletin.Stale,
	} {
		if got := s.set.Stale(now.Add(after), time.Minute); got != want {
			t.Errorf("after %v: %v, want %v", after, got, want)
		}
	}
}
