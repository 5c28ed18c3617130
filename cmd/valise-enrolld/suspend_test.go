// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"valise/bulletin"
	"valise/enroll/desk/call"
	"valise/enroll/enrolltest"
	gatewayfeed "valise/gateway/feed"
	"valise/identity"
	"valise/internal/testenv"
	"valise/statement"
)

// The HSM is dead: no bulletin can be signed. One officer's suspension is taken all
// the same, over a new connection, and a gateway obeys it within seconds. When the
// HSM is back, a bulletin confirms it.
func TestSuspensionWhileHSMIsDead(t *testing.T) {
	server := testenv.SoftHSMServer(t)
	b := newBureau(t, server, server.PINFile)
	for _, label := range []string{"safe", "https"} {
		newToken(t, &server.Backing, label)
		name := map[string]string{"safe": "root-token", "https": "tls-token"}[label]
		b.amend("[endorsements]", fmt.Sprintf("[%s]\nuri = \"pkcs11:token=%s?module-path=%s\"\npin-source = %q\n[endorsements]", name, label, server.Backing.Module, server.PINFile))
	}
	b.amend("[endorsements]", "[bulletin]\nheartbeat = \"1s\"\n[endorsements]")
	cards := b.holdCeremony(&server.Backing)
	b.start()
	follower := b.follow(cards)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- follower.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done; follower.Close() })
	until(t, "a bulletin arrives", func() bool { return follower.Set().Number() > 0 })

	server.Kill(t)
	until(t, "/healthz turns red", func() bool {
		code, body := b.health()
		return code == http.StatusServiceUnavailable && !strings.Contains(body, `"hsm":"ok"`)
	})
	device := b.vendor.Card(t, enrolltest.CardConfig{}).ID(t) // any: the standing is a key's
	bystander := b.vendor.Card(t, enrolltest.CardConfig{}).ID(t)
	alice, err := identity.ParseAddress("alice@" + domain)
	if err != nil {
		t.Fatal(err)
	}
	before := follower.Set().Number()
	began := time.Now()
	desk := b.desk(cards["olga"], "olga")
	outcome, err := desk.Submit(t.Context(), b.states(cards["olga"], "olga", &statement.Suspension{
		Target: statement.Target{Kind: statement.TargetDevice, Device: device}, Reason: "lost on a train", Change: statement.NewID(),
	}))
	if err != nil || outcome.State != call.OutcomeRecorded {
		t.Fatalf("suspend: %+v, %v", outcome, err)
	}
	until(t, "the gateway obeys", func() bool { return follower.Set().Device(device, alice).State == bulletin.Suspended })
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the suspension took %v", took)
	}
	set := follower.Set()
	if set.Number() != before || set.Pending() == 0 {
		t.Errorf("bulletin %d became %d: who signed it?", before, set.Number())
	}
	if now := set.Device(bystander, alice).State; now == bulletin.Suspended { // control
		t.Errorf("another device is %v", now)
	}
	if code, body := b.health(); code == http.StatusOK {
		t.Errorf("the HSM is back too early: %s", body)
	}

	server.Start(t)
	until(t, "a bulletin confirms it", func() bool {
		set := follower.Set()
		return set.Number() > before && set.Pending() == 0 && set.Device(device, alice).State == bulletin.Suspended
	})
	until(t, "/healthz turns green", func() bool { code, _ := b.health(); return code == http.StatusOK })
}

// follow makes a gateway's side of the feed, with a certificate of its own.
// Where there are officers, two approve it.
func (b *bureau) follow(cards map[string]*enrolltest.Card) *gatewayfeed.Feed {
	b.t.Helper()
	return b.followAs("gateway", cards)
}

// followAs is follow for one of several gateways.
func (b *bureau) followAs(name string, cards map[string]*enrolltest.Card) *gatewayfeed.Feed {
	b.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.t.Fatal(err)
	}
	b.write(name+".csr", string(enrolltest.CSR(b.t, key)))
	var chain [][]byte
	command := []string{"gateway-cert", "--csr", filepath.Join(b.dir, name+".csr"), "--name", name + "." + domain}
	if cards != nil {
		b.approveGateway(cards, key.Public(), command)
	}
	out := []byte(b.must(command...))
	for block, rest := pem.Decode(out); block != nil; block, rest = pem.Decode(rest) {
		chain = append(chain, block.Bytes)
	}
	f, err := gatewayfeed.Open(b.t.Context(), gatewayfeed.Config{
		Path: filepath.Join(b.dir, name+".db"), Root: b.root(), Domain: domain, URL: b.url,
		Certificate: func() *tls.Certificate { return &tls.Certificate{Certificate: chain, PrivateKey: key} },
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return f
}

// states has an officer sign a statement.
func (b *bureau) states(card *enrolltest.Card, name string, body statement.Body) []byte {
	b.t.Helper()
	address, err := identity.ParseAddress(name + "@" + domain)
	if err != nil {
		b.t.Fatal(err)
	}
	now := time.Now().UTC().Truncate(time.Second)
	head := statement.Head{Authority: sha256.Sum256(b.root().Raw), ID: statement.NewID(), Time: now, Expires: now.Add(5 * time.Minute)}
	raw, err := statement.Sign(b.t.Context(), crypto.Signer(card.Key), pemChain(b.t, b.file(officerFile(address))), head, body)
	if err != nil {
		b.t.Fatal(err)
	}
	return raw
}

// desk opens a session, over a connection of its own.
func (b *bureau) desk(card *enrolltest.Card, name string) *call.Client {
	b.t.Helper()
	c := &call.Client{URL: b.url, Root: sha256.Sum256(b.root().Raw)}
	if err := c.Open(b.t.Context(), func(s *statement.Session) ([]byte, error) { return b.states(card, name, s), nil }); err != nil {
		b.t.Fatal(err)
	}
	return c
}

// approveGateway has two officers approve what a command asks for. Before, it issues
// nothing and says that it waits.
func (b *bureau) approveGateway(cards map[string]*enrolltest.Card, key crypto.PublicKey, command []string) {
	b.t.Helper()
	id, err := identity.DeviceIDOf(key)
	if err != nil {
		b.t.Fatal(err)
	}
	for i, name := range []string{"olga", "omar"} {
		printed, err := b.run(command...)
		exit, ok := errors.AsType[*exec.ExitError](err)
		if printed != "" || !ok || exit.ExitCode() != exitWaiting || !strings.Contains(err.Error(), id.String()) ||
			!strings.Contains(err.Error(), fmt.Sprintf("%d of 2 approvals", i)) {
			b.t.Fatalf("gateway-cert: %q, %v", printed, err)
		}
		desk := b.desk(cards[name], name)
		all, err := desk.Gateways(b.t.Context())
		if err != nil || len(all) != 1 || all[0].Key != id || all[0].Change == nil || len(all[0].Approvals) != i {
			b.t.Fatalf("the desk shows %+v, %v", all, err)
		}
		body, err := all[0].Change.Parse()
		if err != nil {
			b.t.Fatal(err)
		}
		other := *body.(*statement.Gateway)
		other.Names = []string{"other." + domain}
		if _, err := desk.Submit(b.t.Context(), b.states(cards[name], name, &other)); err == nil {
			b.t.Fatal("an approval of what nobody asked for was taken")
		}
		if _, err := desk.Submit(b.t.Context(), b.states(cards[name], name, body)); err != nil {
			b.t.Fatal(err)
		}
	}
}
