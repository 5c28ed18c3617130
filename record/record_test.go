// SPDX-License-Identifier: Apache-2.0

package record_test

import (
	"crypto/sha256"
	"testing"
	"time"

	"valise/enroll/enrolltest"
	"valise/identity"
	"valise/ledger"
	"valise/record"
	"valise/statement"
)

const (
	day  = 24 * time.Hour
	week = 7 * day
)

// A desk is a ministry with its record, to which a test adds leaf by leaf.
type desk struct {
	*enrolltest.Ministry
	state *record.State
	items []ledger.Item
	now   time.Time
	t     testing.TB
}

// newDesk returns a desk with alice on the roster, cleared for classes 1 to 3.
func newDesk(t testing.TB) *desk {
	t.Helper()
	d := empty(t, enrolltest.MinistryConfig{})
	d.enroll("alice", enrolltest.Clearance(t, 1, 2, 3))
	return d
}

func empty(t testing.TB, cfg enrolltest.MinistryConfig) *desk {
	t.Helper()
	d := &desk{Ministry: enrolltest.NewMinistry(t, cfg), t: t}
	d.now = d.Config.Now.UTC().Truncate(time.Second)
	d.state = record.New(d.Root)
	if err := d.Open(func(k ledger.Kind, p []byte) (int64, error) { return d.add(k, p) }); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *desk) item(k ledger.Kind, payload []byte) ledger.Item {
	d.t.Helper()
	entry, err := ledger.NewEntry(k, payload, d.now)
	if err != nil {
		d.t.Fatal(err)
	}
	return ledger.Item{Index: d.state.Size(), Entry: entry, Payload: payload}
}

func (d *desk) add(k ledger.Kind, payload []byte) (int64, error) {
	d.t.Helper()
	i := d.item(k, payload)
	err := d.state.Apply(i)
	if err == nil {
		d.items = append(d.items, i)
	}
	return i.Index, err
}

// say records a statement and returns what was wrong with it.
func (d *desk) say(o *enrolltest.Officer, b statement.Body) record.Reason {
	d.t.Helper()
	_, err := d.add(ledger.KindStatement, o.Sign(d.t, d.now, b))
	return reason(d.t, err)
}

func (d *desk) certify(tbs []byte) record.Reason {
	d.t.Helper()
	_, err := d.add(ledger.KindIssuance, tbs)
	return reason(d.t, err)
}

func reason(t testing.TB, err error) record.Reason {
	t.Helper()
	if err != nil && record.ReasonOf(err) == "" {
		t.Fatal(err)
	}
	return record.ReasonOf(err)
}

// must fails the test unless the reasons are those wanted.
func (d *desk) want(got, want record.Reason) {
	d.t.Helper()
	if got != want {
		d.t.Errorf("got %q, want %q", got, want)
	}
}

func (d *desk) ok(all ...record.Reason) {
	d.t.Helper()
	for _, r := range all {
		if r != "" {
			d.t.Fatalf("refused: %s", r)
		}
	}
}

func (d *desk) address(name string) identity.Address {
	d.t.Helper()
	a, err := identity.ParseAddress(name + "@" + enrolltest.Domain)
	if err != nil {
		d.t.Fatal(err)
	}
	return a
}

func (d *desk) line(name string, c *identity.Clearance) *statement.Roster {
	a := d.address(name)
	return &statement.Roster{Change: statement.NewID(), Address: a, Name: name, Clearance: c, Previous: d.state.Previous(a)}
}

// enroll puts somebody on the roster.
func (d *desk) enroll(name string, c *identity.Clearance) {
	d.t.Helper()
	b := d.line(name, c)
	d.ok(d.say(d.Olga, b), d.say(d.Oscar, b))
}

func (d *desk) approval(request string, t statement.Template) *statement.Approval {
	return &statement.Approval{Request: request, Template: t}
}

