// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"crypto/elliptic"
	"crypto/sha256"
	"errors"
	"slices"
	"testing"
	"time"

	"valise/bulletin"
	"valise/identity"
	"valise/ledger"
	"valise/statement"
	"valise/wire"
)

// next signs the next bulletin, over these devices.
func (s *shelf) next(devices ...bulletin.DeviceStanding) (*bulletin.Bulletin, []byte) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.issue++
	now := s.clock().UTC().Truncate(time.Second)
	slices.SortFunc(devices, func(a, b bulletin.DeviceStanding) int { return a.ID.Compare(b.ID) })
	b := &bulletin.Bulletin{Number: s.issue, Time: now, Next: now.Add(time.Minute), Manifest: 1, Devices: devices}
	if s.olga != nil {
		b.Officers = append(b.Officers, bulletin.OfficerStanding{Key: s.olga.id, Address: s.olga.address, Role: identity.RoleOfficer, State: bulletin.Active})
	}
	if s.reach {
		head, err := ledger.HeadOf(int64(len(s.entries)), s)
		if err != nil {
			s.t.Fatal(err)
		}
		b.LedgerSize, b.LedgerRoot = head.N, head.Hash
	}
	raw, err := bulletin.Sign(context.Background(), s.announcer, b)
	if err != nil {
		s.t.Fatal(err)
	}
	return b, raw
}

// announce publishes the next bulletin: the gateway obeys it, and shows it.
func (s *shelf) announce(devices ...bulletin.DeviceStanding) {
	s.t.Helper()
	b, raw := s.next(devices...)
	set, err := s.w.gateway.Standings().WithBulletin(b)
	if err != nil {
		s.t.Fatal(err)
	}
	s.show(raw)
	s.w.gateway.SetStandings(set)
}

func (s *shelf) show(raw []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.announced = raw
}

func suspended(d *device) bulletin.DeviceStanding {
	return bulletin.DeviceStanding{ID: d.Self(), State: bulletin.Suspended, Since: time.Now().UTC().Truncate(time.Second), Reason: "statement"}
}

// officer is somebody who signs statements.
type officer struct {
	address identity.Address
	id      identity.DeviceID
	sign    func(statement.Body) []byte
	signAt  func(time.Time, statement.Body) []byte
}

