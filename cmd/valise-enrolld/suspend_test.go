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
	"fmt"
	"net/http"
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
	follower := b.follow()
	b.start()
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
func (b *bureau) follow() *gatewayfeed.Feed {
	b.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.t.Fatal(err)
	}
	b.write("gateway.csr", string(enrolltest.CSR(b.t, key)))
	var chain [][]byte
	out := []byte(b.must("gateway-cert", "--csr", filepath.Join(b.dir, "gateway.csr"), "--name", "gateway."+domain))
	for block, rest := pem.Decode(out); block != nil; block, rest = pem.Decode(rest) {
		chain = append(chain, block.Bytes)
	}
	f, err := gatewayfeed.Open(b.t.Context(), gatewayfeed.Config{
		Path: filepath.Join(b.dir, "copy.db"), Root: b.root(), Domain: domain, URL: b.url,
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
