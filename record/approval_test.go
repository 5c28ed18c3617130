// SPDX-License-Identifier: Apache-2.0

package record_test

import (
	"errors"
	"testing"
	"time"

	"valise/enroll/enrolltest"
	"valise/identity"
	"valise/ledger"
	"valise/manifest"
	"valise/record"
	"valise/statement"
)

// A certificate stands on two officers' approvals of exactly what it says. Each case
// differs from the honest one in one property.
func TestDeviceNeedsItsApprovals(t *testing.T) {
	for name, c := range map[string]struct {
		change func(d *desk, certified *statement.Template) (approve bool)
		want   record.Reason
	}{
		"control":          {func(*desk, *statement.Template) bool { return true }, ""},
		"one officer only": {func(*desk, *statement.Template) bool { return false }, record.NoApproval},
		"another key": {func(d *desk, c *statement.Template) bool {
			other := d.Template(d.t, "alice", nil)
			c.CSRKey, c.Device = other.CSRKey, other.Device
			return true
		}, record.NoApproval},
		"another person": {func(d *desk, c *statement.Template) bool {
			d.enroll("bob", enrolltest.Clearance(d.t, 1, 2, 3))
			c.Address = d.address("bob")
			return true
		}, record.NoApproval},
		"a higher clearance": {func(d *desk, c *statement.Template) bool {
			c.Clearance = enrolltest.Clearance(d.t, 1, 2, 3)
			return true
		}, record.NoApproval},
		"more than the roster": {func(d *desk, c *statement.Template) bool {
			c.Clearance = enrolltest.Clearance(d.t, 1, 2, 3, 4)
			return true
		}, record.RaisedClearance},
		"other evidence":          {func(_ *desk, c *statement.Template) bool { c.Evidence = hash("other"); return true }, record.NoApproval},
		"another appraisal":       {func(_ *desk, c *statement.Template) bool { c.Appraisal = hash("other"); return true }, record.NoApproval},
		"a tier nobody allows":    {func(_ *desk, c *statement.Template) bool { c.Tier = identity.TierWitnessed; return true }, record.WrongTier},
		"somebody off the roster": {func(d *desk, c *statement.Template) bool { c.Address = d.address("mallory"); return true }, record.NotOnRoster},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			d.t = t
			approved := d.Template(t, "alice", enrolltest.Clearance(t, 1, 2))
			certified := approved
			both := c.change(d, &certified)
			b := d.approval("request-1", approved)
			d.ok(d.say(d.Olga, b))
			if both {
				d.ok(d.say(d.Oscar, b))
			}
			d.want(d.certify(d.tbs(certified)), c.want)
		})
	}
}

func TestCertificatesOfOtherKinds(t *testing.T) {
	d := newDesk(t)
	d.want(d.certify([]byte("rubbish")), record.BadCertificate)
	d.want(d.certify(d.Issuing.RawTBSCertificate), record.WrongIssuer) // the root's, and an authority's
	stranger := enrolltest.NewMinistry(t, enrolltest.MinistryConfig{})
	approved := d.Template(t, "alice", nil)
	b := d.approval("request-1", approved)
	d.ok(d.say(d.Olga, b), d.say(d.Oscar, b))
	d.want(d.certify(stranger.DeviceTBS(t, approved, d.now, d.now.Add(week))), record.WrongIssuer)
	tbs := d.tbs(approved)
	d.ok(d.certify(tbs))
	d.want(d.certify(tbs), record.RepeatedCertificate)
	d.want(d.certify(enrolltest.OfficerTBS(t, d.Ministry.Officer(t, "mallory", identity.RoleOfficer, enrolltest.NewKey(t), d.now, d.now.Add(day)))), record.NotAppointed)
	d.ok(d.certify(enrolltest.OfficerTBS(t, d.Oscar)))
}

