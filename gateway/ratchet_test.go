// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"valise/mls"
	"valise/wire"
)

// publish makes and publishes KeyPackages.
func (d *testDevice) publish(n int, lastResort bool) {
	d.t.Helper()
	put := &wire.PutKeyPackages{LastResort: lastResort}
	for range n {
		kp, secrets := d.keyPackage(lastResort)
		d.kps, d.secrets = append(d.kps, kp), append(d.secrets, secrets)
		put.Packages = append(put.Packages, kp.Message())
	}
	d.must(put)
}

func (d *testDevice) keyPackage(lastResort bool) (*mls.KeyPackage, *mls.KeyPackageSecrets) {
	d.t.Helper()
	kp, secrets, err := mls.NewKeyPackage(d.mls, mls.KeyPackageParams{
		Suite: mls.SuiteP256, Lifetime: mls.NewLifetime(time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)), LastResort: lastResort,
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return kp, secrets
}

// found creates a group of this device alone.
func (d *testDevice) found() *mls.Group {
	d.t.Helper()
	g, req := d.founding()
	d.must(req)
	return g
}

func (d *testDevice) founding() (*mls.Group, *wire.CreateGroup) {
	d.t.Helper()
	g, err := mls.Create(d.cfg, d.mls, mls.CreateParams{Suite: mls.SuiteP256, At: time.Now()})
	if err != nil {
		d.t.Fatal(err)
	}
	info, err := g.GroupInfo()
	if err != nil {
		d.t.Fatal(err)
	}
	return g, &wire.CreateGroup{GroupInfo: info, Tree: g.Tree()}
}

// take fetches a KeyPackage of each of another's devices.
func (d *testDevice) take(local string) []*mls.KeyPackage {
	d.t.Helper()
	answer := d.ask(&wire.GetKeyPackages{Suite: uint16(mls.SuiteP256), Address: local + "@" + d.gw.authority.domain})
	kps, ok := answer.(*wire.KeyPackages)
	if !ok {
		d.t.Fatalf("%s: no key packages of %s: %v", d.local, local, answer)
	}
	var out []*mls.KeyPackage
	for _, e := range kps.Entries {
		kp, err := mls.ParseKeyPackage(e.Package)
		if err != nil {
			d.t.Fatal(err)
		}
		out = append(out, kp)
	}
	return out
}

func (d *testDevice) commitOf(g *mls.Group, proposals ...mls.Proposal) (*mls.PendingCommit, *wire.Commit) {
	d.t.Helper()
	p, err := g.PrepareCommit(mls.CommitParams{Proposals: proposals, TreeInWelcome: true, At: time.Now()})
	if err != nil {
		d.t.Fatal(err)
	}
	return p, &wire.Commit{Group: g.ID(), Epoch: g.Epoch(), Commit: p.Commit, Welcome: p.Welcome, GroupInfo: p.GroupInfo}
}

// add adds devices by their KeyPackages.
func (d *testDevice) add(g *mls.Group, kps ...*mls.KeyPackage) {
	d.t.Helper()
	var proposals []mls.Proposal
	for _, kp := range kps {
		proposals = append(proposals, mls.AddProposal(kp))
	}
	p, req := d.commitOf(g, proposals...)
	d.must(req)
	if err := g.Apply(p.Staged); err != nil {
		d.t.Fatal(err)
	}
}

// join enters a group by the next delivery, which must be a Welcome.
func (d *testDevice) join() *mls.Group {
	d.t.Helper()
	m := d.next()
	if m.Kind != wire.DeliverWelcome {
		d.t.Fatalf("%s: delivery of kind %d, want a Welcome", d.local, m.Kind)
	}
	var errs []error
	for i, kp := range d.kps {
		g, err := mls.Join(d.cfg, d.mls, m.Payload, kp, d.secrets[i], mls.JoinParams{At: time.Now()})
		if err == nil {
			d.ack(m.Number)
			return g
		}
		errs = append(errs, err)
	}
	d.t.Fatalf("%s: join: %v", d.local, errors.Join(errs...))
	return nil
}

// sealed encrypts a text under a header.
func (d *testDevice) sealed(g *mls.Group, text string) *wire.Send {
	d.t.Helper()
	return d.sealedUnder(g, text, wire.Header{Sequence: 1})
}

func (d *testDevice) sealedUnder(g *mls.Group, text string, h wire.Header) *wire.Send {
	d.t.Helper()
	header, err := h.Marshal()
	if err != nil {
		d.t.Fatal(err)
	}
	s, err := g.Encrypt([]byte(text), header)
	if err != nil {
		d.t.Fatal(err)
	}
	return &wire.Send{Group: g.ID(), Epoch: g.Epoch(), Message: s.Message}
}

// read opens the next delivery, which must be content.
func (d *testDevice) read(g *mls.Group) string {
	d.t.Helper()
	m := d.next()
	r, err := g.Receive(m.Payload, time.Now())
	if err != nil {
		d.t.Fatalf("%s: delivery %d of kind %d: %v", d.local, m.Number, m.Kind, err)
	}
	d.ack(m.Number)
	if r.Commit != nil {
		if err := g.Apply(r.Commit); err != nil {
			d.t.Fatal(err)
		}
		return "commit"
	}
	return string(r.Plaintext)
}

// ready connects a device with a stock of KeyPackages and an open delivery stream.
func (d *testDevice) ready() *testDevice {
	d.t.Helper()
	d.connect(true, 0)
	d.publish(3, false)
	d.listen(0)
	return d
}

// pair makes a group of two.
func pair(t testing.TB, gw *testGateway) (alice, bob *testDevice, ga, gb *mls.Group) {
	t.Helper()
	alice, bob = newDevice(t, gw, "alice").ready(), newDevice(t, gw, "bob").ready()
	ga = alice.found()
	alice.add(ga, alice.take("bob")...)
	return alice, bob, ga, bob.join()
}

func addProposals(kps []*mls.KeyPackage) []mls.Proposal {
	var proposals []mls.Proposal
	for _, kp := range kps {
		proposals = append(proposals, mls.AddProposal(kp))
	}
	return proposals
}

func stringReader(s string) io.Reader { return strings.NewReader(s) }