// tbs is an honest certificate of a template, made now.
func (d *desk) tbs(t statement.Template) []byte {
	return d.DeviceTBS(d.t, t, d.now.Add(-time.Minute), d.now.Add(week))
}

// device enrolls a device of alice's.
func (d *desk) device() statement.Template {
	d.t.Helper()
	t := d.Template(d.t, "alice", enrolltest.Clearance(d.t, 1, 2))
	b := d.approval(statement.NewID(), t)
	d.ok(d.say(d.Olga, b), d.say(d.Oscar, b), d.certify(d.tbs(t)))
	return t
}

func (d *desk) suspension(target statement.Target) *statement.Suspension {
	return &statement.Suspension{Target: target, Reason: "lost", Change: statement.NewID()}
}

func (d *desk) verify() []record.Finding {
	d.t.Helper()
	return d.verifyItems(d.items, d.state.Head())
}

func (d *desk) verifyItems(items []ledger.Item, head ledger.Head) []record.Finding {
	d.t.Helper()
	findings, err := record.Verify(d.Root, func(yield func(ledger.Item, error) bool) {
		for _, i := range items {
			if !yield(i, nil) {
				return
			}
		}
	}, head)
	if err != nil {
		d.t.Fatal(err)
	}
	return findings
}

func TestFoundingOfOfficers(t *testing.T) {
	d := empty(t, enrolltest.MinistryConfig{})
	if d.state.Lone() || len(d.state.Officers()) != 6 {
		t.Errorf("lone %v, %d officers", d.state.Lone(), len(d.state.Officers()))
	}
	if o, ok := d.state.OfficerAt(d.Anna.Address); !ok || o.Role != identity.RoleAdministrator {
		t.Errorf("got %+v", o)
	}
	if p, ok := d.state.Profile("device"); !ok || p.Approvals != 2 {
		t.Errorf("got %+v", p)
	}
	if d.state.Endorsements().Value == nil || d.state.Appraisal().Value == nil {
		t.Error("no rules for evidence")
	}
	// The first officers' own certificates are recorded as well.
	d.ok(d.certify(enrolltest.OfficerTBS(t, d.Olga)))
	if f := d.verify(); len(f) != 0 {
		t.Errorf("findings %v", f)
	}
}

// An authority without officers records and decides nothing.
func TestLone(t *testing.T) {
	d := empty(t, enrolltest.MinistryConfig{Lone: true})
	if !d.state.Lone() {
		t.Error("not lone")
	}
	d.ok(d.certify([]byte("any certificate")))
	other := enrolltest.NewMinistry(t, enrolltest.MinistryConfig{})
	raw := other.Olga.Sign(t, d.now, d.line("alice", nil))
	_, err := d.add(ledger.KindStatement, raw)
	d.want(reason(t, err), record.NoFounding)
	d.want(reason(t, d.mustFail(ledger.KindFounding, d.Founding)), record.BadFounding)
}

func (d *desk) mustFail(k ledger.Kind, payload []byte) error {
	d.t.Helper()
	size := d.state.Size()
	_, err := d.add(k, payload)
	if err == nil || d.state.Size() != size {
		d.t.Errorf("applied, size %d", d.state.Size())
	}
	return err
}

func TestNothingComesBeforeTheFounding(t *testing.T) {
	m := enrolltest.NewMinistry(t, enrolltest.MinistryConfig{})
	d := &desk{Ministry: m, state: record.New(m.Root), now: m.Config.Now.UTC().Truncate(time.Second), t: t}
	d.want(reason(t, d.mustFail(ledger.KindManifest, m.Manifest)), record.NoFounding)
	_, err := d.add(ledger.KindStatement, m.Olga.Sign(t, d.now, &statement.Refusal{Request: "a", Reason: "b"}))
	d.want(reason(t, err), record.NoFounding)
	stranger := enrolltest.NewMinistry(t, enrolltest.MinistryConfig{})
	d.want(reason(t, d.mustFail(ledger.KindFounding, stranger.Founding)), record.BadFounding)
	if err := m.Open(func(k ledger.Kind, p []byte) (int64, error) { return d.add(k, p) }); err != nil {
		t.Errorf("control: %v", err)
	}
	d.want(reason(t, d.mustFail(ledger.KindManifest, m.Manifest)), record.BadManifest) // not a newer one
}

