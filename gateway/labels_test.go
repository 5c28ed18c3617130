// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"valise/bulletin"
	"valise/enroll/book"
	"valise/gateway/feed"
	"valise/gateway/rules"
	"valise/identity"
	"valise/internal/testenv/paper"
	"valise/ledger"
	"valise/mls"
	"valise/policy/bundle"
	"valise/statement"
	"valise/wire"
)

// A land is an authority with its record, and a gateway that follows it and takes the
// policy bundle in force from there, all of it real but for cards and tokens.
type land struct {
	*paper.Authority
	t          *testing.T
	olga, otto *paper.Officer
	book       *book.Book
	gw         *testGateway
	rules      *rules.Rules
	doctrine   *paper.Doctrine
	previous   *statement.Bundle
}

func newLand(t *testing.T) *land {
	t.Helper()
	a := paper.New(t, home)
	l := &land{
		Authority: a, t: t, olga: a.Officer("olga", identity.RoleOfficer), otto: a.Officer("otto", identity.RoleOfficer), doctrine: paper.NewDoctrine(t, "france"),
	}
	var url string
	l.book, url = startAuthority(t, a, l.olga, l.otto)
	l.gw = startGateway(t, gatewayOptions{authority: &authority{domain: a.Domain, root: a.Root, issuer: a.Issuer, issuerKey: a.IssuerKey}})
	certificate, log := a.Gateway("127.0.0.1"), slog.New(slog.NewTextHandler(testWriter{t}, nil))
	f, err := feed.Open(t.Context(), feed.Config{
		Path: filepath.Join(l.gw.dir, "record.db"), Root: a.Root, Domain: a.Domain, URL: url,
		Certificate: func() *tls.Certificate { return certificate }, Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	if l.rules, err = rules.Open(rules.Config{
		Path:       filepath.Join(l.gw.dir, "bundle.signed"),
		Verify:     func(raw []byte) (*statement.Statement, error) { return f.VerifyRecorded(ctx, raw) },
		Statements: f.BundleStatements, Event: l.gw.audit.write, Log: log,
	}); err != nil {
		t.Fatal(err)
	}
	l.rules.Apply(l.gw.SetRules)
	f.Apply(func(set *bulletin.Set) {
		l.rules.Follow(ctx, set)
		l.gw.SetStandings(set)
	})
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	l.until("the first bulletin", func() bool { return l.gw.Standings().Number() > 0 })
	return l
}

func (l *land) until(what string, done func() bool) { l.t.Helper(); until(l.t, what, done) }

// both records what both officers sign.
func (l *land) both(b statement.Body) {
	l.t.Helper()
	for _, o := range []*paper.Officer{l.olga, l.otto} {
		put(l.t, l.book, ledger.KindStatement, o.Sign(b))
	}
}

// bundle makes the next version: what the officers sign, and the file with the first
// signature alone, as it goes to the gateways.
func (l *land) bundle(version uint32, table bundle.Domains) (*statement.Bundle, []byte) {
	l.t.Helper()
	contents, compiled := l.doctrine.Bundle(version, l.doctrine.Folder("", table))
	body := &statement.Bundle{Change: statement.NewID(), Hash: compiled.Hash, Version: int(version)}
	if l.previous != nil {
		body.Previous = statement.BodyDigest(l.previous)
	}
	l.previous = body
	file, err := (&bundle.Signed{Contents: contents, Statements: [][]byte{l.olga.Sign(body)}}).Marshal()
	if err != nil {
		l.t.Fatal(err)
	}
	return body, file
}

func (l *land) device(local string, c *identity.Clearance) *testDevice {
	l.t.Helper()
	d := newDevice(l.t, l.gw, local)
	d.chain = l.gw.authority.deviceAs(l.t, local, d.key, -time.Hour, 100*time.Hour, cleared(c, identity.TierHardware))
	d.mls.Credential = mls.X509Credential(d.chain)
	return d.ready()
}

// labelled seals under a label and the bundle that the device knows.
func (l *land) labelled(d *testDevice, g *mls.Group, class string, hash [32]byte) *wire.Send {
	l.t.Helper()
	label, err := l.doctrine.Label(class).Marshal()
	if err != nil {
		l.t.Fatal(err)
	}
	return d.sealedUnder(g, "label: "+class, wire.Header{Sequence: 1, Labelled: true, Label: label, Policy: []byte(l.doctrine.ID), PolicyHash: hash[:]})
}

// TestLabels goes the whole way: officers sign, the record names the bundle, the
// gateway puts it into force, and SECRET goes to those who are cleared for it and to
// nobody else.
func TestLabels(t *testing.T) {
	l := newLand(t)
	secret, restricted := l.doctrine.UpTo("SECRET"), l.doctrine.UpTo("DIFFUSION RESTREINTE")
	alice, bob, low := l.device("alice", secret), l.device("bob", secret), l.device("low", restricted)
	pair := alice.found()
	alice.add(pair, alice.take("bob")...)
	atBob := bob.join()
	three := alice.found()
	alice.add(three, append(alice.take("bob"), alice.take("low")...)...)
	bob.join()
	low.join()

	// Without a bundle a label is refused, and the rest goes through.
	if code := alice.submit(l.labelled(alice, pair, "SECRET", [32]byte{1})); code != wire.LabelRefused {
		t.Errorf("without a bundle: %v", code)
	}
	l.gw.audit.want(t, eventRefusedRequest, "no_policy_for_label")
	alice.must(alice.sealed(pair, "plain"))
	if got := bob.read(atBob); got != "plain" {
		t.Errorf("bob read %q", got)
	}

	// The first officer's file waits; the second signature puts it into force.
	body, file := l.bundle(1, bundle.Domains{Unlabelled: true, Tiers: []bundle.TierRow{{Policy: l.doctrine.ID.String(), Classification: "SECRET", Tier: identity.TierHardware}}})
	if err := l.rules.Offer(t.Context(), file); !errors.Is(err, rules.ErrWaits) {
		t.Fatalf("one officer: %v", err)
	}
	if r := alice.ask(new(wire.GetBundle)); codeOf(r) != wire.NotFound {
		t.Errorf("it is served while it waits: %+v", r)
	}
	l.both(body)
	alice.link.wantNotice(t, wire.NoticeBundle)
	l.gw.audit.want(t, "bundle_in_force", "")
	part, ok := alice.ask(new(wire.GetBundle)).(*wire.BundlePart)
	if !ok || int(part.Size) != len(part.Data) || part.Hash != body.Hash {
		t.Fatalf("the bundle is not served: %+v", part)
	}
	signed, err := bundle.ParseSigned(part.Data)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := signed.Open(func(raw []byte) (*statement.Statement, error) {
		return statement.Verify(raw, l.Trust(), l.RootHash(), time.Now())
	}, time.Now()); err != nil {
		t.Errorf("what devices get does not verify: %v", err)
	}

	// SECRET to those who are cleared, and the refusal with its reason.
	alice.must(l.labelled(alice, pair, "SECRET", body.Hash))
	if got := bob.read(atBob); got != "label: SECRET" {
		t.Errorf("bob read %q", got)
	}
	refused := alice.askSubmit(l.labelled(alice, three, "SECRET", body.Hash)).(*wire.Result)
	if about, ok := refused.About(); refused.Code != wire.NotCleared || !ok || identity.DeviceID(about) != low.id {
		t.Errorf("to an uncleared recipient: %+v", refused)
	}
	line := l.gw.audit.want(t, eventRefusedRequest, "classification")
	if line.attrs["label"] != "SECRET" || line.attrs["whose"] != "low@"+home || line.attrs["recipient"] != low.id.String() || line.attrs["detail"] == "" {
		t.Errorf("the audit stream says %v", line.attrs)
	}
	alice.must(l.labelled(alice, three, "DIFFUSION RESTREINTE", body.Hash))
	if code := low.submit(l.labelled(low, three, "SECRET", body.Hash)); code == wire.OK {
		t.Error("a device without clearance sends SECRET")
	}

	// Who would lower the ceiling of a conversation is not added to it.
	_, commit := alice.commitOf(pair, addProposals(alice.take("low"))...)
	joined := alice.askSubmit(commit).(*wire.Result)
	if about, ok := joined.About(); joined.Code != wire.CeilingLowered || !ok || identity.DeviceID(about) != low.id {
		t.Errorf("joining with less: %+v", joined)
	}
	l.gw.audit.want(t, eventRefusedRequest, "ceiling_lowered")

	l.lowers(alice, bob, pair, body.Hash)
	l.replaces(alice, pair, body.Hash)
}

// lowers has one officer lower bob's clearance: it counts at once.
func (l *land) lowers(alice, bob *testDevice, pair *mls.Group, hash [32]byte) {
	l.t.Helper()
	entry := &statement.Roster{Change: statement.NewID(), Address: l.Address("bob"), Name: "Bob", Clearance: l.doctrine.UpTo("SECRET")}
	l.both(entry)
	alice.must(l.labelled(alice, pair, "SECRET", hash))
	less := *entry
	less.Change, less.Clearance, less.Previous = statement.NewID(), l.doctrine.UpTo("DIFFUSION RESTREINTE"), statement.BodyDigest(entry)
	put(l.t, l.book, ledger.KindStatement, l.olga.Sign(&less))
	l.until("the lowered clearance", func() bool {
		c, limited := l.gw.Standings().Ceiling(l.Address("bob"))
		return limited && !c.Covers(l.doctrine.UpTo("SECRET"))
	})
	r := alice.askSubmit(l.labelled(alice, pair, "SECRET", hash)).(*wire.Result)
	if about, ok := r.About(); r.Code != wire.NotCleared || !ok || identity.DeviceID(about) != bob.id {
		l.t.Errorf("after bob's clearance was lowered: %+v", r)
	}
	alice.must(l.labelled(alice, pair, "DIFFUSION RESTREINTE", hash))
}

// replaces has the officers demand labels; the gateway's operator is late.
func (l *land) replaces(alice *testDevice, pair *mls.Group, old [32]byte) {
	t := l.t
	t.Helper()
	body, file := l.bundle(2, bundle.Domains{})
	l.both(body)
	l.gw.audit.want(t, "bundle_missing", "bundle_not_in_force")
	if code := alice.submit(alice.sealed(pair, "in between")); code != wire.NoBundle {
		t.Errorf("while the bundle in force is not here: %v", code)
	}
	if err := l.rules.Offer(t.Context(), bytes.Clone(file[:len(file)-1])); err == nil {
		t.Error("half a bundle was taken")
	}
	l.gw.audit.want(t, "bundle_refused", "bundle_malformed")
	if err := l.rules.Offer(t.Context(), file); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		send *wire.Send
		want wire.Code
	}{
		"without a label":      {alice.sealed(pair, "plain"), wire.LabelRequired},
		"under the old bundle": {l.labelled(alice, pair, "DIFFUSION RESTREINTE", old), wire.BundleChanged},
		"under the new one":    {l.labelled(alice, pair, "DIFFUSION RESTREINTE", body.Hash), wire.OK},
	} {
		if code := alice.submit(c.send); code != c.want {
			t.Errorf("%s: %v, want %v", name, code, c.want)
		}
	}
}