// What an issuing certificate signed after the end of its use is nobody's.
func TestIssuerWhoseUseEnded(t *testing.T) {
	for name, c := range map[string]struct {
		until time.Duration
		want  record.Reason
	}{
		"control": {time.Hour, ""}, "ended": {-time.Second, record.WrongIssuer},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			approved := d.Template(t, "alice", nil)
			b := d.approval("request-1", approved)
			d.ok(d.say(d.Olga, b), d.say(d.Oscar, b))
			first, err := manifest.ParseManifest(d.Manifest, d.Root)
			if err != nil {
				t.Fatal(err)
			}
			next := *first
			next.Number, next.Previous = 2, first.Digest()
			next.Issuers = []manifest.Issuer{{Certificate: d.Issuing.Raw, Until: d.now.Add(c.until).UTC().Truncate(time.Second)}}
			raw, err := manifest.Sign(t.Context(), d.RootKey, d.Root, &next)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := d.add(ledger.KindManifest, raw); err != nil {
				t.Fatal(err)
			}
			d.want(d.certify(d.tbs(approved)), c.want)
		})
	}
}

// A certificate begins when it is recorded and lives as long as was approved.
func TestValidity(t *testing.T) {
	for name, c := range map[string]struct {
		from, until time.Duration
		want        record.Reason
	}{
		"control": {-time.Minute, week, ""}, "longer": {0, week + time.Second, record.WrongValidity},
		"backdated": {-time.Hour, week, record.WrongValidity}, "from later on": {time.Hour, week, record.WrongValidity},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			approved := d.Template(t, "alice", nil)
			b := d.approval("request-1", approved)
			d.ok(d.say(d.Olga, b), d.say(d.Oscar, b))
			d.want(d.certify(d.DeviceTBS(t, approved, d.now.Add(c.from), d.now.Add(c.until))), c.want)
		})
	}
}

func TestWhoMayApprove(t *testing.T) {
	d := newDesk(t)
	template := d.Template(t, "alice", nil)
	b := d.approval("request-1", template)
	d.want(d.say(d.Anna, b), record.WrongRole)
	d.want(d.say(d.Aude, b), record.WrongRole)
	d.ok(d.say(d.Olga, b))
	d.want(d.say(d.Olga, b), record.SameOfficerTwice)
	// A second certificate for the same key, and one for another key, change nothing.
	again := d.Ministry.Officer(t, "olga", identity.RoleOfficer, d.Olga.Key, d.now.Add(-time.Hour), d.now.Add(day))
	d.want(d.say(again, b), record.SameOfficerTwice)
	another := d.Ministry.Officer(t, "olga", identity.RoleOfficer, enrolltest.NewKey(t), d.now.Add(-time.Hour), d.now.Add(day))
	d.want(d.say(another, b), record.NotInStanding)
	alias := d.Ministry.Officer(t, "olga.two", identity.RoleOfficer, d.Olga.Key, d.now.Add(-time.Hour), d.now.Add(day))
	d.want(d.say(alias, b), record.NotInStanding)
	promoted := d.Ministry.Officer(t, "anna", identity.RoleOfficer, d.Anna.Key, d.now.Add(-time.Hour), d.now.Add(day))
	d.want(d.say(promoted, b), record.NotInStanding)
	stranger := enrolltest.NewMinistry(t, enrolltest.MinistryConfig{})
	d.want(d.say(stranger.Oscar, b), record.BadChain)
	d.want(d.certify(d.tbs(template)), record.NoApproval)
	d.ok(d.say(d.Oscar, b), d.certify(d.tbs(template)))
}

// Who gets a new card stays the same officer.
func TestSameOfficerWithANewCard(t *testing.T) {
	d := newDesk(t)
	template := d.Template(t, "alice", nil)
	b := d.approval("request-1", template)
	d.ok(d.say(d.Olga, b))
	key := enrolltest.NewKey(t)
	d.appoint("olga", identity.RoleOfficer, d.Ministry.Officer(t, "olga", identity.RoleOfficer, key, d.now.Add(-time.Minute), d.now.Add(day)))
	renewed := d.Ministry.Officer(t, "olga", identity.RoleOfficer, key, d.now.Add(-time.Minute), d.now.Add(day))
	// The old signature counts no more, and the new card's is one, not a second.
	d.ok(d.say(renewed, b))
	d.want(d.certify(d.tbs(template)), record.NoApproval)
	d.want(d.say(d.Olga, b), record.NotInStanding)
	d.ok(d.say(d.Oscar, b), d.certify(d.tbs(template)))
}