// Nobody issues alone: a founding that asks for fewer than two officers is none.
func TestFoundingWithOneApproval(t *testing.T) {
	for name, c := range map[string]struct {
		approvals int
		want      record.Reason
	}{"one": {1, record.TooFewApprovals}, "two": {2, ""}} {
		t.Run(name, func(t *testing.T) {
			d := empty(t, enrolltest.MinistryConfig{})
			p, _ := d.state.Profile("device")
			p.Approvals = c.approvals
			m := enrolltest.NewMinistry(t, enrolltest.MinistryConfig{Profile: &p.Profile})
			err := record.New(m.Root).Apply(d.asFirst(m.Founding))
			d.want(reason(t, err), c.want)
		})
	}
}

func (d *desk) asFirst(founding []byte) ledger.Item {
	i := d.item(ledger.KindFounding, founding)
	i.Index = 0
	return i
}

// What holds for a leaf as such.
func TestLeaves(t *testing.T) {
	d := newDesk(t)
	raw := d.Olga.Sign(t, d.now, d.suspension(statement.Target{Kind: statement.TargetPerson, Address: d.address("alice")}))
	honest := d.item(ledger.KindStatement, raw)
	for name, c := range map[string]struct {
		spoil func(i *ledger.Item)
		want  record.Reason
	}{
		"another place":   {func(i *ledger.Item) { i.Index++ }, record.OutOfOrder},
		"another payload": {func(i *ledger.Item) { i.Payload = d.Olga.Sign(t, d.now, &statement.Refusal{Request: "a", Reason: "b"}) }, record.WrongPayload},
		"earlier": {func(i *ledger.Item) {
			e := *i.Entry
			e.Time = e.Time.Add(-time.Second)
			i.Entry = &e
		}, record.TimeBackwards},
		"no time": {func(i *ledger.Item) {
			e, err := ledger.NewIssuance(i.Payload)
			if err != nil {
				t.Fatal(err)
			}
			i.Entry = e
		}, record.NoTime},
	} {
		t.Run(name, func(t *testing.T) {
			i := honest
			c.spoil(&i)
			head := d.state.Head()
			d.want(reason(t, d.state.Apply(i)), c.want)
			if d.state.Head() != head {
				t.Error("a leaf that was refused counts")
			}
		})
	}
	if err := d.state.Apply(honest); err != nil {
		t.Errorf("control: %v", err)
	}
}

// Rollback takes back everything since Begin, and what follows is as if it had never
// been.
func TestRollback(t *testing.T) {
	d := newDesk(t)
	device := d.device()
	head := d.state.Head()
	d.state.Begin()
	d.ok(d.say(d.Otto, d.suspension(statement.Target{Kind: statement.TargetDevice, Device: device.Device})))
	d.ok(d.say(d.Otto, &statement.Removal{Change: statement.NewID(), Address: device.Address, Previous: d.state.Previous(device.Address), Reason: "left"}))
	d.state.Rollback()
	if d.state.Head() != head || d.state.Device(device.Device).State != "" || d.state.OnRoster(device.Address) != nil {
		t.Error("something stayed")
	}
	d.now = d.now.Add(day)
	d.ok(d.certify(d.tbs(device)))
	d.state.Begin()
	d.ok(d.say(d.Otto, d.suspension(statement.Target{Kind: statement.TargetDevice, Device: device.Device})))
	d.state.Commit()
	if d.state.Device(device.Device).State != record.Suspended {
		t.Error("what was committed is gone")
	}
}

func hash(s string) [32]byte { return sha256.Sum256([]byte(s)) }
