// SPDX-License-Identifier: Apache-2.0

package record_test

import (
	"crypto/x509"
	"slices"
	"testing"
	"time"

	"valise/enroll/enrolltest"
	"valise/identity"
	"valise/ledger"
	"valise/record"
	"valise/statement"
)

// gateway is a decision about a new key.
func (d *desk) gateway() *statement.Gateway {
	d.t.Helper()
	spki, err := x509.MarshalPKIXPublicKey(enrolltest.NewKey(d.t).Public())
	if err != nil {
		d.t.Fatal(err)
	}
	return &statement.Gateway{
		Change: statement.NewID(), Names: []string{"gw." + enrolltest.Domain, "2001:db8::1", "192.0.2.1"}, CSRKey: spki,
		Tier: identity.TierWitnessed, Validity: 90 * day,
	}
}

// gatewayTBS is the certificate of a decision, made now.
func (d *desk) gatewayTBS(g *statement.Gateway) []byte {
	d.t.Helper()
	return d.GatewayTBS(d.t, g, d.now.Add(-time.Minute), d.now.Add(g.Validity))
}

func (d *desk) agree(g *statement.Gateway) {
	d.t.Helper()
	d.ok(d.say(d.Olga, g), d.say(d.Oscar, g))
}

// Nobody issues a gateway's certificate alone: not without officers, not with one, nor
// with one who signs twice.
func TestGatewayNeedsTwo(t *testing.T) {
	d := newDesk(t)
	g := d.gateway()
	d.want(d.certify(d.gatewayTBS(g)), record.NoApproval)
	d.ok(d.say(d.Olga, g))
	d.want(d.certify(d.gatewayTBS(g)), record.NoApproval)
	d.want(d.say(d.Olga, g), record.SameOfficerTwice)
	d.want(d.say(d.Anna, g), record.WrongRole)
	if _, _, err := d.state.GatewayCarriers(*g, d.now); err == nil || err.Error() != (&record.MissingError{Have: 1, Need: 2, Why: record.NewGateway}).Error() {
		t.Errorf("got %v", err)
	}
	d.ok(d.say(d.Oscar, g), d.certify(d.gatewayTBS(g))) // control
	d.want(d.say(d.Otto, g), record.Replayed)
	if f := d.verify(); len(f) != 0 {
		t.Errorf("findings %v", f)
	}
}

// A certificate says exactly what was approved.
func TestGatewayOtherThanApproved(t *testing.T) {
	for name, change := range map[string]func(d *desk, g *statement.Gateway){
		"another name":  func(_ *desk, g *statement.Gateway) { g.Names[0] = "other." + enrolltest.Domain },
		"one name more": func(_ *desk, g *statement.Gateway) { g.Names = append(g.Names, "other."+enrolltest.Domain) },
		"one name less": func(_ *desk, g *statement.Gateway) { g.Names = g.Names[1:] },
		"another key":   func(d *desk, g *statement.Gateway) { g.CSRKey = d.gateway().CSRKey },
		"higher tier": func(_ *desk, g *statement.Gateway) {
			g.Tier, g.Evidence, g.Appraisal = identity.TierHardware, hash("e"), hash("p")
		},
		"control: another order": func(_ *desk, g *statement.Gateway) { slices.Reverse(g.Names) },
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			g := d.gateway()
			d.agree(g)
			other := *g
			other.Names = slices.Clone(g.Names)
			change(d, &other)
			want := record.NoApproval
			if name == "control: another order" {
				want = ""
			}
			d.want(d.certify(d.gatewayTBS(&other)), want)
		})
	}
	d := newDesk(t)
	g := d.gateway()
	d.agree(g)
	d.want(d.certify(d.GatewayTBS(t, g, d.now.Add(-time.Minute), d.now.Add(g.Validity+time.Hour))), record.WrongValidity)
	d.ok(d.certify(d.gatewayTBS(g)))
}

// The first certificate comes before the approvals expire; renewals stand on it until
// the grace after the last one is over.
func TestGatewayRenewal(t *testing.T) {
	p, _ := newDesk(t).state.Profile("device")
	for name, c := range map[string]struct {
		first, wait time.Duration
		want        record.Reason
	}{
		"soon":                {0, 60 * day, ""},
		"within the grace":    {0, 90*day + p.Grace, ""},
		"after the grace":     {0, 90*day + p.Grace + time.Second, record.NoApproval},
		"used at once":        {0, 0, ""},
		"approved and unused": {-1, 60 * day, record.NoApproval},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			g := d.gateway()
			d.agree(g)
			if c.first == 0 {
				d.ok(d.certify(d.gatewayTBS(g)))
			}
			d.now = d.now.Add(c.wait)
			d.want(d.certify(d.gatewayTBS(g)), c.want)
		})
	}
}

// What was suspended gets no certificate until it is resumed, what was revoked never,
// and nobody votes about it.
func TestGatewayStopped(t *testing.T) {
	d := newDesk(t)
	g := d.gateway()
	d.agree(g)
	d.ok(d.certify(d.gatewayTBS(g)))
	target := statement.Target{Kind: statement.TargetDevice, Device: g.Key()}
	d.ok(d.say(d.Otto, d.suspension(target)))
	d.want(d.certify(d.gatewayTBS(g)), record.DeviceSuspended)
	again := *g
	again.Change = statement.NewID()
	d.want(d.say(d.Olga, &again), record.DeviceSuspended)
	back := &statement.Resumption{Target: target, Reason: "found", Change: statement.NewID()}
	d.ok(d.say(d.Olga, back), d.say(d.Oscar, back), d.certify(d.gatewayTBS(g)))
	d.ok(d.say(d.Otto, &statement.Revocation{Target: target, Reason: "gone", Change: statement.NewID()}))
	d.want(d.certify(d.gatewayTBS(g)), record.DeviceRevoked)
	d.want(d.say(d.Olga, &again), record.DeviceRevoked)
}

// No key is a gateway's and somebody's.
func TestGatewayKeyTaken(t *testing.T) {
	d := newDesk(t)
	g := d.gateway()
	g.CSRKey = d.device().CSRKey
	d.want(d.say(d.Olga, g), record.KeyTaken)
	g = d.gateway()
	d.agree(g) // control
	template := d.Template(t, "alice", nil)
	template.CSRKey, template.Device = g.CSRKey, g.Key()
	b := d.approval("request-8", template)
	d.ok(d.say(d.Olga, b), d.say(d.Oscar, b))
	d.want(d.certify(d.tbs(template)), record.DeviceTaken)
}

// Fraud: whoever has the issuing key makes a gateway's certificate without officers.
func TestVerifyFindsGateway(t *testing.T) {
	d := newDesk(t)
	g := d.gateway()
	planted := d.plant(d.items, ledger.KindIssuance, d.gatewayTBS(g))
	findings := d.verifyItems(planted, headOf(t, planted))
	if len(findings) != 1 || findings[0].Reason != record.NoApproval || findings[0].Index != int64(len(d.items)) {
		t.Errorf("got %v", findings)
	}
	d.agree(g)
	d.ok(d.certify(d.gatewayTBS(g)))
	if f := d.verify(); len(f) != 0 {
		t.Errorf("control: %v", f)
	}
}