func (s *shelf) officer(local string) *officer {
	t := s.t
	t.Helper()
	key := newKey(t, elliptic.P256())
	address, err := identity.ParseAddress(local + "@" + domain)
	if err != nil {
		t.Fatal(err)
	}
	p := identity.OfficerProfile{
		Address: address, PublicKey: key.Public(), Role: identity.RoleOfficer, Tier: identity.TierHardware, EvidenceHash: [32]byte{1}, PolicyHash: [32]byte{2},
		Serial: serial(), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(24 * time.Hour),
	}
	template, err := p.Template()
	leaf := issue(t, template, err, s.w.issuer, key.Public(), s.w.issuerKey)
	id, err := identity.DeviceIDOf(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	signAt := func(at time.Time, b statement.Body) []byte {
		now := at.UTC().Truncate(time.Second)
		head := statement.Head{Authority: sha256.Sum256(s.w.root.Raw), ID: statement.NewID(), Time: now, Expires: now.Add(time.Hour)}
		raw, err := statement.Sign(context.Background(), key, [][]byte{leaf.Raw, s.w.issuer.Raw}, head, b)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	s.olga = &officer{address: address, id: id, signAt: signAt, sign: func(b statement.Body) []byte { return signAt(time.Now(), b) }}
	return s.olga
}

// trio is a conversation of three, in which each has spoken.
func trio(t *testing.T) (*world, *shelf, [3]*device, ConversationID) {
	t.Helper()
	w, s := ministry(t)
	s.announce()
	alice, bob, carol := w.device("alice").reachable(), w.device("bob").reachable(), w.device("carol").reachable()
	id, err := alice.Start(context.Background(), "Group", []identity.Address{bob.address, carol.address})
	if err != nil {
		t.Fatal(err)
	}
	alice.says(id, "one")
	bob.gets("one")
	carol.gets("one")
	bob.says(id, "two")
	carol.gets("two")
	w.quiet()
	return w, s, [3]*device{alice, bob, carol}, id
}

// removals are a device's events of removals, by reason.
func (d *device) removals() (reasons []string) {
	for _, ev := range d.all() {
		if ev.Kind == EventRemoved {
			reasons = append(reasons, ev.Reason)
		}
	}
	return reasons
}

func (d *device) epochOf(id ConversationID) uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	g, err := d.group(d.conversations[id].Group)
	if err != nil {
		return 0
	}
	return g.Epoch()
}

// A suspended device is removed before anything more is said, visibly to those who stay.
// It reads nothing that was sent after, not even when it is resumed, until it is added
// anew.
func TestSuspendedMemberIsRemoved(t *testing.T) {
	_, s, d, id := trio(t)
	alice, bob, carol := d[0], d[1], d[2]
	s.announce(suspended(carol))
	alice.says(id, "after")
	bob.gets("after")
	for _, d := range []*device{alice, bob} {
		if got := d.removals(); !slices.Equal(got, []string{"device_suspended"}) {
			t.Errorf("%s shows removals %q", d.address, got)
		}
	}
	removed, said := -1, -1
	for i, ev := range bob.all() {
		switch {
		case ev.Kind == EventRemoved:
			removed = i
		case ev.Text == "after":
			said = i
		}
	}
	if removed < 0 || said < removed {
		t.Errorf("bob saw the removal at %d and the message at %d", removed, said)
	}
	s.announce()
	carol.restart()
	carol.until("learns that it is out", func() bool {
		return slices.ContainsFunc(carol.all(), func(ev Event) bool { return ev.Kind == EventLeft })
	})
	if got := carol.texts(); count(got, "after") != 0 {
		t.Errorf("carol read %q", got)
	}
	if err := alice.Add(context.Background(), id, carol.address); err != nil {
		t.Fatal(err)
	}
	alice.says(id, "back")
	carol.gets("back")
	if got := carol.texts(); count(got, "after") != 0 {
		t.Errorf("back in the group, carol read %q", got)
	}
	for _, ev := range carol.all() {
		if ev.Kind == EventLost {
			t.Errorf("carol misses message %d, which was not for her", ev.Sequence)
		}
	}
}

// Nobody has to write for it: the member whom the gateway asks makes the removal, one of
// them, in one commit.
func TestLeaseHolderRemoves(t *testing.T) {
	_, s, d, id := trio(t)
	alice, bob, carol := d[0], d[1], d[2]
	before := alice.epochOf(id)
	s.announce(suspended(carol))
	for _, d := range []*device{alice, bob} {
		d.until("sees the removal", func() bool { return len(d.removals()) > 0 })
		if got := d.epochOf(id); got != before+1 {
			t.Errorf("%s is at epoch %d, one commit after %d was enough", d.address, got, before)
		}
	}
}

// What was typed while a removal was under way is kept through a kill, and sent once.
func TestMessagesWaitForTheRemoval(t *testing.T) {
	_, s, d, id := trio(t)
	alice, bob, carol := d[0], d[1], d[2]
	alice.setCrash(func(point string) error {
		if point == "submit" {
			return errKilled
		}
		return nil
	})
	b, raw := s.next(suspended(carol))
	s.show(raw)
	set, err := s.w.gateway.Standings().WithBulletin(b)
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	var ids []MessageID
	for _, text := range []string{"three", "four"} {
		mine, err := alice.Send(ctx, Draft{Conversation: id, Text: text})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, mine)
	}
	s.w.gateway.SetStandings(set)
	alice.kill() // the engine has stopped by itself, before its first byte left
	alice.setCrash(nil)
	alice.start()
	for _, mine := range ids {
		if err := alice.Wait(ctx, mine); err != nil {
			t.Fatal(err)
		}
	}
	bob.gets("three", "four")
	if got := bob.texts(); slices.Index(got, "three") > slices.Index(got, "four") {
		t.Errorf("bob read %q", got)
	}
	if got := alice.removals(); !slices.Equal(got, []string{"device_suspended"}) {
		t.Errorf("alice shows removals %q", got)
	}
}

// The gateway's word alone removes nobody: the message waits until an officer's word is
// shown, and goes then.
func TestUnprovenRemovalIsNotMade(t *testing.T) {
	w, s, d, id := trio(t)
	alice, bob, carol := d[0], d[1], d[2]
	b, raw := s.next(suspended(carol))
	set, err := w.gateway.Standings().WithBulletin(b)
	if err != nil {
		t.Fatal(err)
	}
	forged := slices.Clone(raw)
	forged[len(forged)-8] ^= 1
	s.show(forged)
	w.gateway.SetStandings(set)
	mine, err := alice.Send(context.Background(), Draft{Conversation: id, Text: "held"})
	if err != nil {
		t.Fatal(err)
	}
	alice.until("is told that something is wrong", func() bool {
		return slices.ContainsFunc(alice.all(), func(ev Event) bool { return ev.Kind == EventRecord && ev.Reason == reasonBulletin })
	})
	if got := alice.removals(); len(got) > 0 {
		t.Errorf("alice removed somebody on the gateway's word: %q", got)
	}
	if o, err := alice.Outcome(context.Background(), mine); err != nil || o.State != OutcomeQueued {
		t.Errorf("the message is %+v, %v", o, err)
	}
	s.show(raw)
	if err := alice.Wait(context.Background(), mine); err != nil {
		t.Fatal(err)
	}
	bob.gets("held")
}

