// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"database/sql"
	"path/filepath"
	"testing"
	"testing/fstest"
	"time"

	"valise/bulletin"
	"valise/gateway/rules"
	"valise/identity"
	"valise/internal/testenv/paper"
	"valise/ledger"
	"valise/mls"
	"valise/policy"
	"valise/policy/bundle"
	"valise/statement"
	"valise/wire"
)

// A cabinet is a ministry with officers, who put policy bundles into force.
type cabinet struct {
	*world
	shelf    *shelf
	doctrine *paper.Doctrine
	olga     *signer
	oskar    *signer
	previous [32]byte
	file     []byte // as they signed it last
}

// A signer is an officer with a key in software.
type signer struct {
	w     *world
	key   *ecdsa.PrivateKey
	chain [][]byte
}

// newCabinet has the policy of policies/coalition.xml: alice and bob are cleared up to
// SECRET for FRA and DEU, carol up to UNMARKED, wanda's key is not in hardware, and dan has no
// clearance at all.
func newCabinet(t testing.TB) *cabinet {
	t.Helper()
	w, s := ministry(t)
	c := &cabinet{world: w, shelf: s, doctrine: paper.NewDoctrine(t, "coalition")}
	c.olga, c.oskar = c.officer("olga"), c.officer("oskar")
	w.cleared = func(local string) (*identity.Clearance, identity.Tier) {
		switch local {
		case "alice", "bob":
			return c.doctrine.UpTo("SECRET", c.release("FRA"), c.release("DEU"), c.need("PLANS")), identity.TierHardware
		case "wanda":
			return c.doctrine.UpTo("SECRET", c.release("FRA")), identity.TierWitnessed
		case "carol":
			return c.doctrine.UpTo("UNMARKED"), identity.TierHardware
		}
		return nil, identity.TierHardware
	}
	return c
}

func (c *cabinet) value(set, tag, name string) policy.Category {
	c.t.Helper()
	id, err := policy.ParseOID(c.doctrine.ID.String() + set)
	if err != nil {
		c.t.Fatal(err)
	}
	return policy.Category{Set: id, Tag: tag, Name: name}
}

func (c *cabinet) release(name string) policy.Category {
	return c.value(".1", "Releasable To", name)
}
func (c *cabinet) need(name string) policy.Category { return c.value(".2", "Need To Know", name) }

func (c *cabinet) officer(local string) *signer {
	c.t.Helper()
	address, err := identity.ParseAddress(local + "@" + domain)
	if err != nil {
		c.t.Fatal(err)
	}
	key := newKey(c.t, elliptic.P256())
	p := identity.OfficerProfile{
		Address: address, PublicKey: key.Public(), Role: identity.RoleOfficer, Tier: identity.TierHardware,
		EvidenceHash: [32]byte{1}, PolicyHash: [32]byte{2}, Serial: serial(),
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(100 * time.Hour),
	}
	template, err := p.Template()
	leaf := issue(c.t, template, err, c.issuer, key.Public(), c.issuerKey)
	return &signer{c.world, key, [][]byte{leaf.Raw, c.issuer.Raw}}
}

func (o *signer) sign(body statement.Body) []byte {
	o.w.t.Helper()
	at := time.Now().UTC().Truncate(time.Second)
	raw, err := statement.Sign(context.Background(), o.key, o.chain, statement.Head{
		Authority: sha256.Sum256(o.w.root.Raw), ID: statement.NewID(), Time: at, Expires: at.Add(time.Hour),
	}, body)
	if err != nil {
		o.w.t.Fatal(err)
	}
	return raw
}

// table is the cabinet's usual one: UNMARKED without being named, SECRET for keys in
// hardware.
func (c *cabinet) table() bundle.Domains {
	id := c.doctrine.ID.String()
	return bundle.Domains{
		Domains:  []bundle.Bound{{Domain: domain, Policy: id}},
		Tiers:    []bundle.TierRow{{Policy: id, Classification: "SECRET", Tier: identity.TierHardware}},
		Defaults: []bundle.Default{{Domain: domain, Label: bundle.TestLabel{Policy: id, Classification: "UNMARKED"}}},
	}
}

// folder is the cabinet's usual bundle, as officers write it.
func (c *cabinet) folder() fstest.MapFS { return c.doctrine.Folder("", c.table()) }