func TestOwnEnrollment(t *testing.T) {
	for name, who := range map[string]string{"own": "oscar", "control": "alice"} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			line := d.line("oscar", nil)
			d.ok(d.say(d.Olga, line), d.say(d.Otto, line))
			b := d.approval("request-1", d.Template(t, who, nil))
			d.ok(d.say(d.Olga, b))
			want := record.Reason("")
			if name == "own" {
				want = record.OwnEnrollment
			}
			d.want(d.say(d.Oscar, b), want)
		})
	}
}

// An approval counts for its own request and once.
func TestReplay(t *testing.T) {
	d := newDesk(t)
	template := d.Template(t, "alice", nil)
	raw := d.Olga.Sign(t, d.now, d.approval("request-1", template))
	_, err := d.add(ledger.KindStatement, raw)
	d.ok(reason(t, err))
	_, err = d.add(ledger.KindStatement, raw)
	d.want(reason(t, err), record.Replayed)
	d.ok(d.say(d.Oscar, d.approval("request-2", template)))
	d.want(d.certify(d.tbs(template)), record.NoApproval)
	d.ok(d.say(d.Oscar, d.approval("request-1", template)), d.certify(d.tbs(template)))
}

// The officer is judged as of the leaf: certificate, standing and office.
func TestOfficerAtTheLeaf(t *testing.T) {
	for name, c := range map[string]struct {
		before func(d *desk)
		want   record.Reason
	}{
		"control": {func(*desk) {}, ""},
		"expired": {func(d *desk) { d.now = d.now.AddDate(2, 0, 0) }, record.OfficerExpired},
		"suspended": {func(d *desk) {
			d.ok(d.say(d.Anna, d.suspension(statement.Target{Kind: statement.TargetOfficer, Address: d.Oscar.Address})))
		}, record.NotInStanding},
		"dismissed": {func(d *desk) {
			d.ok(d.say(d.Anna, &statement.Dismissal{Change: statement.NewID(), Address: d.Oscar.Address, Reason: "left"}))
		}, record.NotInStanding},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			c.before(d)
			d.want(d.say(d.Oscar, d.approval("request-1", d.Template(t, "alice", nil))), c.want)
		})
	}
}

// Approvals of an officer who is suspended before the certificate is made carry
// nothing: the card may have been stolen.
func TestApprovalOfASuspendedOfficer(t *testing.T) {
	for name, suspended := range map[string]bool{"suspended": true, "control": false} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			template := d.Template(t, "alice", nil)
			b := d.approval("request-1", template)
			d.ok(d.say(d.Olga, b), d.say(d.Oscar, b))
			if suspended {
				d.ok(d.say(d.Anna, d.suspension(statement.Target{Kind: statement.TargetOfficer, Address: d.Oscar.Address})))
				d.want(d.certify(d.tbs(template)), record.NoApproval)
				d.ok(d.say(d.Otto, b))
			}
			d.ok(d.certify(d.tbs(template)))
		})
	}
}

func TestApprovalExpires(t *testing.T) {
	for name, wait := range map[string]time.Duration{"control": 59 * time.Minute, "expired": time.Hour} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			template := d.Template(t, "alice", nil)
			b := d.approval("request-1", template)
			_, err := d.add(ledger.KindStatement, d.Olga.SignUntil(t, d.now, d.now.Add(time.Hour), b))
			d.ok(reason(t, err), d.say(d.Oscar, b))
			d.now = d.now.Add(wait)
			want := record.Reason("")
			if name == "expired" {
				want = record.NoApproval
			}
			d.want(d.certify(d.tbs(template)), want)
		})
	}
}

func TestRefusal(t *testing.T) {
	d := newDesk(t)
	template := d.Template(t, "alice", nil)
	b := d.approval("request-1", template)
	d.ok(d.say(d.Olga, b), d.say(d.Oscar, b))
	d.ok(d.say(d.Otto, &statement.Refusal{Request: "request-1", Reason: "not at the door"}))
	d.want(d.certify(d.tbs(template)), record.NoApproval)
	_, err := d.state.Grounds(*b, d.now)
	d.want(reason(t, err), record.Refused)
	d.want(d.say(d.Otto, b), record.Refused)
	other := d.approval("request-2", template)
	d.ok(d.say(d.Olga, other), d.say(d.Oscar, other), d.certify(d.tbs(template)))
}