// An officer's statement is obeyed before any bulletin knows it; one that somebody else
// signed is not.
func TestStatementIsObeyedBeforeTheBulletin(t *testing.T) {
	w, s, d, id := trio(t)
	alice, bob, carol := d[0], d[1], d[2]
	olga := s.officer("olga")
	s.announce() // names olga
	raw := olga.sign(&statement.Suspension{
		Target: statement.Target{Kind: statement.TargetDevice, Device: carol.Self()}, Reason: "lost", Change: statement.NewID(),
	})
	st, err := statement.Verify(raw, w.trust(), sha256.Sum256(w.root.Raw), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	set, err := w.gateway.Standings().WithStatement(st, bulletin.Unrecorded)
	if err != nil {
		t.Fatal(err)
	}
	alice.mu.Lock()
	forged := slices.Clone(raw)
	forged[len(forged)-8] ^= 1
	if err := alice.takeOrder(context.Background(), alice.link, wire.Order{Statement: forged, Leaf: wire.Unrecorded}); err != nil {
		t.Error(err)
	}
	if !alice.standings.set.Device(carol.Self(), carol.address).Good() {
		t.Error("a forged statement is obeyed")
	}
	alice.mu.Unlock()
	w.gateway.SetStandings(set)
	alice.says(id, "after")
	bob.gets("after")
	if got := alice.removals(); !slices.Equal(got, []string{"device_suspended"}) {
		t.Errorf("alice shows removals %q", got)
	}
}

// A statement that is older than the bulletin held proves that it is not done with: the
// record holds it behind all that the bulletin was made from. A suspension that was ended
// removes nobody, whatever leaf a gateway makes up for it.
func TestOldStatementIsProven(t *testing.T) {
	_, s, d, id := trio(t)
	alice, bob, carol := d[0], d[1], d[2]
	olga := s.officer("olga")
	s.reach = true
	suspension := func() []byte {
		return olga.signAt(time.Now().Add(-10*time.Second), &statement.Suspension{
			Target: statement.Target{Kind: statement.TargetDevice, Device: carol.Self()}, Reason: "lost", Change: statement.NewID(),
		})
	}
	shown := func(raw []byte, leaf uint64) bool { // whether it is obeyed
		t.Helper()
		alice.mu.Lock()
		defer alice.mu.Unlock()
		if err := alice.takeOrder(context.Background(), alice.link, wire.Order{Statement: raw, Leaf: leaf}); err != nil {
			t.Fatal(err)
		}
		return !alice.standings.set.Device(carol.Self(), carol.address).Good()
	}
	leaves := func() uint64 { return uint64(len(s.entries)) }

	ended := suspension()
	s.record(ledger.KindStatement, ended)
	s.publish()
	was := leaves() - 1
	s.announce() // knows it, and lists nobody: it was ended
	alice.restart()
	alice.until("holds the bulletin", func() bool {
		alice.mu.Lock()
		defer alice.mu.Unlock()
		return alice.link != nil && alice.standings.set.Number() == s.issue
	})
	made := suspension()
	for name, o := range map[string]wire.Order{
		"ended, at its leaf":          {Statement: ended, Leaf: was},
		"ended, as if unrecorded":     {Statement: ended, Leaf: wire.Unrecorded},
		"ended, at a leaf made up":    {Statement: ended, Leaf: was + 100},
		"unrecorded":                  {Statement: made, Leaf: wire.Unrecorded},
		"recorded, says the gateway":  {Statement: made, Leaf: leaves()},
		"recorded, says it elsewhere": {Statement: made, Leaf: leaves() + 5},
	} {
		if shown(o.Statement, o.Leaf) {
			t.Fatalf("obeyed: %s", name)
		}
	}
	alice.says(id, "all of us")
	bob.gets("all of us")
	carol.gets("all of us")
	// Control: it is recorded, then proven; what was shown in vain is looked at again.
	s.record(ledger.KindStatement, made)
	if shown(made, leaves()-1) {
		t.Error("obeyed before a checkpoint covers it")
	}
	s.publish()
	if !shown(made, leaves()-1) {
		t.Error("a statement that the record holds behind the bulletin is not obeyed")
	}
	alice.says(id, "two of us")
	bob.gets("two of us")
	if got := alice.removals(); !slices.Equal(got, []string{"device_suspended"}) {
		t.Errorf("alice shows removals %q", got)
	}
}

// Bulletins only go forward, through restarts too: an older one and another one of the
// same number are refused, and somebody suspended is not let in by a gateway that has
// forgotten.
func TestBulletinRollback(t *testing.T) {
	w, s := ministry(t)
	alice, carol := w.device("alice").reachable(), w.device("carol").reachable()
	_, old := s.next()
	s.announce(suspended(carol))
	alice.restart()
	number := func() uint64 {
		alice.mu.Lock()
		defer alice.mu.Unlock()
		return alice.standings.set.Number()
	}
	alice.until("has the bulletin", func() bool { return number() == 2 })
	look := func(raw []byte) string {
		t.Helper()
		alice.mu.Lock()
		defer alice.mu.Unlock()
		reason, err := alice.takeBulletin(context.Background(), alice.link, raw)
		if err != nil {
			t.Fatal(err)
		}
		return reason
	}
	if got := look(old); got != reasonBulletinRollback {
		t.Errorf("an older bulletin: %q", got)
	}
	s.issue = 1
	_, other := s.next()
	if got := look(other); got != reasonBulletinFork {
		t.Errorf("another bulletin of the same number: %q", got)
	}
	if _, again := s.next(suspended(carol)); look(again) != "" || number() != 3 {
		t.Errorf("control: the next one is not taken: %d", number())
	}
	// The gateway forgets, and shows nothing newer.
	w.gateway.SetStandings(bulletin.NewSet())
	alice.kill()
	alice.start()
	alice.until("is online", func() bool { return alice.State().Name == StateOnline })
	if got := number(); got != 3 {
		t.Fatalf("after a restart alice holds bulletin %d", got)
	}
	bob := w.device("bob").reachable()
	id := alice.with(t, bob)
	alice.says(id, "hello")
	var barred *Barred
	if err := alice.Add(context.Background(), id, carol.address); !errors.As(err, &barred) || barred.Reason != "device_suspended" {
		t.Errorf("adding a suspended device: %v", err)
	}
	_, last := s.next()
	s.show(last)
	if got := look(last); got != "" {
		t.Fatal(got)
	}
	if err := alice.Add(context.Background(), id, carol.address); err != nil {
		t.Errorf("adding it when it is resumed: %v", err)
	}
}

// A message whose only reader was suspended is not sent to nobody: its sender is told.
func TestDesertedConversation(t *testing.T) {
	w, s := ministry(t)
	s.announce()
	alice, bob := w.device("alice").reachable(), w.device("bob").reachable()
	id := alice.with(t, bob)
	alice.says(id, "one")
	bob.gets("one")
	s.announce(suspended(bob))
	mine, err := alice.Send(context.Background(), Draft{Conversation: id, Text: "two"})
	if err != nil {
		t.Fatal(err)
	}
	var hint interface{ Hint() string }
	if err := alice.Wait(context.Background(), mine); err == nil || !errors.As(err, &hint) || hint.Hint() == "" {
		t.Errorf("a message to nobody: %v", err)
	}
	if got := alice.removals(); !slices.Equal(got, []string{"device_suspended"}) {
		t.Errorf("alice shows removals %q", got)
	}
	s.announce()
	bob.restart()
	bob.reachable()
	alice.says(id, "three") // he is taken back for it
	bob.gets("three")
	if got := bob.texts(); count(got, "two") != 0 {
		t.Errorf("bob read %q", got)
	}
}

// A device that knows better than its gateway removes whom it knows to be barred before it
// sends, though nobody asks it to.
func TestClearsBeforeItSends(t *testing.T) {
	_, s, d, id := trio(t)
	alice, bob, carol := d[0], d[1], d[2]
	_, raw := s.next(suspended(carol))
	alice.mu.Lock()
	reason, err := alice.takeBulletin(context.Background(), alice.link, raw)
	alice.mu.Unlock()
	if reason != "" || err != nil {
		t.Fatal(reason, err)
	}
	alice.says(id, "after")
	bob.gets("after")
	if got := alice.removals(); !slices.Equal(got, []string{"device_suspended"}) {
		t.Errorf("alice shows removals %q", got)
	}
	carol.until("learns that it is out", func() bool {
		return slices.ContainsFunc(carol.all(), func(ev Event) bool { return ev.Kind == EventLeft })
	})
	if got := carol.texts(); count(got, "after") != 0 {
		t.Errorf("carol read %q", got)
	}
}