// pack makes a version of a folder, with its statements on record and the bulletin that
// names it, and returns it without anybody having been told.
func (c *cabinet) pack(version uint32, folder fstest.MapFS, by ...*signer) *rules.State {
	c.t.Helper()
	contents, err := bundle.Pack(folder, version)
	if err != nil {
		c.t.Fatal(err)
	}
	b, err := bundle.Reopen(contents) // dates are for the devices to judge
	if err != nil {
		c.t.Fatal(err)
	}
	body := &statement.Bundle{Change: statement.NewID(), Hash: b.Hash, Version: int(version), Previous: c.previous}
	signed := &bundle.Signed{Contents: contents}
	for _, o := range by {
		signed.Statements = append(signed.Statements, o.sign(body))
	}
	file, err := signed.Marshal()
	if err != nil {
		c.t.Fatal(err)
	}
	c.previous, c.file = statement.BodyDigest(body), file
	return &rules.State{Bundle: b, File: bytes.Clone(file)}
}

// recorded puts the statements of a bundle on record.
func (c *cabinet) recorded(state *rules.State) *rules.State {
	c.t.Helper()
	signed, err := bundle.ParseSigned(state.File)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, raw := range signed.Statements {
		c.shelf.record(ledger.KindStatement, raw)
	}
	c.shelf.publish()
	return state
}

// announce issues the bulletin that names a bundle.
func (c *cabinet) announce(hash [32]byte, people ...bulletin.PersonStanding) {
	c.t.Helper()
	s := c.shelf
	s.mu.Lock()
	defer s.mu.Unlock()
	head, err := ledger.HeadOf(int64(len(s.entries)), s)
	if err != nil {
		c.t.Fatal(err)
	}
	s.issue++
	at := s.clock().UTC().Truncate(time.Second)
	b := &bulletin.Bulletin{
		Number: s.issue, Time: at, Next: at.Add(time.Hour), Manifest: s.newest.Number, Bundle: hash,
		LedgerSize: head.N, LedgerRoot: head.Hash, People: people,
	}
	if s.announced, err = bulletin.Sign(context.Background(), s.announcer, b); err != nil {
		c.t.Fatal(err)
	}
	set, err := c.gateway.Standings().WithBulletin(b)
	if err != nil {
		c.t.Fatal(err)
	}
	c.gateway.SetStandings(set)
}

// enact puts a folder into force, with everything that belongs to it, and tells the
// gateway.
func (c *cabinet) enact(version uint32, folder fstest.MapFS) *rules.State {
	c.t.Helper()
	state := c.recorded(c.pack(version, folder, c.olga, c.oskar))
	c.announce(state.Bundle.Hash)
	c.serve(state)
	return state
}

// serve hands a bundle to the gateway.
func (c *cabinet) serve(state *rules.State) {
	c.world.rules = state
	c.gateway.SetRules(state)
}

// version is that of the bundle in force at a device, 0 for none.
func (d *device) version() uint32 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.law.bundle == nil {
		return 0
	}
	return d.law.bundle.Version
}

// obeys waits until a device has a version of the bundle.
func (d *device) obeys(version uint32) *device {
	d.t.Helper()
	d.until("has the policy bundle", func() bool { return d.version() == version })
	return d
}

// write sends under a label and waits.
func (d *device) write(conv ConversationID, text, label string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	id, err := d.Send(ctx, Draft{Conversation: conv, Text: text, Label: label})
	if err != nil {
		return err
	}
	return d.Wait(ctx, id)
}

// relabel replaces a word in the oldest message that waits at the stopped gateway.
func (c *cabinet) relabel(old, with string) (n int64) {
	c.t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(c.dir, "relay.db"))
	if err != nil {
		c.t.Fatal(err)
	}
	defer db.Close()
	var id int64
	var payload []byte
	if err := db.QueryRow("SELECT id, payload FROM messages WHERE id = (SELECT min(message) FROM mailbox)").Scan(&id, &payload); err != nil {
		c.t.Fatal(err)
	}
	if len(old) != len(with) || bytes.Count(payload, []byte(old)) != 1 {
		c.t.Fatalf("%q stands %d times in the message", old, bytes.Count(payload, []byte(old)))
	}
	return c.sqlite("UPDATE messages SET payload = $1 WHERE id = $2", bytes.Replace(payload, []byte(old), []byte(with), 1), id)
}

// An arrivalProbe asks a recipient what it makes of a header that its sender signed.
type arrivalProbe struct {
	at, from     *device
	octets, hash []byte
}

func (p *arrivalProbe) judge(t *testing.T) string {
	t.Helper()
	m := &arrival{
		header:  &wire.Header{Labelled: true, Label: p.octets, PolicyHash: p.hash, Sequence: 1},
		content: &wire.Content{Time: uint64(time.Now().UnixMilli())}, members: 2,
	}
	if l, err := policy.ParseLabel(p.octets); err == nil {
		m.header.Policy = []byte(l.Policy)
	}
	p.at.mu.Lock()
	defer p.at.mu.Unlock()
	reason, _ := p.at.judge(m, mls.X509Credential(p.from.chain))
	return reason
}