// A renewal stands on the original approvals; anything above them needs new ones.
func TestRenewal(t *testing.T) {
	for name, c := range map[string]struct {
		after  time.Duration
		change func(d *desk, t *statement.Template)
		want   record.Reason
		why    record.Why
	}{
		"control":              {5 * day, func(*desk, *statement.Template) {}, "", ""},
		"within the grace":     {week + 30*day, func(*desk, *statement.Template) {}, "", ""},
		"after the grace":      {week + 30*day + time.Second, func(*desk, *statement.Template) {}, record.NoApproval, record.Lapsed},
		"lower clearance":      {5 * day, func(d *desk, t *statement.Template) { t.Clearance = enrolltest.Clearance(d.t, 1) }, "", ""},
		"raised in the roster": {5 * day, func(d *desk, t *statement.Template) { t.Clearance = enrolltest.Clearance(d.t, 1, 2, 3) }, record.NoApproval, record.Raised},
		"newer evidence":       {5 * day, func(_ *desk, t *statement.Template) { t.Evidence, t.Appraisal = hash("new"), hash("newer") }, "", ""},
		"revoked": {5 * day, func(d *desk, t *statement.Template) {
			d.ok(d.say(d.Otto, &statement.Revocation{Target: statement.Target{Kind: statement.TargetDevice, Device: t.Device}, Reason: "lost", Change: statement.NewID()}))
		}, record.DeviceRevoked, ""},
		"removed and back": {5 * day, func(d *desk, t *statement.Template) {
			d.ok(d.say(d.Otto, &statement.Removal{Change: statement.NewID(), Address: t.Address, Previous: d.state.Previous(t.Address), Reason: "left"}))
			d.enroll("alice", enrolltest.Clearance(d.t, 1, 2, 3))
		}, record.NoApproval, record.Ended},
		"lowered in the roster": {5 * day, func(d *desk, _ *statement.Template) {
			d.ok(d.say(d.Otto, d.line("alice", enrolltest.Clearance(d.t, 1))))
		}, record.RaisedClearance, ""},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			template := d.device()
			d.now = d.now.Add(c.after)
			c.change(d, &template)
			_, err := d.state.Grounds(*d.approval("request-9", template), d.now)
			d.want(reason(t, err), c.want)
			var missing *record.MissingError
			if c.why != "" && (!errors.As(err, &missing) || missing.Why != c.why) {
				t.Errorf("got %v, want %s", err, c.why)
			}
			d.want(d.certify(d.tbs(template)), c.want)
		})
	}
}

// Whoever was off for months is approved again, for the same key, and goes on.
func TestWayBack(t *testing.T) {
	d := newDesk(t)
	template := d.device()
	d.now = d.now.AddDate(0, 3, 0)
	d.want(d.certify(d.tbs(template)), record.NoApproval)
	b := d.approval("request-2", template)
	d.ok(d.say(d.Olga, b), d.say(d.Otto, b), d.certify(d.tbs(template)))
	d.now = d.now.Add(5 * day)
	d.ok(d.certify(d.tbs(template)))
}

// Grounds names the leaves, for whoever reads them again before signing.
func TestGrounds(t *testing.T) {
	d := newDesk(t)
	template := d.Template(t, "alice", nil)
	b := d.approval("request-1", template)
	first := d.state.Size()
	d.ok(d.say(d.Olga, b))
	var missing *record.MissingError
	if _, err := d.state.Grounds(*b, d.now); !errors.As(err, &missing) || missing.Have != 1 || missing.Need != 2 || missing.Why != record.First {
		t.Errorf("got %v", err)
	}
	d.ok(d.say(d.Oscar, b))
	leaves, err := d.state.Grounds(*b, d.now)
	if err != nil || len(leaves) != 2 || leaves[0] != first || leaves[1] != first+1 {
		t.Errorf("got %v, %v", leaves, err)
	}
	b.Request = "request-2"
	if _, err := d.state.Grounds(*b, d.now); record.ReasonOf(err) != record.NoApproval {
		t.Errorf("another request: %v", err)
	}
}
